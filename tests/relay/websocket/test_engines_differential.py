"""The epoll engine against the trio-websocket engine: the same bytes to a relay on each.

Whatever a client sends, in whatever chunks, the engines behave alike from outside: neither by the client, nor by its
peer, nor by the log. These deliberate differences are left out of the comparison (`differences`), and no others:

- **The reason behind a close code.** A reason that the relay finds itself is the same on both; the reason for text that is not
  UTF-8 is wsproto's on trio-websocket.
- **Pongs among texts.** trio-websocket sends pongs past the send queue: pongs keep their order, and so do texts, but their
  order among each other is not specified by RFC 6455. On epoll all frames keep the order of what they answer.
- **The name of one of two errors in one read.** Behind text that is not UTF-8, a frame that breaks another rule: epoll reads in
  order and closes with 1007; trio-websocket's validator has seen the whole read first, and closes with the code for that frame.
- **Answers and pongs in front of a close frame.** A client that closes in the read in which it asks may get no answer: epoll
  writes at the end of a batch, and by then the client has closed; trio-websocket has sent some of them, or none.
- **Times.**
"""

import json
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from sdpx.relay.core.limits import Limits
from sdpx.relay.websocket.socket_stream import SocketStream
from tests.harness.attacker import frames_of
from tests.harness.examples import examples
from tests.harness.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, frame, message, upgrade_request
from tests.harness.relay import Engine, RelayHarness, relay_harness
from tests.harness.socket_pair import reset
from tests.relay.test_fuzz import CLOSING, CONTROL, FRAGMENTS, ODD, TEXTS_IN_BYTES, corrupted, joined

Record = dict[str, Any]
LIMITS: Final = Limits(max_message_size=4096, max_fragments=8, rate=0)
OPENING: Final = upgrade_request("/?id=sender")
PAIRING: Final = message(type="pair_request", target_id="peer")
MOST_CHUNKS: Final = 300
NO_UTF8: Final = 1007
CLOSED: Final = 2  # one code was received, and one logged
OF_THE_VALIDATOR: Final = {1002, 1008, 1009}
ANSWERS: Final = {"answers", "pongs", "pongs before"}
ENDS: Final = ["hangs up", "says goodbye", "resets"]


# ---- one run ----------------------------------------------------------------------------------------------------


@dataclass
class RecordingClient:
    """A client that writes bytes and keeps all that it receives."""

    stream: SocketStream
    far_end: SocketStream
    received: bytearray = field(default_factory=bytearray)

    async def say(self, data: bytes) -> None:
        """Send in one piece, and let the relay do all that this leads to."""
        try:
            self.stream.send_now(data)
        except OSError:
            return  # the relay has closed already
        await wait_all_tasks_blocked()

    async def listen(self) -> None:
        try:
            async for data in self.stream:
                self.received += data
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        await self.stream.aclose()

    @property
    def frames_received(self) -> list[tuple[int, bytes]]:
        head, _, rest = bytes(self.received).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        return frames_of(rest)

    @property
    def texts(self) -> list[Record]:
        return [json.loads(payload) for opcode, payload in self.frames_received if opcode == TEXT]

    @property
    def pongs(self) -> list[bytes]:
        """The payloads of the pongs."""
        return [payload for opcode, payload in self.frames_received if opcode == PONG]

    @property
    def closes(self) -> int:
        """How many close frames there were."""
        return sum(opcode == CLOSE for opcode, _ in self.frames_received)

    @property
    def control_frames(self) -> list[int]:
        """The opcodes of all frames but texts."""
        return [opcode for opcode, _ in self.frames_received if opcode != TEXT]


@dataclass(frozen=True)
class Script:
    """The actions of a test: a sender's chunks, whether its peer sends between them, and how the sender ends."""

    chunks: list[bytes]
    at_once: bool = False
    peer_sends: bool = False
    end: str = "hangs up"

    @property
    def steps(self) -> list[bytes]:
        """All that the sender sends, from its request on."""
        first, *rest = self.chunks or [b""]
        return [OPENING + PAIRING + first, *rest] if self.at_once else [OPENING, PAIRING, first, *rest]


