"""Resume, the client's side (PROTOCOL: Resume): nothing is lost and nothing comes twice, however often the socket breaks. Pure.

- What is sent gets the next `client_seq` and is kept until the relay has confirmed it: also what is sent while there is no
  socket, or none that has brought its `your_id`. When there is no room the sender waits: nothing is dropped.
- On a new socket nothing is sent before `your_id` has come. It says how far the relay took what was sent; the rest goes again.
- What comes counts by its `seq`: a number that was had before is dropped, and confirmed again; behind a gap the socket is of no
  more use: drop it, and dial again. A frame counts when it has come, also if this version can make nothing of it.
- What came is confirmed `ACK_SECONDS` after it came, or as soon as it is much; and right behind a resume, as the frame that
  makes the old token void.
- A relay that does not know the client any more (`resumed: false`) has ended its pairing, and nobody knows what became of the
  frames that it did not confirm: the numbers begin anew, and `Welcome` says what is undecided.
- A relay that gives no token knows no numbers: then frames go and come as they are, and nothing is kept.
"""

from collections import deque
from enum import Enum, auto
from typing import Final

from msgspec import UNSET

from sdpx.protocol import messages
from sdpx.protocol.messages import ClientAck, YourId

ACK_SECONDS: Final = 0.1
ACK_FRAMES: Final = 32  # of the 1024 that the relay keeps at least
ACK_BYTES: Final = 256 * 1024


class ResumeResult(Enum):
    """What `your_id` says about the connection before."""

    FRESH = auto()  # there was none
    RESUMED = auto()  # it goes on
    LOST = auto()  # it is over, and what it was paired with has been told
    BROKEN = auto()  # the relay contradicts itself: close the socket, and dial again, afresh


class SequenceCheck(Enum):
    """What an incoming frame is."""

    NEW = auto()
    DUPLICATE = auto()  # drop it
    GAP = auto()  # drop the connection, and dial again


class ResumeState:
    """One client's numbers, across its sockets. It keeps so many frames and bytes of memory at most, and always one frame."""

    def __init__(self, max_frames: int = 512, max_bytes: int = 4 * 1024 * 1024) -> None:
        self._max_frames = max_frames
        self._max_bytes = max_bytes
        self._token: str | None = None
        self._begin()

    def _begin(self) -> None:
        self.last = 0  # the highest seq that came
        self.sent = 0  # the highest client_seq
        self.confirmed = 0  # the highest that the relay took
        self.ack_due: float | None = None
        self._numbered = True
        self._unconfirmed: deque[str] = deque()
        self._bytes = 0
        self._owed_frames = self._owed_bytes = 0

    # ---- dialling

    def query(self) -> list[tuple[str, str]]:
        """Return what the URL asks for, at every dial anew."""
        if self._token is None:
            return [("seq", "1")]
        return [("seq", "1"), ("resume", self._token), ("last", str(self.last))]

    def welcome(self, your_id: YourId) -> ResumeResult:
        """Process the first frame of a socket. After `RESUMED` the unconfirmed frames are due again, behind an ack."""
        before, self._token = self._token, your_id.resume_token or None
        if your_id.resumed is True and before is not None:
            taken = your_id.client_seq
            if taken is UNSET or not self.confirmed <= taken <= self.sent:
                self.forget()
                return ResumeResult.BROKEN
            self._confirm(taken)
            if self.last:
                self.ack_due = 0.0
            return ResumeResult.RESUMED
        self._begin()
        self._numbered = self._token is not None
        return ResumeResult.FRESH if before is None else ResumeResult.LOST

    def forget(self) -> None:
        """Give the session up: the next dial opens a new one."""
        self._token = None
        self._begin()

    @property
    def may_return(self) -> bool:
        """Whether there is something to come back to."""
        return self._token is not None

    @property
    def progress(self) -> int:
        """How much got through so far, in frames of either direction."""
        return self.last + self.confirmed if self._numbered else 0

    # ---- out

    @property
    def unconfirmed(self) -> int:
        """How many frames the relay has yet to say that it took."""
        return len(self._unconfirmed)

    @property
    def has_room(self) -> bool:
        """Whether one more frame may be sent; if not, `confirm` makes room."""
        if not self._unconfirmed:
            return True
        return len(self._unconfirmed) < self._max_frames and self._bytes < self._max_bytes

    def send(self, text: str) -> str:
        """Give a frame its number and keep it; return it as it is to be written.

        Not for `ping`, `pong` and `ack`, which have no number.
        """
        self.sent += 1
        if self._numbered:
            text = messages.with_number(text, "client_seq", self.sent)
        self._unconfirmed.append(text)
        self._bytes += text.__sizeof__()
        return text

    def frame(self, client_seq: int) -> str:
        """Return an unconfirmed frame: one between `confirmed` + 1 and `sent`."""
        return self._unconfirmed[client_seq - self.confirmed - 1]

    def written(self, client_seq: int) -> None:
        """Note that a socket has taken the frames up to this one: a relay without numbers confirms nothing else."""
        if not self._numbered:
            self._confirm(client_seq)

    def confirm(self, client_seq: int) -> bool:
        """Drop the frames that the relay has taken; False, and no change, if they were never sent."""
        if not self._numbered:
            return True
        if client_seq > self.sent:
            return False
        self._confirm(client_seq)
        return True

    def _confirm(self, client_seq: int) -> None:
        while self.confirmed < client_seq:
            self.confirmed += 1
            self._bytes -= self._unconfirmed.popleft().__sizeof__()

    # ---- in

    def receive(self, text: str, now: float) -> SequenceCheck:
        """Count a frame that came behind `your_id`."""
        seq = messages.seq_of(text) if self._numbered else None
        if seq is None:
            return SequenceCheck.NEW
        if seq > self.last + 1:
            return SequenceCheck.GAP
        self._owe_ack(len(text), now)
        if seq <= self.last:
            return SequenceCheck.DUPLICATE
        self.last = seq
        return SequenceCheck.NEW

    def _owe_ack(self, size: int, now: float) -> None:
        self._owed_frames += 1
        self._owed_bytes += size
        if self._owed_frames >= ACK_FRAMES or self._owed_bytes >= ACK_BYTES:
            self.ack_due = now
        elif self.ack_due is None:
            self.ack_due = now + ACK_SECONDS

    def ack(self) -> str:
        """Return the frame that confirms all that came; to be written when `ack_due` has come."""
        self.ack_due = None
        self._owed_frames = self._owed_bytes = 0
        return messages.encode(ClientAck(self.last))
