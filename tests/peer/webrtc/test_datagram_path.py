"""Datagrams in batches, between real sockets: every path carries all bytes, and a hostile datagram changes nothing."""

import errno
import ipaddress
import random
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, Literal

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from sdpx.ice_servers import IceServer
from sdpx.peer.webrtc import aioice_ext, datagram_path
from sdpx.peer.webrtc.binary_channel import BinaryChannel
from sdpx.peer.webrtc.datagram_path import DatagramPath
from sdpx.peer.webrtc.peer_connection import PeerConnection, host_addresses
from tests.harness.coturn import PASSWORD, USER, coturn
from tests.harness.peer_connections import negotiate, two_connections

ADDRESS: Final = ("192.0.2.1", 9)


@asynccontextmanager
async def two_peers(
    *servers: IceServer, relay_only: bool = False
) -> AsyncIterator[tuple[PeerConnection, PeerConnection]]:
    """Yield two connections with a binary channel, of which the first has servers."""
    async with two_connections(servers, (), relay_only=relay_only) as (a, b), trio.open_nursery() as nursery:
        a.channels.binary("chat")
        b.channels.binary("chat")
        await negotiate(a, b)
        if servers:
            nursery.start_soon(a.gather)
            async for candidate in a.local_candidates:
                await b.add_candidate(candidate)
        yield a, b


async def carry(a: PeerConnection, b: PeerConnection, size: int = 3_000_000) -> None:
    """Send random messages in both directions at once, and require that they arrive as they were."""
    source = random.Random(size)

    async def send(channel: BinaryChannel, messages: list[bytes]) -> None:
        for message in messages:
            await channel.send(message)

    async def receive(channel: BinaryChannel, messages: list[bytes]) -> None:
        received: list[bytes | str] = []
        while len(received) < len(messages):
            received += await channel.receive()
        assert received == messages

    ends = [pc.channels.binary("chat") for pc in (a, b)]
    for end in ends:
        await end.opened()
    async with trio.open_nursery() as nursery:
        for sender, receiver in (ends, ends[::-1]):
            left, messages = size, []
            while left > 0:
                messages.append(source.randbytes(source.choice([1, 1000, 1172, 5000, 65_536, 200_000])))
                left -= len(messages[-1])
            nursery.start_soon(send, sender, messages)
            nursery.start_soon(receive, receiver, messages)


def path_of(pc: PeerConnection) -> Any:
    path = pc._pc.sctp.path  # type: ignore[union-attr]
    assert isinstance(path, DatagramPath)
    return path


@pytest.mark.parametrize("has_gso", [True, False], ids=["gso", "no_gso"])
async def test_a_direct_path_carries_all_bytes(has_gso: bool) -> None:
    async with two_peers() as (a, b):
        await a.channels.binary("chat").opened()
        path_of(a)._has_gso = has_gso
        await carry(a, b)


async def test_ipv6_carries_all_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [each for each in host_addresses() if ipaddress.ip_address(each).version == 6]
    if not found:
        pytest.skip("this machine has no IPv6 address")
    monkeypatch.setattr(aioice_ext, "interfaces", lambda: [("six", found)])
    async with two_peers() as (a, b):
        await carry(a, b)
        assert a.selected_pair is not None
        assert ipaddress.ip_address(a.selected_pair.local_address).version == 6


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_a_relayed_path_carries_all_bytes(transport: Literal["udp", "tcp"], tmp_path: Path) -> None:
    """Through a TURN server, over UDP and TCP: records take aiortc's way."""
    async with coturn(tmp_path) as port:
        server = IceServer("turn", "127.0.0.1", port, transport, USER, PASSWORD)
        async with two_peers(server, relay_only=True) as (a, b):
            await carry(a, b, 500_000)
            assert a.selected_pair is not None
            assert a.selected_pair.local_candidate == "relay"