async def enter(relay: RelayHarness) -> RecordingClient:
    client = RecordingClient(*relay.connect_pair())
    relay.nursery.start_soon(client.listen)
    return client


async def act_out(script: Script, engine: Engine) -> Record:
    async with relay_harness(LIMITS, engine=engine) as relay:
        peer, sender = await enter(relay), await enter(relay)
        await peer.say(upgrade_request("/?id=peer"))
        for number, chunk in enumerate(script.steps):
            await sender.say(chunk)
            if script.peer_sends:
                await peer.say(message(type="offer", sdp=str(number)))
        before = [peer.texts, peer.control_frames, sender.closes]
        pongs_before, closed = sender.pongs, sender.stream.is_closed
        await leave(sender, script.end)
        await trio.sleep(2 * LIMITS.close_timeout)
        await peer.say(message(type="unpair"))
        return {
            "before": before,
            "closed": closed,
            "answers": sender.texts,
            "pongs before": pongs_before,
            "pongs": sender.pongs,
            "closes": sender.closes,
            "peer": [peer.texts, peer.control_frames],
            "codes": codes_of(sender, relay),
            "evictions": dict(relay.relay.stats.evictions),
            "clients": relay.relay.clients,
            "log": [comparable(record) for record in relay.log.records if record["event"] != "library"],
        }


async def leave(sender: RecordingClient, end: str) -> None:
    if end == "says goodbye":
        await sender.say(frame(CLOSE, (1000).to_bytes(2) + b"bye"))
    else:
        if end == "resets":
            reset(sender.stream, sender.far_end)
        sender.stream.close()
    await wait_all_tasks_blocked()


def codes_of(sender: RecordingClient, relay: RelayHarness) -> list[int]:
    """The close codes that the sender received, if any, and that the log has."""
    received = [int.from_bytes(payload[:2]) for opcode, payload in sender.frames_received if opcode == CLOSE]
    logged = [record["code"] for record in relay.log.of("client_disconnected") if record["client_id"] == "sender"]
    return received + logged


def comparable(record: Record) -> Record:
    """Return a line of the log without the keys that may differ, see the top."""
    may_differ = {"ts", "ms"} | ({"reason", "code"} if record["event"] == "client_disconnected" else set())
    return {key: value for key, value in record.items() if key not in may_differ}


def outcome(script: Script, engine: Engine) -> Record:
    """Return all that can be seen of a run from outside."""

    async def run() -> Record:
        return await act_out(script, engine)

    seen: Record = trio.run(run, clock=MockClock(autojump_threshold=0))
    return seen


def differences(script: Script) -> list[str]:
    """Return what differs between the engines beyond what may (see the top)."""
    epoll, reference = outcome(script, "epoll"), outcome(script, "trio-websocket")
    differing = {key for key in epoll if epoll[key] != reference[key]}
    if set(epoll["codes"]) == {NO_UTF8} and set(reference["codes"]) <= OF_THE_VALIDATOR:
        differing.discard("codes")
    if len(reference["codes"]) == CLOSED and reference["closed"] and not any(reference["evictions"].values()):
        differing -= {key for key in ANSWERS if all(a == b for a, b in zip(epoll[key], reference[key], strict=False))}
    return sorted(differing)


def check_alike(script: Script) -> None:
    """Demand that the engines do the same, but for what may differ: see the top."""
    assert not differences(script)


# ---- what is sent -----------------------------------------------------------------------------------------------

