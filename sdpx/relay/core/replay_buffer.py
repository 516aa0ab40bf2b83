"""One client's numbers, on the relay's side (PROTOCOL: Resume): what was sent to it and what was taken of it. Pure.

To the client
- Every frame but `your_id`, `pong` and `ack` gets the next `seq`, and is kept until the client has confirmed it. What is kept
  is bounded as an outbox is; one frame always fits. Past the bounds the client is let go.
- An `ack` of more than was sent is a mistake, and refused; one of less than was confirmed is late, and nothing.

From the client
- The next `client_seq` is taken. One that was taken before is confirmed again and nothing else. A gap ends the socket.
- What is taken counts, also when it is refused: by the type, the rate or the lobby. What bears no number that can be read, as
  `bad_json`, a binary frame, or a `client_seq` of the wrong type, is refused and does not count. Of a frame that is no JSON
  a number that can be seen in it counts, if it is the next: its sender meant it to, and would not come past it otherwise.
- What was taken is confirmed within `ACK_SECONDS`, all of it by one `ack`; `ack_due` says when.
"""

from collections import deque
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from msgspec import Struct

from sdpx.errors import Refusal
from sdpx.protocol import messages
from sdpx.protocol.messages import Ack, DisconnectReason

ACK_SECONDS: Final = 0.1  # PROTOCOL allows 0.2; the rest is for the way


@dataclass(frozen=True, slots=True)
class ReplayLimits:
    """What is kept: `frames` and `bytes` of memory for one client, `all_bytes` for all, `held` clients for `window` seconds."""

    window: float = 30.0
    frames: int = 1024
    bytes: int = 4 * 1024 * 1024
    all_bytes: int = 16 * 1024 * 1024
    held: int = 1024


class FrameVerdict(Enum):
    """What a frame of a numbered client is."""

    TAKE = auto()  # for the lobby
    DONE = auto()  # an ack that confirmed something: there are no more of these than the relay sent frames
    IDLE = auto()  # nothing new: counts for the rate, and leads to nothing
    GAP = auto()  # ends the socket with 1002


class BufferedFrame(Struct, frozen=True, eq=False):
    """A numbered frame, its size in bytes of memory, and who sent it, if it was relayed."""

    text: str
    size: int
    sender: object


class ReplayBuffer:
    """The numbers of one ID, across its sockets. Its verbs are for `SessionStore`, which counts what all keep."""

    __slots__ = ("_kept", "ack_due", "bytes", "client_id", "confirmed", "digest", "digests", "reason", "sent", "taken")

    def __init__(self, client_id: str) -> None:
        self.client_id = client_id
        self.sent = 0  # the highest seq
        self.confirmed = 0  # the highest seq that the client is known to have
        self.taken = 0  # the highest client_seq
        self.bytes = 0  # of memory, in what is not confirmed
        self.ack_due: float | None = None
        self.digest = b""  # of the token that its present socket brought
        self.digests: list[bytes] = []  # of all that work, the newest last
        self.reason: DisconnectReason = "closed"  # what its peer hears if it does not come back
        self._kept: deque[BufferedFrame] = deque()

    def __len__(self) -> int:
        return len(self._kept)

    def post(self, text: str, sender: object, bounds: ReplayLimits) -> str | None:
        """Give a frame its number and keep it; returns what to send, or None if there is no room: the client has to go."""
        numbered = messages.with_number(text, "seq", self.sent + 1)
        size = numbered.__sizeof__()
        full = len(self._kept) >= bounds.frames or self.bytes + size > bounds.bytes
        if full and self._kept:
            return None
        self.sent += 1
        self.bytes += size
        self._kept.append(BufferedFrame(numbered, size, sender))
        return numbered

    def confirm(self, seq: int) -> bool:
        """Keep no more what the client has, which is all up to `seq`; tells whether that was news."""
        if seq <= self.confirmed:
            return False
        for _ in range(seq - self.confirmed):
            self.bytes -= self._kept.popleft().size
        self.confirmed = seq
        return True

    def unconfirmed(self) -> list[BufferedFrame]:
        """Return what is kept, in order."""
        return list(self._kept)

    def take(self, frame: str | bytes, now: float) -> FrameVerdict:
        """Look at a frame's number. Raises `Refusal` for one without, and for an ack of what was never sent."""
        if isinstance(frame, bytes):
            raise messages.binary_refused()
        try:
            number = messages.number_of(frame)
        except Refusal as refusal:
            if refusal.code == "bad_json" and self._counts_invalid_json(frame, now):
                return FrameVerdict.IDLE
            raise
        if number is None:
            return FrameVerdict.TAKE
        return self._take_ack(number) if isinstance(number, Ack) else self._take_number(number, now)

    def _take_ack(self, ack: Ack) -> FrameVerdict:
        if ack.seq > self.sent:
            reason = f"You confirm frame {ack.seq}, and the last one that was sent to you is {self.sent}"
            raise Refusal("bad_message", reason, in_reply_to="ack")
        return FrameVerdict.DONE if self.confirm(ack.seq) else FrameVerdict.IDLE

    def _take_number(self, number: int, now: float) -> FrameVerdict:
        if number > self.taken + 1:
            return FrameVerdict.GAP
        if self.ack_due is None:
            self.ack_due = now + ACK_SECONDS
        if number <= self.taken:
            return FrameVerdict.IDLE
        self.taken = number
        return FrameVerdict.TAKE

    def _counts_invalid_json(self, frame: str, now: float) -> bool:
        """Count what is no JSON by the number that is seen in it; tells whether that was taken, and refused, before."""
        number = messages.find_number(frame)
        return number is not None and self._take_number(number, now) is FrameVerdict.IDLE
