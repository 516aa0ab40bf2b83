"""The replay buffer of one resumable session: its sequence numbers, and the frames that may have to be sent again.

The rules, from the protocol's section on resume:

To the client
- Every frame but `your_id`, `pong` and `ack` gets the next `seq` and stays in the buffer until the client acknowledges it. The
  buffer has the bounds of a send queue; one frame always fits. The session ends when a frame does not fit.
- An `ack` above the highest `seq` sent is refused. An `ack` below an earlier one is ignored.

From the client
- The next `client_seq` is accepted. One that was accepted before is acknowledged again and otherwise ignored. A gap ends the
  connection.
- An accepted frame counts even if it is refused afterwards, for its type, the rate limit or the pairing. A frame without a
  readable number (`bad_json`, a binary frame, a `client_seq` of the wrong type) is refused and does not count. An exception:
  in text that is not JSON a visible `client_seq` counts if it is the next one; the client could not get past that frame
  otherwise.
- Accepted frames are acknowledged within `ACK_SECONDS`, all by one `ack`; `ack_due` is the time.
"""

from collections import deque
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from msgspec import Struct

from sdpx.errors import Refusal
from sdpx.protocol import codec, sequence
from sdpx.protocol.messages import ClientAck, DisconnectReason
from sdpx.relay.core.limits import Limits
from sdpx.relay.core.overload import QueuedBytes

ACK_SECONDS: Final = 0.1  # the protocol allows 0.2; the rest is for the network


class FrameVerdict(Enum):
    """The verdict on a frame of a client with sequence numbers."""

    ACCEPT = auto()  # handle it
    ACKED = auto()  # an ack that confirmed something; there are no more of these than frames that the relay sent
    DUPLICATE = auto()  # nothing new: count it for the rate limit, and do nothing else
    GAP = auto()  # close the connection with 1002


class BufferedFrame(Struct, frozen=True, eq=False):
    """A numbered frame as it was queued, and the sender if it was relayed."""

    data: bytes
    sender: object


class BufferState(Struct, array_like=True):
    """A replay buffer without its connection to this relay, as it moves to another node of a cluster."""

    sent: int
    acked: int
    accepted: int
    digest: bytes
    digests: list[bytes]
    frames: list[tuple[bytes, tuple[str, str] | None]]  # with the sender's ID and the pairing


@dataclass(slots=True, eq=False, repr=False)
class ReplayBuffer:
    """The numbers and unacknowledged frames of one session, across its connections. `SessionStore` calls its methods."""

    client_id: str
    _limits: Limits
    _total: QueuedBytes  # of all sessions
    sent: int = 0  # the highest seq
    acked: int = 0  # the highest seq that the client has acknowledged
    accepted: int = 0  # the highest client_seq
    size: int = 0  # memory of the unacknowledged frames
    ack_due: float | None = None
    digest: bytes = b""  # of the token that belongs to the present connection
    digests: list[bytes] = field(default_factory=list)  # of all valid tokens, the newest last
    reason: DisconnectReason = "closed"  # the peer receives it if the client does not resume
    _frames: deque[BufferedFrame] = field(default_factory=deque)

    def __len__(self) -> int:
        return len(self._frames)

    def append(self, data: bytes, sender: object = None) -> bool:
        """Keep the frame that bears `seq` number `sent` + 1. Returns False if it does not fit: the session ends, as `slow`."""
        size, limits = data.__sizeof__(), self._limits
        full = len(self._frames) >= limits.send_queue_frames or self.size + size > limits.send_queue_bytes
        if full and self._frames:
            return False
        self.sent += 1
        self._count(size)
        self._frames.append(BufferedFrame(data, sender))
        return True

    def acknowledge(self, seq: int) -> bool:
        """Drop the frames up to `seq`; returns whether there were any."""
        if seq <= self.acked:
            return False
        for _ in range(seq - self.acked):
            self._count(-self._frames.popleft().data.__sizeof__())
        self.acked = seq
        return True

    def _count(self, size: int) -> None:
        self.size += size
        self._total.bytes += size

    def unacknowledged(self) -> list[BufferedFrame]:
        """Return the frames in the buffer, in order."""
        return list(self._frames)

    def check(self, frame: bytes | None, now: float) -> FrameVerdict:
        """Check the number of a client's frame; None is a binary frame.

        Raises `Refusal` for a frame without a number, and for an ack of a frame that was never sent.
        """
        if frame is None:
            raise codec.binary_refusal()
        try:
            number = sequence.number_of(frame)
        except Refusal as refusal:
            visible = sequence.find_client_seq(frame) if refusal.code == "bad_json" else None
            if visible is None or self._check_client_seq(visible, now) is not FrameVerdict.DUPLICATE:
                raise
            return FrameVerdict.DUPLICATE  # it was refused when it came first
        if number is None:
            return FrameVerdict.ACCEPT
        return self._check_ack(number) if isinstance(number, ClientAck) else self._check_client_seq(number, now)

    def _check_ack(self, ack: ClientAck) -> FrameVerdict:
        if ack.seq > self.sent:
            reason = f"The ack is for frame {ack.seq}, and the last frame sent to you is {self.sent}"
            raise Refusal("bad_message", reason, in_reply_to="ack")
        return FrameVerdict.ACKED if self.acknowledge(ack.seq) else FrameVerdict.DUPLICATE

    def _check_client_seq(self, number: int, now: float) -> FrameVerdict:
        if number > self.accepted + 1:
            return FrameVerdict.GAP
        if self.ack_due is None:
            self.ack_due = now + ACK_SECONDS
        if number <= self.accepted:
            return FrameVerdict.DUPLICATE
        self.accepted = number
        return FrameVerdict.ACCEPT
