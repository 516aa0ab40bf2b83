"""Checks of STUN and TURN servers, one by one: an answer, the address that the server sees, an allocation, data through it."""

import os
import re
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from socket import AF_INET, AF_INET6, SOCK_DGRAM, gaierror
from typing import Any, Final

import trio

from sdpx.client_tls import (
    client_context,
    connect_causes,
    describe_connect_failure,
    lacks_route,
    open_stream,
    tls_cause,
    tls_reason,
)
from sdpx.doctor import network, stun
from sdpx.doctor.check import Check, passed, problem, skipped
from sdpx.doctor.recorder import CheckRecorder
from sdpx.doctor.stun import Address, Message
from sdpx.errors import describe_os_error
from sdpx.ice_servers import IceServer
from sdpx.urls import host_port

RETRANSMISSIONS: Final = (0.5, 1.0, 1.5)  # seconds to wait after each request (RFC 8489, 6.2.1, cut short)
CONNECT_SECONDS: Final = 5.0
CREDENTIAL_SECONDS: Final = 300
PAYLOAD: Final = b"sdpx"
MAX_REALM_BYTES: Final = 763  # and of a nonce (RFC 8489, 14.9 and 14.10)
_EXPIRY: Final = re.compile("[0-9]{10,12}")
_FAMILIES: Final = {"ipv4": AF_INET, "ipv6": AF_INET6}


class Transport:
    """A transport to one server that sends and receives STUN messages."""

    def __init__(self, stream: Any, peer: Any) -> None:
        self._stream = stream
        self._peer = peer  # the server's address, for a datagram socket
        self._buffer = b""

    async def send(self, data: bytes) -> None:
        """Send a message."""
        if self._peer is None:
            await self._stream.send_all(data)
        else:
            await self._stream.sendto(data, self._peer)

    async def receive(self) -> Message:
        """Wait for the next message of the server."""
        while True:
            data, source = await self._receive_data()
            message = stun.decode(data)
            if message is not None and (self._peer is None or source[:2] == self._peer[:2]):
                return message

    async def _receive_data(self) -> tuple[bytes, Any]:
        if self._peer is not None:
            data, source = await self._stream.recvfrom(65_536)
            return data, source
        while len(self._buffer) < stun.HEADER.size or len(self._buffer) < stun.message_size(self._buffer):
            more = await self._stream.receive_some(65_536)
            if not more:
                raise trio.BrokenResourceError
            self._buffer += more
        size = stun.message_size(self._buffer)
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data, None

    async def request(
        self, kind: int, attributes: Iterable[tuple[int, bytes]] = (), key: bytes = b""
    ) -> Message | None:
        """Send a request, again if it is not answered, and return the response; None without one."""
        transaction = os.urandom(stun.TRANSACTION_BYTES)
        data = stun.encode(kind, transaction, attributes, key)
        for seconds in RETRANSMISSIONS if self._peer is not None else (sum(RETRANSMISSIONS),):
            await self.send(data)
            with trio.move_on_after(seconds):
                while (message := await self.receive()).transaction != transaction:
                    pass
                return message
        return None


class Allocation:
    """An allocation at a TURN server (RFC 8656, 7), with its credentials."""

    def __init__(self, transport: Transport, server: IceServer) -> None:
        self._transport = transport
        self._server = server
        self._attributes: list[tuple[int, bytes]] = []
        self._key = b""
        self.relayed: Address | None = None
        self.mapped: Address | None = None
        self.error = (0, "")

    async def allocate(self) -> bool:
        """Ask for an allocation, first without credentials; False with the `error` of the server, (0, "") without an answer."""
        wanted = (stun.REQUESTED_TRANSPORT, stun.UDP)
        response = await self._transport.request(stun.ALLOCATE, [wanted])
        if response is not None and response.error[0] == 401:  # noqa: PLR2004  carries realm and nonce
            self._authenticate(response)
            response = await self._transport.request(stun.ALLOCATE, [wanted, *self._attributes], self._key)
            if response is not None and response.error[0] == 438:  # noqa: PLR2004  stale nonce
                self._authenticate(response)
                response = await self._transport.request(stun.ALLOCATE, [wanted, *self._attributes], self._key)
        if response is None or response.kind != stun.ALLOCATE | stun.SUCCESS:
            self.error = (0, "") if response is None else response.error
            return False
        self.relayed = response.address(stun.XOR_RELAYED_ADDRESS)
        self.mapped = response.address(stun.XOR_MAPPED_ADDRESS)
        return self.relayed is not None

    def _authenticate(self, response: Message) -> None:
        realm, nonce = (response.attributes.get(each, b"")[:MAX_REALM_BYTES] for each in (stun.REALM, stun.NONCE))
        username, credential = self._server.username or "", self._server.credential or ""
        self._attributes = [(stun.USERNAME, username.encode()), (stun.REALM, realm), (stun.NONCE, nonce)]
        self._key = stun.long_term_key(username, realm, credential)

    async def permit(self, peer: Address) -> None:
        """Permit a peer to send to the relayed address (RFC 8656, 9)."""
        transaction = os.urandom(stun.TRANSACTION_BYTES)
        await self._transport.send(
            stun.encode(
                stun.CREATE_PERMISSION,
                transaction,
                [(stun.XOR_PEER_ADDRESS, stun.encode_address(peer, transaction)), *self._attributes],
                self._key,
            )
        )
        while (message := await self._transport.receive()).transaction != transaction:
            pass
        self.error = message.error

    async def send(self, peer: Address, data: bytes) -> None:
        """Send data from the relayed address (RFC 8656, 11)."""
        transaction = os.urandom(stun.TRANSACTION_BYTES)
        address = (stun.XOR_PEER_ADDRESS, stun.encode_address(peer, transaction))
        await self._transport.send(stun.encode(stun.SEND_INDICATION, transaction, [address, (stun.DATA, data)]))

    async def receive(self) -> bytes:
        """Wait for data that arrived at the relayed address."""
        while (message := await self._transport.receive()).kind != stun.DATA_INDICATION:
            pass
        return message.attributes.get(stun.DATA, b"")

    async def release(self) -> None:
        """End the allocation (RFC 8656, 8)."""
        lifetime = (stun.LIFETIME, bytes(4))
        await self._transport.send(
            stun.encode(stun.REFRESH, os.urandom(stun.TRANSACTION_BYTES), [lifetime, *self._attributes], self._key)
        )