MASKS: Final = st.sampled_from([bytes(4), b"\x01\x02\x03\x04", b"\xff\x00\x80\x7f"]) | st.binary(min_size=4, max_size=4)
SIZES: Final = st.sampled_from([0, 1, 60, 96, 97, 98, 99, 100, 101, 102, 103, 104, 400, 4060])
OFFERS: Final = st.builds(
    lambda size, letter, mask: frame(TEXT, f'{{"type":"offer","sdp":"{letter * size}"}}'.encode(), mask=mask),
    SIZES,
    st.sampled_from(["x", "é", "😀"]),
    MASKS,
)
TEXTS: Final = st.builds(lambda text, mask: frame(TEXT, text, mask=mask), TEXTS_IN_BYTES, MASKS)
ASKS: Final = st.sampled_from([PAIRING, message(type="pair_request", target_id="nobody"), message(type="unpair")])
BOUNDS: Final = st.sampled_from([frame(TEXT, bytes(size)) for size in (125, 126, 4095, 4096, 4097, 65_535, 65_536)])
BLOBS: Final = st.builds(
    lambda data, mask: frame(BINARY, data, mask=mask), st.sampled_from([b"", b"x", bytes(200)]), MASKS
)
PLAIN: Final = st.one_of(OFFERS, OFFERS, TEXTS, CONTROL, ASKS)
FRAMES: Final = st.one_of(PLAIN, PLAIN, FRAGMENTS, BLOBS, CLOSING, ODD, BOUNDS)
BYTES: Final = joined(PLAIN, 8) | joined(FRAMES, 8) | corrupted(joined(FRAMES, 6))


@st.composite
def in_chunks(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> list[bytes]:
    """The bytes in any chunks: cut anywhere, or all of one small size."""
    data = draw(whole)
    size = draw(st.just(0) | st.integers(1, 9))
    if size and len(data) <= MOST_CHUNKS * size:
        return [data[at : at + size] for at in range(0, len(data), size)]
    cuts = sorted(draw(st.sets(st.integers(0, len(data)), max_size=8)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def in_bytes(data: bytes) -> list[bytes]:
    return [bytes([byte]) for byte in data]


SCRIPTS: Final = st.builds(Script, in_chunks(BYTES), st.booleans(), st.booleans(), st.sampled_from(ENDS))


@pytest.mark.long
@examples(3)
@given(SCRIPTS)
@example(Script([b'\x01\xb8{"type": "a goodbye that falls into a fragment which is no UTF-8"}'], end="says goodbye"))
@example(
    Script(
        [
            message(type="offer", sdp="x") + message(type="unpair") + message(type="offer", sdp="x"),
            *in_bytes(frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"\xed\xa0\x80x", mask=bytes(4))),
        ],
        peer_sends=True,
    )
)
def test_the_engines_behave_alike(script: Script) -> None:
    """Any frames, valid or hostile, in any chunks: the same messages in the same order, replies, close codes and log."""
    check_alike(script)


OFFER: Final = message(type="offer", sdp="v=0")
LETTERS: Final = frame(TEXT, '{"type":"offer","sdp":"é€😀"}'.encode())


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize(
    "chunks",
    [
        [OFFER * 3],
        [OFFER + frame(PING, b"one") + OFFER + frame(TEXT, b"{") + frame(PING, b"two")],
        [OFFER, OFFER[:1], OFFER[1:2], OFFER[2:], OFFER],
        [LETTERS[:3], LETTERS[3:20], LETTERS[20:]],
        [OFFER + frame(TEXT, b'{"type":', fin=False) + frame(PING, b"x") + frame(CONTINUATION, b'"ping"}') + OFFER],
        [OFFER + frame(CLOSE)],
        [OFFER + frame(CLOSE, (1000).to_bytes(2) + b"bye") + b"\xff"],
        [OFFER + frame(CLOSE, (1006).to_bytes(2))],
        [OFFER + frame(TEXT, b"\xff\xfe") + OFFER],
        [OFFER + frame(TEXT, b"\xff", fin=False)],
        [OFFER + frame(BINARY, b"x") + OFFER],
        [OFFER + frame(BINARY, bytes(200)) + OFFER],
        [OFFER + b"\xff"],
        [OFFER + frame(TEXT, bytes(4097))],
        [OFFER + frame(TEXT, b"x", masked=False)],
        [OFFER + frame(TEXT, b"x" * 4096)[:5]],
        [PAIRING + message(type="unpair") + PAIRING + OFFER],
    ],
)
def test_each_kind_of_frame_is_served_alike(chunks: list[bytes], end: str) -> None:
    """One by one, so that a difference has a name."""
    check_alike(Script(chunks, end=end))
