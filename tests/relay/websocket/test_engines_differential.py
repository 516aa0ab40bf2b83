"""The fast lane against its reference: the same bytes to a relay with the lane and to one that trio-websocket serves.

Whatever a client sends, in whatever chunks, nobody can tell from outside which of the two served it: not the client, not its
partner, not who reads the log. The deliberate differences, which `check_alike` and `told` take out, are these and no more:

- **The wording behind a close code.** A reason that the relay finds itself is the same; that for text that is not UTF-8 is
  wsproto's in the reference, and not always the same in the lane, which checks whole texts at once.
- **Pongs among texts.** trio-websocket sends pongs past the outbox: they keep their order among themselves, and so do
  texts; which of them comes first is not told by RFC 6455. In the lane all keep the order of what they answer.
- **Which of two errors in one read is named.** Behind text that is not UTF-8, a frame that breaks another rule: the lane
  reads in order and says 1007; in the reference the gate has seen the whole read first, and says what it found. See `alike`.
- **When a fragment that is not UTF-8 is noticed.** In the lane as soon as the bytes are there, in the reference once the
  fragment is whole. With the rest of it in the same read it is the same.
- **Answers in front of a close frame.** A client that closes in the very read in which it asks hears the answers from the lane;
  trio-websocket answers the close frame, and sends nothing more.
- **How long a client was there**, which is time.
"""

import json
from dataclasses import dataclass, field, replace
from typing import Any, Final

import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from sdpx.relay.core.limits import Limits
from tests.harness.examples import examples
from tests.harness.memory_link import MemoryLink, link_pair
from tests.harness.relay import BINARY, CLOSE, PING, PONG, TEXT, House, frame, house, message, upgrade_request
from tests.relay.test_fuzz import CLOSING, CONTROL, FRAGMENTS, ODD, TEXTS_IN_BYTES, bent, frames_of, joined

Record = dict[str, Any]
CONTINUATION: Final = 0x0
LIMITS: Final = Limits(max_message_size=4096, max_fragments=8, rate=0)
OPENING: Final = upgrade_request("/?id=sender")
PAIRING: Final = message(type="pair_request", target_id="partner")
MOST_CHUNKS: Final = 300
NO_UTF8: Final = 1007
CLOSED: Final = 2  # one code was heard, and one logged
OF_THE_GATE: Final = {1002, 1008, 1009}
ENDS: Final = ["hangs up", "says goodbye", "resets"]


# ---- one run ----------------------------------------------------------------------------------------------------


@dataclass
class Party:
    """A client that writes bytes and keeps what it hears."""

    link: MemoryLink
    heard: bytearray = field(default_factory=bytearray)

    async def say(self, data: bytes) -> None:
        """Send in one piece, and let the relay do all that this leads to."""
        try:
            self.link.send_now(data)
        except OSError:
            return  # the relay has closed already
        await wait_all_tasks_blocked()

    async def listen(self) -> None:
        try:
            async for data in self.link:
                self.heard += data
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        await self.link.aclose()

    @property
    def frames_heard(self) -> list[tuple[int, bytes]]:
        head, _, rest = bytes(self.heard).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        return frames_of(rest)

    @property
    def texts(self) -> list[Record]:
        return [json.loads(payload) for opcode, payload in self.frames_heard if opcode == TEXT]

    @property
    def control_frames(self) -> list[tuple[int, bytes]]:
        """The pongs and the close frame, the latter without what it says."""
        return [(opcode, payload * (opcode == PONG)) for opcode, payload in self.frames_heard if opcode != TEXT]


@dataclass(frozen=True)
class Script:
    """What is done to the relay: a sender's chunks, whether its partner talks between them, and how the sender goes."""

    chunks: list[bytes]
    at_once: bool = False
    partner_talks: bool = False
    end: str = "hangs up"

    @property
    def steps(self) -> list[bytes]:
        """All that the sender sends, from its request on."""
        first, *rest = self.chunks or [b""]
        return [OPENING + PAIRING + first, *rest] if self.at_once else [OPENING, PAIRING, first, *rest]


async def enter(relay: House) -> Party:
    ours, theirs = link_pair()
    relay.nursery.start_soon(relay.acceptor.serve, theirs)
    party = Party(ours)
    relay.nursery.start_soon(party.listen)
    return party