# ---- STUN -----------------------------------------------------------------------------------------------------------


async def check_stun(servers: Sequence[IceServer], local: Sequence[str], recorder: CheckRecorder) -> None:
    """Check each STUN server by each address family, and the NAT by the addresses of one IPv4 socket that they saw."""
    if not servers:
        recorder.add(skipped("stun", "", "No STUN server is given, by the relay or by --stun"))
        return
    seen: dict[str, str] = {}
    sockets: dict[str, trio.socket.SocketType] = {}
    try:
        for server in servers:
            await recorder.record("stun", server.url, _stun, server, sockets, seen)
    finally:
        for each in sockets.values():
            each.close()
    if (nat := network.describe_nat(seen, local)) is not None:
        recorder.add(nat)


async def _stun(
    target: str, server: IceServer, sockets: dict[str, trio.socket.SocketType], seen: dict[str, str]
) -> Check:
    """Ask a server from one socket of each family, in `sockets`, so that `seen` shows how the NAT maps it."""
    results: dict[str, Any] = {}
    has_route = False
    for family, address in await _resolve(server):
        began = trio.current_time()
        try:
            if family not in sockets:
                sockets[family] = trio.socket.socket(_FAMILIES[family], SOCK_DGRAM)
            response = await Transport(sockets[family], address).request(stun.BINDING)
        except OSError as error:
            has_route |= not lacks_route(error)
            results[family] = {"server": address[0], "error": describe_os_error(error)}
            continue
        mapped = response.address(stun.XOR_MAPPED_ADDRESS) if response is not None else None
        if mapped is None:
            results[family], has_route = {"server": address[0], "error": "no answer"}, True
            continue
        shown = str(_shown(mapped))
        results[family] = {"server": address[0], "mapped": shown, "ms": round((trio.current_time() - began) * 1000, 1)}
        if family == "ipv4":
            seen[f"{address[0]}:{address[1]}"] = shown
    if not results:
        return problem("stun", target, "stun_unresolved", f"The name {server.host} cannot be resolved")
    parts = [f"{family}: {each.get('mapped') or each['error']}" for family, each in results.items()]
    if not any("mapped" in each for each in results.values()):
        code = "stun_silent" if has_route else "stun_no_route"
        return problem("stun", target, code, f"No answer ({', '.join(parts)})", **results)
    return passed("stun", target, f"It sees {', '.join(parts)}", **results)


async def _resolve(server: IceServer) -> list[tuple[str, Any]]:
    """Return a family and a socket address for each family that the server has."""
    try:
        with trio.fail_after(CONNECT_SECONDS):
            found = await trio.socket.getaddrinfo(server.host, server.port, type=SOCK_DGRAM)
    except (gaierror, trio.TooSlowError, UnicodeError):
        return []
    first = {each[0]: each[4] for each in reversed(found)}
    return [(name, first[family]) for name, family in _FAMILIES.items() if family in first]


# ---- TURN -----------------------------------------------------------------------------------------------------------


