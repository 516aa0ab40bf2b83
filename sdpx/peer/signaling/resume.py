"""The client half of resume (PROTOCOL: Resume): no frame is lost or delivered twice, however often the socket breaks. Pure.

- A sent frame gets the next `client_seq` and is kept until the relay confirms it, also while no socket is open. While the
  store is full the sender must wait: nothing is dropped.
- Nothing is sent on a new socket before `your_id`, which says up to where the relay has received; the rest is sent again.
- A received frame counts by its `seq`: a duplicate is dropped and acknowledged again; after a gap the socket must be given
  up. A frame counts on receipt, even if this version does not know its type.
- Received frames are acknowledged after `ACK_SECONDS`, or at once when they are many; and directly after a resume, because
  that frame revokes the old token.
- A relay that lost the session (`resumed: false`) has ended its pairing: numbering starts again, and whether the
  unconfirmed frames arrived is unknown.
- A relay without tokens has no sequence numbers: frames go as they are, and a frame is kept until a socket has taken it.
"""

from collections import deque
from enum import Enum, auto
from typing import Final

from msgspec import UNSET

from sdpx.protocol import codec, sequence
from sdpx.protocol.messages import ClientAck, YourId

ACK_SECONDS: Final = 0.1
ACK_FRAMES: Final = 32  # of the 1024 that the relay keeps at least
ACK_BYTES: Final = 256 * 1024


class ResumeResult(Enum):
    """The fate of the previous session, as `your_id` states it."""

    NEW = auto()  # there was none
    RESUMED = auto()
    EXPIRED = auto()  # the relay has ended it, and notified the paired peer
    INVALID = auto()  # `client_seq` is impossible: close the socket, and open a new session


class SequenceCheck(Enum):
    """The kind of a received frame, by its `seq`."""

    NEW = auto()
    DUPLICATE = auto()  # drop it
    GAP = auto()  # give the socket up, and dial again


class ResumeState:
    """One client's sequence numbers and unconfirmed frames, across its sockets.

    `max_frames` and `max_bytes` of memory bound the frames; one frame always fits.
    """

    def __init__(self, max_frames: int = 512, max_bytes: int = 4 * 1024 * 1024) -> None:
        self._max_frames = max_frames
        self._max_bytes = max_bytes
        self._token: str | None = None
        self._reset()

    def _reset(self) -> None:
        self.last = 0  # the highest seq received
        self.sent = 0  # the highest client_seq
        self.confirmed = 0  # the highest client_seq that the relay confirmed
        self.ack_due: float | None = None
        self._numbered = True
        self._unconfirmed: deque[str] = deque()
        self._bytes = 0
        self._unacked_frames = self._unacked_bytes = 0

    # ---- dialling

    def query(self) -> list[tuple[str, str]]:
        """Return the query parameters for the next dial."""
        if self._token is None:
            return [("seq", "1")]
        return [("seq", "1"), ("resume", self._token), ("last", str(self.last))]

    def on_your_id(self, your_id: YourId) -> ResumeResult:
        """Process the first frame of a socket. After `RESUMED` the unconfirmed frames are due again, behind an ack."""
        before, self._token = self._token, your_id.resume_token or None
        if your_id.resumed is True and before is not None:
            taken = your_id.client_seq
            if taken is UNSET or not self.confirmed <= taken <= self.sent:
                self.forget()
                return ResumeResult.INVALID
            self._confirm(taken)
            if self.last:
                self.ack_due = 0.0
            return ResumeResult.RESUMED
        self._reset()
        self._numbered = self._token is not None
        return ResumeResult.NEW if before is None else ResumeResult.EXPIRED

    def forget(self) -> None:
        """Give the session up: the next dial opens a new one."""
        self._token = None
        self._reset()

    @property
    def is_resumable(self) -> bool:
        """Whether the relay issued a token for this session."""
        return self._token is not None

    @property
    def progress(self) -> int:
        """How many numbered frames got through, in both directions."""
        return self.last + self.confirmed if self._numbered else 0

    # ---- out

    @property
    def unconfirmed(self) -> int:
        """How many frames the relay has not confirmed."""
        return len(self._unconfirmed)

    @property
    def has_room(self) -> bool:
        """Whether one more frame may be sent; `confirm` makes room."""
        if not self._unconfirmed:
            return True
        return len(self._unconfirmed) < self._max_frames and self._bytes < self._max_bytes

    def send(self, text: str) -> str:
        """Give a frame its number and keep it; return it as it is to be written.

        Not for `ping`, `pong` and `ack`, which have no number.
        """
        self.sent += 1
        if self._numbered:
            text = sequence.with_client_seq(text, self.sent)
        self._unconfirmed.append(text)
        self._bytes += text.__sizeof__()
        return text

    def frame(self, client_seq: int) -> str:
        """Return an unconfirmed frame: one between `confirmed` + 1 and `sent`."""
        return self._unconfirmed[client_seq - self.confirmed - 1]

    def mark_written(self, client_seq: int) -> None:
        """Note that a socket has taken the frames up to this one; without sequence numbers, this confirms them."""
        if not self._numbered:
            self._confirm(client_seq)

    def confirm(self, client_seq: int) -> bool:
        """Drop the frames that the relay has received; False, and no change, if they were never sent."""
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
        """Count a frame received after `your_id`."""
        seq = sequence.seq_of(text) if self._numbered else None
        if seq is None:
            return SequenceCheck.NEW
        if seq > self.last + 1:
            return SequenceCheck.GAP
        self._unacked_frames += 1
        self._unacked_bytes += len(text)
        if self._unacked_frames >= ACK_FRAMES or self._unacked_bytes >= ACK_BYTES:
            self.ack_due = now
        elif self.ack_due is None:
            self.ack_due = now + ACK_SECONDS
        if seq <= self.last:
            return SequenceCheck.DUPLICATE
        self.last = seq
        return SequenceCheck.NEW

    def ack(self) -> str:
        """Return the frame that acknowledges all frames received; to be written at `ack_due`."""
        self.ack_due = None
        self._unacked_frames = self._unacked_bytes = 0
        return codec.encode(ClientAck(self.last)).decode()