async def test_hostile_datagrams_change_nothing() -> None:
    """Records that are forged, cut, repeated or of a wrong version come in between those of the peer."""
    async with two_peers() as (a, b):
        await carry(a, b, 10_000)
        pair = path_of(a)._connection._nominated[1]
        real: list[bytes] = []
        encrypt = path_of(a)._encrypt

        def record(packet: bytes) -> bytes:
            real.append(encrypt(packet))
            return real[-1]

        path_of(a)._encrypt = record
        await carry(a, b, 100_000)
        source = random.Random(1)
        forged = [bytes([kind]) + source.randbytes(size) for kind in range(20, 64) for size in (0, 12, 13, 100, 1400)]
        forged += [each[: len(each) // 2] for each in real] + [each + each for each in real] + real
        forged += [bytes([each[0] ^ 1]) + each[1:] for each in real] + [b"", b"\0" * 20, b"\x80" * 200]
        source.shuffle(forged)
        with socket.socket(
            socket.AF_INET6 if ":" in pair.remote_addr[0] else socket.AF_INET, socket.SOCK_DGRAM
        ) as sock:
            before = b._pc.sctp.transport._RTCDtlsTransport__rx_packets  # type: ignore[union-attr]
            for each in forged:
                sock.sendto(each, pair.remote_addr)
            while b._pc.sctp.transport._RTCDtlsTransport__rx_packets == before:  # type: ignore[union-attr]
                await trio.sleep(0.01)
        await carry(a, b, 300_000)


async def test_a_closed_connection_is_noticed_and_its_path_is_left() -> None:
    async with two_peers() as (a, b):
        await carry(a, b, 10_000)
        sctp = b._pc.sctp
        await a.close()
        assert await b.channels.binary("chat").receive() == []
        assert sctp is not None
        while sctp.path is not None:  # type: ignore[attr-defined]
            await trio.sleep(0.01)


# ---- without a network --------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 3).map(bytes), min_size=1, max_size=200))
def test_segments_are_of_equal_size_but_for_a_shorter_last_one(records: list[bytes]) -> None:
    """As the kernel cuts a GSO datagram; all records are sent, in order."""
    start = 0
    while start < len(records):
        end = datagram_path._end_of_segments(records, start)
        assert start < end <= min(len(records), start + datagram_path.MAX_SEGMENTS)
        sizes = [len(each) for each in records[start:end]]
        assert set(sizes[:-1]) <= {sizes[0]}
        assert sizes[-1] <= sizes[0]
        start = end
    assert start == len(records)


class FakeSocket:
    """Records the datagrams that are sent; each call first raises an error, if there is one for it."""

    def __init__(self, *errors: int) -> None:
        self.errors: Iterator[int] = iter(errors)
        self.sent: list[bytes] = []

    def _send(self, data: bytes) -> None:
        if number := next(self.errors, 0):
            raise OSError(number, "fake")
        self.sent.append(data)

    def sendto(self, data: bytes, address: object) -> None:
        assert address == ADDRESS
        self._send(data)

    def sendmsg(self, buffers: list[bytes], ancillary: Any, _flags: int, address: object) -> None:
        assert address == ADDRESS
        size = int.from_bytes(ancillary[0][2], "little")
        data = buffers[0]
        self._send(b"|".join(data[start : start + size] for start in range(0, len(data), size)))


class FakeProtocol:
    """The protocol of a socket, and its transport: the records left to it, and the errors reported to it."""

    def __init__(self) -> None:
        self.transport = self
        self.left: list[bytes] = []
        self.errors: list[OSError] = []
        self.error_received = self.errors.append

    def sendto(self, data: bytes, _address: object) -> None:
        self.left.append(data)


RECORDS: Final = [b"aa", b"bb", b"c", b"dd"]


@pytest.mark.parametrize(
    ("errors", "sent", "left", "has_gso"),
    [
        ([], [b"aa|bb|c", b"dd"], [], True),
        ([errno.EINVAL], [b"aa", b"bb", b"c", b"dd"], [], False),
        ([0, errno.EAGAIN], [b"aa|bb|c"], [b"dd"], True),
        ([errno.EAGAIN], [], RECORDS, True),
        ([errno.ENETUNREACH], [], [], True),
    ],
    ids=["segments", "no_gso", "full_later", "full", "no_route"],
)
def test_records_are_sent_at_once_or_later(
    errors: list[int], sent: list[bytes], left: list[bytes], has_gso: bool
) -> None:
    """Without GSO one by one; in a full socket the rest waits; without a route it is lost, as any datagram may be."""
    path: Any = DatagramPath.__new__(DatagramPath)
    path._has_gso = True
    sock, protocol = FakeSocket(*errors), FakeProtocol()
    path._send_now(protocol, sock, RECORDS, ADDRESS)
    assert (sock.sent, protocol.left, path._has_gso) == (sent, left, has_gso)
    assert [each.errno for each in protocol.errors] == [each for each in errors if each == errno.ENETUNREACH]