async def check_turn(servers: Sequence[IceServer], cafile: str | None, recorder: CheckRecorder) -> None:
    """Check each TURN server by its transport: an allocation, the life of its credentials, data through it."""
    if not servers:
        recorder.add(skipped("turn", "", "No TURN server is given, by the relay or by --turn"))
    for server in servers:
        await recorder.record("turn", server.url, _turn, server, cafile)


async def _turn(target: str, server: IceServer, cafile: str | None) -> Check:
    left = _seconds_left(server)
    evidence: dict[str, Any] = {} if left is None else {"credentials_seconds_left": left}
    try:
        with trio.fail_after(3 * CONNECT_SECONDS):
            async with _transport(server, cafile) as first, _transport(server, cafile) as second:
                check = await _allocate(target, Allocation(first, server), Allocation(second, server), left, evidence)
    except gaierror:
        return problem("turn", target, "turn_unresolved", f"The name {server.host} cannot be resolved")
    except (OSError, trio.BrokenResourceError, trio.TooSlowError) as error:
        cause = tls_cause(error)
        if cause is not None:
            return problem("turn", target, "turn_certificate", f"TLS failed: {tls_reason(cause)}")
        detail = "no answer" if isinstance(error, trio.TooSlowError) else describe_connect_failure(error)
        code = "turn_no_route" if all(map(lacks_route, connect_causes(error))) else "turn_unreachable"
        return problem("turn", target, code, f"No connection: {detail}", **evidence)
    if check.result == "ok" and left is not None and left < CREDENTIAL_SECONDS:
        return problem(
            "turn", target, "turn_expires", f"It works, but its credentials expire in {left} s", **check.evidence
        )
    return check


async def _allocate(target: str, one: Allocation, two: Allocation, left: int | None, evidence: dict[str, Any]) -> Check:
    """Make two allocations, and send data from one to the other."""
    if not await one.allocate():
        return _not_allocated(target, one.error, left, evidence)
    evidence |= {"relayed": _shown(one.relayed), "mapped": _shown(one.mapped)}
    try:
        evidence["data"] = await two.allocate() and await _carries(one, two)
    finally:
        await one.release()
        await two.release()
    if not evidence["data"]:
        code, reason = one.error if one.error[0] else two.error
        sentence = "It allocates, but relays no data" + (f" ({code} {reason})" if code else "")
        return problem("turn", target, "turn_no_data", sentence, **evidence)
    life = f", credentials for {left} s" if left is not None else ""
    return passed("turn", target, f"It relays data from {evidence['relayed']}{life}", **evidence)


def _shown(address: Address | None) -> str | None:
    return None if address is None else host_port(*address)


_REASONS: Final = {
    401: "wrong user name or password, or expired credentials",
    403: "it forbids the allocation",
    437: "it has another allocation for this socket",
    441: "wrong user name or password",
    442: "it relays no UDP",
    486: "the user has reached its quota of allocations",
    508: "it has no port left",
}


def _not_allocated(target: str, error: tuple[int, str], left: int | None, evidence: dict[str, Any]) -> Check:
    code, reason = error
    if not code:
        return problem("turn", target, "turn_unreachable", "No answer", **evidence)
    expired = left is not None and left <= 0
    words = f"the credentials expired {-(left or 0)} s ago" if expired else _REASONS.get(code, reason)
    return problem(
        "turn", target, "turn_refused", f"It answered {code}: {words}", error=code, reason=reason, **evidence
    )


async def _carries(one: Allocation, two: Allocation) -> bool:
    """Send data from one relayed address to the other."""
    assert one.relayed is not None
    assert two.relayed is not None
    await one.permit(two.relayed)
    await two.permit(one.relayed)
    if one.error[0] or two.error[0]:
        return False
    for seconds in RETRANSMISSIONS:
        await one.send(two.relayed, PAYLOAD)
        with trio.move_on_after(seconds):
            return await two.receive() == PAYLOAD
    return False


def _seconds_left(server: IceServer) -> int | None:
    """Return the life of credentials whose user name begins with the time of their end (the TURN REST API)."""
    expiry = (server.username or "").partition(":")[0]
    return int(expiry) - int(time.time()) if _EXPIRY.fullmatch(expiry) else None


@asynccontextmanager
async def _transport(server: IceServer, cafile: str | None) -> AsyncIterator[Transport]:
    """Connect to a TURN server by its transport. Raises OSError, BrokenResourceError or TooSlowError."""
    if server.transport == "udp":
        found = await trio.socket.getaddrinfo(server.host, server.port, type=SOCK_DGRAM)
        with trio.socket.socket(found[0][0], SOCK_DGRAM) as datagrams:
            yield Transport(datagrams, found[0][4])
        return
    with trio.fail_after(CONNECT_SECONDS):
        context = client_context(cafile) if server.scheme == "turns" else None
        stream = await open_stream(server.host, server.port, context)
    try:
        yield Transport(stream, None)
    finally:
        await trio.aclose_forcefully(stream)
