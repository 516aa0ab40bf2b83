"""Attacks with WebSocket frames: violations of RFC 6455 end the connection, and valid frames affect no other client."""

import json
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import pytest
import trio

from tests.harness.frames import BINARY, CLOSE, CONTINUATION, MASK, PING, PONG, TEXT, frame, message
from tests.harness.relay import Client, RawClient
from tests.harness.tcp import reset
from tests.hostile.attack import (
    ELSEWHERE,
    Attack,
    half_close,
    in_one_attack,
    patience,
    sends_until_cut,
    tcp_of,
)
from tests.hostile.conftest import ENGINES

pytestmark = pytest.mark.e2e
SERVERS: Final = ENGINES

LIMIT: Final = 64 * 1024  # of one message
SILENCE: Final = 0.8  # seconds that the hasty relay allows
HASTY_OPTIONS: Final = ("--ping-interval", "0.3", "--idle-timeout", str(SILENCE))
LINGER: Final = 2.0  # seconds, at most, in which a client that stays or goes on after its close is cut
HEARD: Final = 5.0  # seconds until an attacker receives its close code, behind all that it sent before
BOUND: Final = 16 * 1024 * 1024  # what an endless sender can get rid of: the kernel's buffers, mostly


def text(**message: Any) -> bytes:
    """Return the frame of a message."""
    return frame(TEXT, json.dumps(message).encode())


def header(first: int, size: int, extra: int = 8) -> bytes:
    """Return the header of a masked frame, its length in 2 or 8 bytes whatever is needed."""
    return bytes([first, 0x80 | {2: 126, 8: 127}[extra]]) + size.to_bytes(extra) + MASK


def close(code: int, reason: bytes = b"") -> bytes:
    return frame(CLOSE, code.to_bytes(2) + reason)


def fragments(*parts: bytes, opcode: int = TEXT) -> bytes:
    """Return a message in as many frames as there are parts."""
    last = len(parts) - 1
    return b"".join(frame(CONTINUATION if i else opcode, part, fin=i == last) for i, part in enumerate(parts))


@dataclass
class Duel:
    """An attacker of raw bytes, and the client that it is paired with."""

    attacker: RawClient
    attacker_id: str
    victim: Client

    async def check_attacker_is_notified(self, code: int) -> None:
        """The attacker receives this close code, and then its socket closes."""
        with trio.fail_after(HEARD):
            assert await self.attacker.close_code() == code
            assert await self.attacker.rest() == b""

    async def check_victim_is_notified(self, *reasons: str) -> None:
        """The peer receives one of these reasons, once: its next request is answered next."""
        with trio.fail_after(patience()):
            told = await self.victim.receive()
            assert told.pop("reason") in reasons
            assert told == {"type": "peer_disconnected", "peer_id": self.attacker_id}
            await self.check_victim_receives_no_more()

    async def check_victim_receives_no_more(self) -> None:
        await self.victim.send(type="ping", t="and?")
        assert await self.victim.receive() == {"type": "pong", "t": "and?"}

    async def check_they_still_work(self) -> None:
        """Both sides of the pair are relayed."""
        with trio.fail_after(patience()):
            await self.attacker.send(text(type="offer", sdp="there"))
            assert await self.victim.receive() == {"type": "offer", "sdp": "there", "from_peer": True}
            await self.victim.send(type="answer", sdp="and back")
            assert await self.attacker.receive() == {"type": "answer", "sdp": "and back", "from_peer": True}


async def duel(attack: Attack) -> Duel:
    """Let an attacker and a client pair."""
    attacker, attacker_id = await attack.raw()
    victim = await attack.client()
    await attacker.send(text(type="pair_request", target_id=victim.id))
    assert (await attacker.receive())["type"] == "paired"
    assert (await victim.receive())["type"] == "paired"
    return Duel(attacker, attacker_id, victim)


class Bad(NamedTuple):
    """The bytes of an attacker, and the close code that answers them."""

    data: bytes
    code: int


async def check(attack: Attack, bad: Bad, *reasons: str) -> None:
    """Send the bytes from one client of a pair, and check that both are notified."""
    pair = await duel(attack)
    await pair.attacker.send(bad.data)
    await pair.check_attacker_is_notified(bad.code)
    await pair.check_victim_is_notified(*reasons or ["refused"])