async def act_out(script: Script, *, lane: bool) -> Record:
    async with house(LIMITS, lane=lane) as relay:
        partner, sender = await enter(relay), await enter(relay)
        await partner.say(upgrade_request("/?id=partner"))
        for number, chunk in enumerate(script.steps):
            await sender.say(chunk)
            if script.partner_talks:
                await partner.say(message(type="offer", sdp=str(number)))
        before = [sender.control_frames, partner.texts, partner.control_frames, sender.link.is_closed]
        await leave(sender, script.end)
        await trio.sleep(2 * LIMITS.close_timeout)
        await partner.say(message(type="unpair"))
        return {
            "before": before,
            "answers": sender.texts,
            "partner": partner.texts,
            "control frames": [sender.control_frames, partner.control_frames],
            "codes": codes_of(sender, relay),
            "evictions": dict(relay.relay.numbers.evictions),
            "clients": relay.relay.clients,
            "log": [told(record) for record in relay.log.records if record["event"] != "library"],
        }


async def leave(sender: Party, end: str) -> None:
    if end == "says goodbye":
        await sender.say(frame(CLOSE, (1000).to_bytes(2) + b"bye"))
    else:
        sender.link.close(reset=end == "resets")
    await wait_all_tasks_blocked()


def codes_of(sender: Party, relay: House) -> list[int]:
    """The close codes that the sender was told, if any, and that stand in the log."""
    heard = [int.from_bytes(payload[:2]) for opcode, payload in sender.frames_heard if opcode == CLOSE]
    logged = [record["code"] for record in relay.log.of("client_disconnected") if record["client_id"] == "sender"]
    return heard + logged


def told(record: Record) -> Record:
    """What a line of the log says, without what may differ: see the top."""
    may_differ = {"ts", "ms"} | ({"reason", "code"} if record["event"] == "client_disconnected" else set())
    return {key: value for key, value in record.items() if key not in may_differ}


def lived(script: Script, *, lane: bool) -> Record:
    """Return all that can be seen of a run from outside."""

    async def run() -> Record:
        return await act_out(script, lane=lane)

    seen: Record = trio.run(run, clock=MockClock(autojump_threshold=0))
    return seen


def check_alike(script: Script) -> None:
    """Demand that the lane and the reference do the same, but for what may differ: see the top."""
    lane, reference = lived(script, lane=True), lived(script, lane=False)
    if NO_UTF8 in lane["codes"] and (lane["before"] != reference["before"] or not reference["codes"]):
        finished = replace(
            script, chunks=[b"".join(script.chunks) + bytes(LIMITS.max_message_size)], partner_talks=False
        )
        lane, reference = lived(finished, lane=True), lived(finished, lane=False)
    codes, right_codes = lane.pop("codes"), reference.pop("codes")
    answers, right_answers = lane.pop("answers"), reference.pop("answers")
    assert lane == reference
    assert codes == right_codes or (set(codes) == {NO_UTF8} and set(right_codes) <= OF_THE_GATE)
    if len(right_codes) == CLOSED and not any(reference["evictions"].values()):
        answers = answers[: len(right_answers)]
    assert answers == right_answers


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
BYTES: Final = joined(PLAIN, 8) | joined(FRAMES, 8) | bent(joined(FRAMES, 6))


@st.composite
def in_chunks(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> list[bytes]:
    """The bytes in any chunks: cut anywhere, or all of one small size."""
    data = draw(whole)
    size = draw(st.just(0) | st.integers(1, 9))
    if size and len(data) <= MOST_CHUNKS * size:
        return [data[at : at + size] for at in range(0, len(data), size)]
    cuts = sorted(draw(st.sets(st.integers(0, len(data)), max_size=8)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


SCRIPTS: Final = st.builds(Script, in_chunks(BYTES), st.booleans(), st.booleans(), st.sampled_from(ENDS))


@examples(3)
@given(SCRIPTS)
@example(Script([b'\x01\xb8{"type": "a goodbye that falls into a fragment which is no UTF-8"}'], end="says goodbye"))
def test_nobody_can_tell_the_lane_from_its_reference(script: Script) -> None:
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
