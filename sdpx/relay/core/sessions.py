"""Resumable sessions: tokens, suspension and replay on the relay's side (protocol: Resume).

- A client that asked for sequence numbers gets a token, which stands for its ID. A resume issues the next token, and the
  first frame on the new connection revokes all others: until then the relay does not know which token reached the client, and
  an earlier connection attempt may still come through. The token that follows another is always the same, so that many
  attempts with one token lead to no more than one new token. Of the tokens that no frame has decided between, the latest
  `TOKENS` are valid.
- The store keeps digests of tokens only and looks a token up by its digest: the time that a look-up takes reveals nothing
  about a token, and the relay's memory holds nothing that a client could present.
- A client whose connection was lost without a close frame is suspended for the resume window and then ends, with the reason
  of the loss. With a window of 0 no client is suspended; a token then only takes over a connection that is still open.
- `last` in a resume request is an ack. A value below the highest ack, or none, means the highest ack. A value above the
  highest sent `seq` is invalid: the client gets a new session, and the old one stays.
- An attempt whose `last` is not 0 and below the highest ack on a connection that is still open is an old one, which the
  client has given up: it gets a new session.
- Bounds: the frames of each session (`ReplayBuffer.append`), the bytes of all (`over_budget`), suspended sessions in all and
  of each address (`suspend` ends one as `EvictionQueue` does). A session that a bound ends has the reason `slow`.

Time is an argument, in seconds of any steady clock; randomness is injected.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b, sha256
from typing import Final, NamedTuple

from msgspec import Struct

from sdpx.ids import is_name
from sdpx.protocol.messages import DisconnectReason, ServerAck
from sdpx.relay.core.limits import Limits
from sdpx.relay.core.overload import QueuedBytes, largest_buffers
from sdpx.relay.core.rate_limit import EvictionQueue
from sdpx.relay.core.replay_buffer import BufferState, FrameVerdict, ReplayBuffer

TOKEN_BYTES: Final = 32
TOKENS: Final = 8


@dataclass(frozen=True, slots=True)
class ResumeRequest:
    """The session that an upgrade request asks for: a new one with `numbered`, or that of `token` from `last` on."""

    numbered: bool = False
    token: str | None = field(default=None, repr=False)
    last: int | None = None


NO_RESUME: Final = ResumeRequest()


class Resumption(NamedTuple):
    """The state of a resumed session for its `your_id`, and the unacknowledged frames, as they were numbered."""

    token: str
    client_seq: int
    frames: list[bytes]


class Eviction(NamedTuple):
    """A session that has to end, and the reason that its peer receives."""

    buffer: ReplayBuffer
    reason: DisconnectReason


class ResumeStats(Struct):
    """Totals since the start: sessions resumed, expired, and evicted for a bound."""

    resumed: int = 0
    expired: int = 0
    evicted: int = 0


class SessionStore:
    """All resumable sessions of a relay, connected and suspended. `token_bytes(n)` returns n random bytes."""

    def __init__(self, limits: Limits, token_bytes: Callable[[int], bytes], *, has_id_in_token: bool = False) -> None:
        self._limits = limits
        self._has_id_in_token = has_id_in_token
        self._token_bytes = token_bytes
        self._secret = token_bytes(TOKEN_BYTES)
        self._by_digest: dict[bytes, ReplayBuffer] = {}
        self._suspended: dict[ReplayBuffer, float] = {}  # since when; the oldest first
        self._eviction_queue = EvictionQueue[ReplayBuffer](
            limits.max_suspended_sessions, limits.max_suspended_per_address
        )
        self._acks: deque[tuple[float, ReplayBuffer]] = deque()
        self._buffers: dict[ReplayBuffer, None] = {}
        self.total = QueuedBytes()
        self.totals = ResumeStats()

    @property
    def suspended(self) -> int:
        """The number of suspended sessions."""
        return len(self._suspended)

    @property
    def suspended_bytes(self) -> int:
        """The bytes in their replay buffers."""
        return sum(buffer.size for buffer in self._suspended)

    # ---- open and resume

    def open(self, client_id: str) -> tuple[ReplayBuffer, str]:
        """Begin a session; returns its replay buffer and its token."""
        buffer = ReplayBuffer(client_id, self._limits, self.total)
        self._buffers[buffer] = None
        return buffer, self._issue(buffer, self._token_bytes(TOKEN_BYTES))

    def find(self, token: str, last: int | None) -> ReplayBuffer | None:
        """Return the session of a token, if the token is valid and `last` is possible. Nothing changes before `resume`."""
        return self.find_digest(digest_of(token), last)

    def find_digest(self, digest: bytes, last: int | None) -> ReplayBuffer | None:
        """Return the session of the token with this digest, as `find` does."""
        buffer = self._by_digest.get(digest)
        if buffer is None or not last:
            return buffer
        least = 0 if buffer in self._suspended else buffer.acked
        return buffer if least <= last <= buffer.sent else None

    def resume(self, token: str, last: int | None) -> Resumption:
        """Move the session that `find` returned to a new connection. The caller closes the old one, if it is still open."""
        buffer = self._by_digest[digest_of(token)]
        self._leave_suspended(buffer)
        buffer.acknowledge(last or 0)
        buffer.ack_due = None  # `your_id` acknowledges
        self.totals.resumed += 1
        following = blake2b(token.encode(), key=self._secret, digest_size=TOKEN_BYTES).digest()
        frames = [frame.data for frame in buffer.unacknowledged()]
        return Resumption(self._issue(buffer, following), buffer.accepted, frames)

    # ---- sessions that move to another node, and from there

    def freeze(self, buffer: ReplayBuffer) -> None:
        """Let a session that is about to move neither expire nor be evicted as suspended; its tokens stay valid."""
        self._leave_suspended(buffer)
        buffer.ack_due = None

    def take_out(self, buffer: ReplayBuffer, sender_of: Callable[[object], tuple[str, str] | None]) -> BufferState:
        """End a frozen session here; returns its state. `sender_of` gives the ID and the pairing of a frame's sender."""
        frames = [(frame.data, sender_of(frame.sender)) for frame in buffer.unacknowledged()]
        state = BufferState(buffer.sent, buffer.acked, buffer.accepted, buffer.digest, [*buffer.digests], frames)
        self.end(buffer)
        return state

    def put_in(self, client_id: str, state: BufferState, sender: Callable[[str, str], object]) -> ReplayBuffer:
        """Continue a session from another node; it is suspended, as far as the caller goes on to `suspend` it."""
        buffer = ReplayBuffer(client_id, self._limits, self.total)
        self._buffers[buffer] = None
        for data, origin in state.frames:
            buffer.append(data, None if origin is None else sender(*origin))
        buffer.sent, buffer.acked, buffer.accepted = state.sent, state.acked, state.accepted
        buffer.digest, buffer.digests = state.digest, [*state.digests]
        self._by_digest |= dict.fromkeys(state.digests, buffer)
        return buffer

    # ---- frames

    def check(self, buffer: ReplayBuffer, frame: bytes | None, now: float) -> FrameVerdict:
        """Check the number of a frame from the client's present connection (`ReplayBuffer.check`). Raises `Refusal`."""
        if len(buffer.digests) > 1:
            self._revoke(buffer, [each for each in buffer.digests if each != buffer.digest])
        was_due = buffer.ack_due
        try:
            return buffer.check(frame, now)
        finally:
            if buffer.ack_due is not None and buffer.ack_due != was_due:
                self._acks.append((buffer.ack_due, buffer))

    # ---- ends

    def suspend(self, buffer: ReplayBuffer, reason: DisconnectReason, now: float, address: str = "") -> list[Eviction]:
        """Keep a session without a connection for the window; returns the session that has to end now, if one has to."""
        buffer.reason = reason
        buffer.ack_due = None
        if not self._limits.resume_window:
            return [Eviction(buffer, reason)]
        self._suspended[buffer] = now
        if (evicted := self._eviction_queue.enter(buffer, address)) is None:
            return []
        self.totals.evicted += 1
        return [Eviction(evicted, "slow")]

    def _leave_suspended(self, buffer: ReplayBuffer) -> None:
        if self._suspended.pop(buffer, None) is not None:
            self._eviction_queue.leave(buffer)

    def end(self, buffer: ReplayBuffer) -> list[object]:
        """End a session and revoke its tokens. Returns the senders of unacknowledged frames, each once, in order."""
        self._revoke(buffer, buffer.digests)
        self._leave_suspended(buffer)
        self._buffers.pop(buffer, None)
        senders = dict.fromkeys(frame.sender for frame in buffer.unacknowledged() if frame.sender is not None)
        buffer.acknowledge(buffer.sent)
        buffer.ack_due = None
        return list(senders)

    def over_budget(self, address_of: Callable[[str], str] = str) -> list[Eviction]:
        """Return the sessions that have to end for all replay buffers to be within their bound.

        `address_of` returns the address of a client.
        """
        sizes = [(buffer, address_of(buffer.client_id), buffer.size) for buffer in self._buffers]
        evicted = largest_buffers(sizes, self.total.bytes, self._limits.max_queued_bytes)
        self.totals.evicted += len(evicted)
        return [Eviction(buffer, "slow") for buffer in evicted]

    # ---- time

    @property
    def next_due(self) -> float | None:
        """The time at which `acks` or `expired` will return something."""
        ack = self._acks[0][0] if self._acks else None
        expiry = next(iter(self._suspended.values())) + self._limits.resume_window if self._suspended else None
        return min((due for due in (ack, expiry) if due is not None), default=None)

    def acks(self, now: float) -> list[tuple[ReplayBuffer, ServerAck]]:
        """Return the acks that are due; they bear no `seq`."""
        due = []
        while self._acks and self._acks[0][0] <= now:
            deadline, buffer = self._acks.popleft()
            if buffer.ack_due == deadline:
                buffer.ack_due = None
                due.append((buffer, ServerAck(buffer.accepted)))
        return due

    def restart_windows(self, now: float) -> None:
        """Give suspended sessions a full window from now on: the process itself was suspended; no client could resume."""
        self._suspended = dict.fromkeys(self._suspended, now)

    def expired(self, now: float) -> list[Eviction]:
        """Return the sessions whose window is over; the caller ends them."""
        late = [buffer for buffer, since in self._suspended.items() if since + self._limits.resume_window <= now]
        self.totals.expired += len(late)
        return [Eviction(buffer, buffer.reason) for buffer in late]

    # ---- tokens

    def _issue(self, buffer: ReplayBuffer, secret: bytes) -> str:
        """Return the token made of `secret`; it belongs to the client's present connection from now on."""
        name = buffer.client_id.encode() if self._has_id_in_token else b""
        token = urlsafe_b64encode(secret + name).rstrip(b"=").decode()
        buffer.digest = digest_of(token)
        if buffer.digest not in buffer.digests:
            buffer.digests.append(buffer.digest)
            self._by_digest[buffer.digest] = buffer
            self._revoke(buffer, buffer.digests[:-TOKENS])
        return token

    def _revoke(self, buffer: ReplayBuffer, digests: list[bytes]) -> None:
        for digest in digests:
            del self._by_digest[digest]
        buffer.digests = [each for each in buffer.digests if each not in digests]


def id_in_token(token: str) -> str | None:
    """Return the client ID that a token of a cluster names; None if it cannot be one."""
    try:
        name = urlsafe_b64decode(token + "=" * (-len(token) % 4))[TOKEN_BYTES:].decode()
    except ValueError:
        return None
    return name if is_name(name) else None


def digest_of(token: str) -> bytes:
    """Return the digest by which a token is looked up."""
    return sha256(token.encode(errors="replace")).digest()