BROKEN: Final = {
    "an unmasked text": frame(TEXT, b'{"type": "ping"}', masked=False),
    "an unmasked ping": frame(PING, masked=False),
    "the first reserved bit": bytes([0xC1]) + text(type="ping")[1:],
    "the second reserved bit": bytes([0xA1]) + text(type="ping")[1:],
    "the third reserved bit": bytes([0x91]) + text(type="ping")[1:],
    "a reserved bit on a ping": bytes([0xC9]) + frame(PING)[1:],
    **{f"opcode {opcode}": frame(opcode, b"{}") for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "a ping of 126 bytes": frame(PING, bytes(126)),
    "a pong of 70,000 bytes": frame(PONG, bytes(70_000)),
    "a close of 126 bytes": close(1000, b"x" * 124),
    "a ping that announces 2**62 bytes": header(0x80 | PING, 1 << 62),
    "a fragmented ping": frame(PING, b"x", fin=False),
    "a fragmented close": frame(CLOSE, fin=False),
    "a continuation of nothing": frame(CONTINUATION, b"x"),
    "a continuation behind a whole message": text(type="pong") + frame(CONTINUATION, b"x"),
    "a message within a message": frame(TEXT, b"{", fin=False) + text(type="ping"),
    "a binary message within a text": frame(TEXT, b"{", fin=False) + frame(BINARY, b"x"),
    "2 bytes of length for 5": header(0x81, 5, 2) + b"12345",
    "8 bytes of length for 5": header(0x81, 5) + b"12345",
    "8 bytes of length for 65,535": header(0x81, 65_535),
    "a length of 2**63": header(0x81, 1 << 63),
    "a length of 2**64 - 1": header(0x81, (1 << 64) - 1),
    "plain HTTP": b"GET / HTTP/1.1\r\nHost: relay.test\r\n\r\n",
    "noise": b"\xff" * 4096,
}


@in_one_attack("data", BROKEN)
async def test_a_broken_frame_ends_the_connection_with_1002(attack: Attack, data: bytes) -> None:
    """The client gets the close code of its protocol error, and its peer `peer_disconnected` with reason `refused`."""
    await check(attack, Bad(data, 1002))


CODES: Final = [0, 999, 1004, 1005, 1006, 1015, 2999, 5000]


@pytest.mark.parametrize(
    "data",
    [frame(CLOSE, b"\x03"), *map(close, CODES)],
    ids=["a close of one byte", *(f"close code {code}" for code in CODES)],
)
async def test_a_broken_close_frame_is_answered_with_1002(attack: Attack, data: bytes) -> None:
    """RFC 6455, 7.4: codes that may not be sent, and half a code."""
    await check(attack, Bad(data, 1002))


SNOWMAN: Final = "\N{SNOWMAN}".encode()
NO_UTF8: Final = {
    "a byte that never occurs": frame(TEXT, b'{"type": "ping", "t": "\xff"}'),
    "a continuation byte alone": frame(TEXT, b"\x80"),
    "an overlong slash": frame(TEXT, b"\xc0\xaf"),
    "an overlong NUL": frame(TEXT, b"\xe0\x80\x80"),
    "a surrogate": frame(TEXT, b"\xed\xa0\x80"),
    "a pair of surrogates": frame(TEXT, b"\xed\xa0\xbd\xed\xb8\x80"),
    "beyond Unicode": frame(TEXT, b"\xf4\x90\x80\x80"),
    "cut at the end": frame(TEXT, SNOWMAN[:2]),
    "cut at the end of the last fragment": fragments(b"{", SNOWMAN[:2]),
    "broken across fragments": fragments(SNOWMAN[:2], b"x"),
    "broken in a fragment that is not the last": frame(TEXT, b"\xff", fin=False),
    "a close reason": close(1000, b"\xff"),
    "a close reason that is cut": close(1000, SNOWMAN[:2]),
}


@in_one_attack("data", NO_UTF8)
async def test_invalid_utf_8_ends_the_connection_with_1007(attack: Attack, data: bytes) -> None:
    """RFC 6455, 8.1: in a text, across its fragments, or in a close reason."""
    await check(attack, Bad(data, 1007))


TOO_BIG: Final = {
    "2**63 - 1 bytes announced": header(0x81, (1 << 63) - 1),
    "2**62 bytes of binary announced": header(0x82, 1 << 62),
    "4 GiB announced": header(0x81, 1 << 32),
    "a byte too many, announced": header(0x81, LIMIT + 1),
    "a byte too many": frame(TEXT, b"x" * (LIMIT + 1)),
    "a byte too many in two fragments": fragments(b"x" * LIMIT, b"x"),
    "a byte too many in many fragments": fragments(*[b"x" * 4096] * 16, b"x"),
    "a byte too many in a fragment to come": frame(TEXT, b"x", fin=False) + header(0x00, LIMIT),
    "fewer characters than the limit, but more bytes": frame(TEXT, SNOWMAN * (LIMIT // 3 + 1)),
    "1 MiB of binary": frame(BINARY, bytes(1024 * 1024)),
}


@in_one_attack("data", TOO_BIG)
async def test_a_message_over_the_limit_ends_the_connection_with_1009(attack: Attack, data: bytes) -> None:
    """As soon as it is announced, and however it is cut into frames."""
    await check(attack, Bad(data, 1009))


PINGS: Final = frame(PING, b"x")
ENDLESS_FRAGMENTS: Final = {
    "of one byte": frame(CONTINUATION, b"x", fin=False),
    "of no bytes": frame(CONTINUATION, fin=False),
    "with pings in between": frame(CONTINUATION, b"x", fin=False) + PINGS,
    "of binary": frame(CONTINUATION, b"\x00", fin=False),
}


@in_one_attack("more", ENDLESS_FRAGMENTS)
async def test_a_message_of_endless_fragments_ends_the_connection_with_1008(attack: Attack, more: bytes) -> None:
    """However little is in them."""
    await check(attack, Bad(frame(TEXT, fin=False) + more * 3000, 1008))


async def test_messages_before_a_broken_frame_are_relayed(attack: Attack) -> None:
    """Also when both come in one piece: the peer gets the frame first, then `peer_disconnected`."""
    pair = await duel(attack)
    await pair.attacker.send(text(type="offer", sdp="in time") + b"\xff" + text(type="offer", sdp="too late"))
    assert await pair.victim.receive() == {"type": "offer", "sdp": "in time", "from_peer": True}
    await pair.check_attacker_is_notified(1002)
    await pair.check_victim_is_notified("refused")


async def test_the_peer_of_a_refused_client_can_pair_again(attack: Attack) -> None:
    """On the same connection, time after time."""
    victim = await attack.client()
    for _ in range(10):
        attacker, attacker_id = await attack.raw()
        await attacker.send(text(type="pair_request", target_id=victim.id) + b"\xff")
        assert (await victim.receive())["peer_id"] == attacker_id
        assert (await victim.receive())["reason"] == "refused"


BINARIES: Final = {
    "of some bytes": frame(BINARY, bytes(range(256))),
    "of no bytes": frame(BINARY),
    "of JSON": frame(BINARY, b'{"type": "offer", "sdp": ""}'),
    "of 64 KiB": frame(BINARY, bytes(LIMIT)),
    "in fragments": fragments(b"\xff", b"", b"\xfe", opcode=BINARY),
}


@in_one_attack("data", BINARIES)
async def test_a_binary_message_is_refused_and_the_connection_stays(attack: Attack, data: bytes) -> None:
    """`bad_message`, and the pair goes on."""
    pair = await duel(attack)
    await pair.attacker.send(data)
    told = await pair.attacker.receive()
    assert (told["type"], told["code"]) == ("error", "bad_message")
    await pair.check_they_still_work()


async def test_a_flood_of_binary_messages_ends_the_connection_with_1008(attack: Attack) -> None:
    """Binary messages count as any message does; a client that does not read the refusals may be disconnected for that."""
    await check(attack, Bad(frame(BINARY, b"x") * 4000, 1008), "refused", "slow")


OFFER: Final = {"type": "offer", "sdp": SNOWMAN.decode() * 40}
OFFER_BYTES: Final = json.dumps(OFFER, ensure_ascii=False).encode()
CUT: Final = OFFER_BYTES.index(SNOWMAN) + 1  # in the middle of a character
ODD: Final = {
    "cut within a character": fragments(OFFER_BYTES[:CUT], OFFER_BYTES[CUT:]),
    "with pings and pongs between its fragments": frame(TEXT, OFFER_BYTES[:CUT], fin=False)
    + (frame(PING, b"x") + frame(PONG)) * 5
    + frame(CONTINUATION, OFFER_BYTES[CUT:]),
    "with empty fragments": fragments(b"", b"", OFFER_BYTES, b"", b""),
    "in fragments of one byte": fragments(*(OFFER_BYTES[i : i + 1] for i in range(len(OFFER_BYTES)))),
    "masked with zeros": frame(TEXT, OFFER_BYTES, mask=bytes(4)),
    "behind unsolicited pongs": frame(PONG, bytes(125)) * 50 + frame(TEXT, OFFER_BYTES),
}


@in_one_attack("data", ODD)
async def test_an_odd_but_good_message_is_relayed(attack: Attack, data: bytes) -> None:
    """Whatever RFC 6455 allows arrives whole, and the pair goes on."""
    pair = await duel(attack)
    await pair.attacker.send(data)
    with trio.fail_after(patience()):
        assert await pair.victim.receive() == OFFER | {"from_peer": True}
    await pair.check_victim_receives_no_more()


async def test_a_message_byte_by_byte_is_relayed(attack: Attack) -> None:
    """As slowly as it comes: each byte in a segment of its own."""
    pair = await duel(attack)
    for byte in frame(TEXT, OFFER_BYTES):
        await pair.attacker.send(bytes([byte]))
        await trio.sleep(0.001)
    assert await pair.victim.receive() == OFFER | {"from_peer": True}
    await pair.check_they_still_work()


async def test_a_message_of_exactly_the_limit_is_relayed(attack: Attack) -> None:
    """64 KiB are allowed."""
    pair = await duel(attack)
    offer = {"type": "offer", "sdp": "x" * (LIMIT - len(json.dumps({"type": "offer", "sdp": ""})))}
    await pair.attacker.send(text(**offer))
    assert await pair.victim.receive() == offer | {"from_peer": True}


async def test_a_hundred_pings_get_their_pongs(attack: Attack) -> None:
    """Each with its payload, in order: so many are no flood."""
    pair = await duel(attack)
    await pair.attacker.send(b"".join(frame(PING, b"%d" % number) for number in range(100)))
    assert [await pair.attacker.frame() for _ in range(100)] == [(PONG, b"%d" % number) for number in range(100)]
    await pair.check_they_still_work()


FLOODS: Final = {
    "empty pings": frame(PING),
    "long pings": frame(PING, bytes(125)),
    "pongs": frame(PONG, bytes(125)),
    "pings and pongs": frame(PING) + frame(PONG),
}


@in_one_attack("one", FLOODS)
async def test_a_flood_of_control_frames_ends_the_connection_with_1008(attack: Attack, one: bytes) -> None:
    """Control frames are counted like messages, since they cost as much; this attacker reads its answers."""
    pair = await duel(attack)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sends_until_cut, pair.attacker, one * 200)
        with trio.fail_after(HEARD):
            assert await pair.attacker.close_code() == 1008
        await pair.check_victim_is_notified("refused")
        nursery.cancel_scope.cancel()


@in_one_attack("one", FLOODS)
async def test_a_flood_of_control_frames_without_reading_ends_the_connection(hasty_attack: Attack, one: bytes) -> None:
    """Unread pongs do not pile up: the limit of control frames ends the connection, or the idle timeout."""
    pair = await duel(hasty_attack)
    with trio.fail_after(SILENCE + LINGER):
        assert await sends_until_cut(pair.attacker, one * 200) < BOUND
    await pair.check_victim_is_notified("refused", "timeout")


AFTER_REFUSAL: Final = {
    "bytes": bytes(65_536),
    "good frames": text(type="offer", sdp="x" * 1000) * 60,
    "bad frames": b"\xff" * 65_536,
}


@in_one_attack("more", AFTER_REFUSAL)
async def test_a_refused_client_that_sends_on_is_disconnected(attack: Attack, more: bytes) -> None:
    """After a bounded amount, and none of it is relayed."""
    pair = await duel(attack)
    await pair.attacker.send(b"\xff")
    with trio.fail_after(LINGER):
        assert await sends_until_cut(pair.attacker, more) < BOUND
    await pair.check_victim_is_notified("refused")


async def test_a_refused_client_that_stays_connected_is_disconnected(attack: Attack) -> None:
    """The client neither closes nor reads, and the relay holds no socket for it."""
    pair = await duel(attack)
    before = attack.server.descriptors
    await pair.attacker.send(b"\xff")
    await pair.check_victim_is_notified("refused")
    with trio.fail_after(LINGER):
        while attack.server.descriptors >= before:
            await trio.sleep(0.02)


PARTS: Final = {
    "nothing": b"",
    "half a header": text(type="ping")[:1],
    "half a mask": text(type="ping")[:4],
    "half a frame": text(type="offer", sdp="x" * 1000)[:500],
    "half a message": frame(TEXT, b'{"type": "off', fin=False),
    "half a long frame": header(0x81, LIMIT) + bytes(1000),
}
MUTE: Final = ["nothing", "half a header", "half a message"]


@in_one_attack("data", PARTS)
async def test_a_reset_within_a_frame_disconnects_the_peer_at_once(attack: Attack, data: bytes) -> None:
    """`closed`, wherever in a frame it was."""
    pair = await duel(attack)
    await pair.attacker.send(data)
    await trio.sleep(0.01)
    reset(tcp_of(pair.attacker))
    await pair.check_victim_is_notified("closed")


@in_one_attack("data", PARTS)
async def test_a_fin_within_a_frame_disconnects_the_peer_at_once(attack: Attack, data: bytes) -> None:
    """Also of a client that closes only its own side, and stays."""
    pair = await duel(attack)
    await pair.attacker.send(data)
    await half_close(pair.attacker)
    await pair.check_victim_is_notified("closed")


@pytest.mark.parametrize("data", [PARTS[name] for name in MUTE], ids=MUTE)
async def test_silence_within_a_frame_is_a_timeout(hasty_attack: Attack, data: bytes) -> None:
    """A client that does not answer pings is closed with 1008 after the idle timeout; its peer gets the reason `timeout`."""
    pair = await duel(hasty_attack)
    await pair.attacker.send(data)
    with trio.fail_after(SILENCE + patience()):
        told = await pair.victim.receive()
        assert await pair.attacker.close_code() == 1008
    assert told == {"type": "peer_disconnected", "peer_id": pair.attacker_id, "reason": "timeout"}


async def test_a_frame_that_never_ends_is_silence(hasty_attack: Attack) -> None:
    """A byte now and then is no sign of life, a whole frame is."""
    pair = await duel(hasty_attack)
    await pair.attacker.send(header(0x81, LIMIT))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_send_slowly, pair.attacker)
        with trio.fail_after(SILENCE + patience()):
            assert (await pair.victim.receive())["reason"] == "timeout"
        nursery.cancel_scope.cancel()


async def _send_slowly(client: RawClient) -> None:
    try:
        while True:
            await client.send(b"x")
            await trio.sleep(0.05)
    except trio.BrokenResourceError:
        return


async def test_a_silent_client_gets_few_pings(hasty_attack: Attack) -> None:
    """And then the close code 1008: the relay does not flood it."""
    attacker, _ = await hasty_attack.raw()
    received: list[int] = []
    with trio.fail_after(SILENCE + patience()):
        while CLOSE not in received:
            opcode, _ = await attacker.frame()
            received.append(opcode)
    assert received in ([PING, CLOSE], [PING, PING, CLOSE], [PING, PING, PING, CLOSE])


BEHIND_THE_CLOSE: Final = {
    "nothing": b"",
    "an offer": text(type="offer", sdp="too late"),
    "pings": frame(PING) * 100,
    "a second close": close(1001),
    "a broken frame": b"\xff\xff",
    "text that is no UTF-8": frame(TEXT, b"\xff"),
    "too much": header(0x81, 1 << 62),
    "noise": b"\x00" * 4096,
}
LATE: Final = ["an offer", "a second close", "a broken frame"]


@in_one_attack("data", BEHIND_THE_CLOSE)
async def test_bytes_behind_a_close_frame_are_ignored(attack: Attack, data: bytes) -> None:
    """RFC 6455, 5.5.1: the close is answered with its own code, nothing is relayed, the peer receives `closed` once."""
    pair = await duel(attack)
    await pair.attacker.send(close(4321, b"that was it") + data)
    await pair.check_attacker_is_notified(4321)
    await pair.check_victim_is_notified("closed")


@pytest.mark.parametrize("data", [BEHIND_THE_CLOSE[name] for name in LATE], ids=LATE)
async def test_bytes_a_moment_after_a_close_frame_are_ignored(attack: Attack, data: bytes) -> None:
    """The same, in a segment of its own."""
    pair = await duel(attack)
    await pair.attacker.send(close(4321))
    await pair.check_victim_is_notified("closed")
    try:
        await pair.attacker.send(data)
    except trio.BrokenResourceError:
        return  # it was cut already
    await pair.check_victim_receives_no_more()


@pytest.mark.parametrize("code", [1000, 1002, 1007, 1011, 4999])
async def test_a_good_close_code_is_echoed(attack: Attack, code: int) -> None:
    """RFC 6455, 5.5.1, with a reason as long as a control frame can hold."""
    pair = await duel(attack)
    await pair.attacker.send(close(code, b"x" * 123))
    await pair.check_attacker_is_notified(code)
    await pair.check_victim_is_notified("closed")


async def test_a_close_without_a_code_is_a_close(attack: Attack) -> None:
    """Its answer is a close frame too."""
    pair = await duel(attack)
    await pair.attacker.send(frame(CLOSE))
    opcode, _ = await pair.attacker.frame()
    assert opcode == CLOSE
    await pair.check_victim_is_notified("closed")


GOODBYES: Final = {
    "a close frame": (close(1000), "closed"),
    "a broken frame": (b"\xff", "refused"),
    "no UTF-8": (frame(TEXT, b"\xff"), "refused"),
    "FIN": (b"", "closed"),
}


@in_one_attack(("data", "reason"), GOODBYES)
async def test_a_client_that_closes_without_reading_is_disconnected(attack: Attack, data: bytes, reason: str) -> None:
    """A client that reads none of 600 KB: its peer is notified at once, its socket is closed soon."""
    pair = await duel(attack)
    for _ in range(20):
        await pair.victim.send(type="offer", sdp="x" * 30_000)
    await pair.check_victim_receives_no_more()
    before = attack.server.descriptors
    await pair.attacker.send(data)
    if not data:
        await half_close(pair.attacker)
    await pair.check_victim_is_notified(reason)
    with trio.fail_after(LINGER):
        while attack.server.descriptors >= before:
            await trio.sleep(0.02)


async def test_half_a_message_from_each_of_a_hundred_clients_is_bounded(attack: Attack) -> None:
    """Each holds back its last byte for ever: the relay keeps no more than the limits allow."""
    half = frame(TEXT, b"x" * (LIMIT - 1), fin=False)
    before = attack.server.memory
    for _ in range(100):
        client, _ = await attack.raw()
        await client.send(half)
    with trio.fail_after(patience()):
        while not any(line["code"] == 1008 for line in attack.events("client_disconnected")):
            await trio.sleep(0.02)
    assert attack.server.memory - before < 32 * 1024 * 1024


async def test_unfinished_messages_of_others_end_no_message_that_is_on_its_way(attack: Attack) -> None:
    """Hundreds of small ones that are never finished fill the bound; a larger one that comes in two parts is relayed."""
    a, _ = await attack.raw()
    b, b_id = await attack.raw()
    await a.send(message(type="pair_request", target_id=b_id))
    assert (await a.receive())["type"] == (await b.receive())["type"] == "paired"
    for _ in range(349):  # of which four times their bytes count
        client = await attack.connect(ELSEWHERE)
        await client.open()
        await client.send(frame(TEXT, b"x", fin=False) + frame(CONTINUATION, b"x" * 12_000, fin=False))
    await trio.sleep(1)
    offer = message(type="offer", sdp="x" * 60_000)
    for _ in range(3):
        await a.send(offer[:50_000])
        await trio.sleep(0.1)
        await a.send(offer[50_000:])
        assert (await b.receive())["type"] == "offer"
    await attack.wait_for_events(1, "client_disconnected")


async def test_bad_clients_by_the_dozen_at_once(attack: Attack) -> None:
    """Sixty clients, each with another broken frame: each receives its close code."""
    attacks = [*(Bad(data, 1002) for data in BROKEN.values()), *(Bad(data, 1007) for data in NO_UTF8.values())]

    async def send(bad: Bad) -> None:
        client, _ = await attack.raw()
        await client.send(bad.data)
        assert await client.close_code() == bad.code

    with trio.fail_after(2 * patience()):
        async with trio.open_nursery() as nursery:
            for bad in attacks:
                nursery.start_soon(send, bad)


async def test_unfinished_frames_of_clients_that_reconnect(attack: Attack) -> None:
    """The memory of a connection's unfinished frame is freed at its end, however many follow it."""
    unfinished = frame(TEXT, b"x" * 60_000)[:-1]
    for _ in range(1200):
        client, _ = await attack.raw()
        await client.send(unfinished)
        await trio.aclose_forcefully(client.stream)
        attack.opened.pop()
