"""Resume, the relay's side (PROTOCOL: Resume): who may come back, what waits for them, and for how long. Pure.

- A client that asked for numbers has a token, which is its ID for whoever bears it. A resume brings the next one, and the first
  frame on that socket makes all others void: until then nobody knows which of them reached the client, and a dial that it gave
  up long ago may still come through. So what follows a token is always the same: many dials with one make no more than one.
  Of those that no frame has decided between, `TOKENS` work, the latest.
- Only digests of tokens are kept, and a token is looked for by its digest: how long that takes tells nothing about a token, and
  what the relay's memory holds is of no use to a client.
- A client whose socket was lost without a close frame is held for the window, and then let go for the reason for which it was
  lost. With a window of 0 nobody is held; a token then takes over a socket that is still believed alive, and no more.
- What a client says to have on resume (`last`) is an ack. Less than it has confirmed, or nothing, means what it confirmed.
  More than was sent is no word of this client: it gets a fresh connection, and the ID waits on.
- Bounds: of each client's frames (`ReplayBuffer.post`), of the bytes of all (`over_budget`: who makes most be kept goes), of the clients
  that are held (`lose`: who was lost first goes). Who goes for a bound goes as `slow`.

Time is an argument, in seconds of any steady clock; randomness is injected. All is done at once: nothing here waits.
"""

from base64 import urlsafe_b64encode
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b, sha256
from typing import Final, NamedTuple

from sdpx.protocol import messages
from sdpx.protocol.messages import DisconnectReason, ServerAck
from sdpx.relay.core.replay_buffer import FrameVerdict, ReplayBuffer, ReplayLimits

TOKEN_BYTES: Final = 32
TOKENS: Final = 8
ROOM: Final = 0.75  # of the bytes of all, once they were too many: to look at all for each frame would stall the relay


@dataclass(frozen=True, slots=True)
class ResumeRequest:
    """What the query asks for: numbers, and with a token an ID and all above `last`, if that was said."""

    numbered: bool = False
    token: str | None = field(default=None, repr=False)
    last: int | None = None


NOTHING: Final = ResumeRequest()


class Resumption(NamedTuple):
    """What the new socket is told first (`your_id`), and then: the frames above the client's last, numbered as they were."""

    token: str
    client_seq: int
    texts: list[str]


class Eviction(NamedTuple):
    """A client that has to go, and what its peer hears."""

    stream: ReplayBuffer
    reason: DisconnectReason


@dataclass(slots=True)
class ResumeStats:
    """What the metrics count since the start: who came back, who did not in time, who was too much to keep."""

    resumed: int = 0
    expired: int = 0
    evicted: int = 0


class SessionStore:
    """All clients of a relay that asked for numbers, with and without a socket. `token_bytes(n)` gives n random bytes."""

    def __init__(self, bounds: ReplayLimits, token_bytes: Callable[[int], bytes]) -> None:
        self._bounds = bounds
        self._token_bytes = token_bytes
        self._secret = token_bytes(TOKEN_BYTES)
        self._by_digest: dict[bytes, ReplayBuffer] = {}
        self._lost: dict[ReplayBuffer, float] = {}  # since when, who was lost first first
        self._acks: deque[tuple[float, ReplayBuffer]] = deque()
        self._streams: dict[ReplayBuffer, None] = {}
        self.bytes = 0  # kept for all
        self.totals = ResumeStats()

    @property
    def held(self) -> int:
        """How many clients are held without a socket."""
        return len(self._lost)

    @property
    def max_queued_bytes(self) -> int:
        """How many bytes of memory are kept for those."""
        return sum(stream.bytes for stream in self._lost)

    # ---- coming, and coming back

    def open(self, client_id: str) -> tuple[ReplayBuffer, str]:
        """Begin a client's numbers; returns them and its token."""
        stream = ReplayBuffer(client_id)
        self._streams[stream] = None
        return stream, self._issue(stream, self._token_bytes(TOKEN_BYTES))

    def find(self, token: str, last: int | None) -> ReplayBuffer | None:
        """Return whose token this is, if it works and `last` can be true. Nothing changes before `resume`."""
        stream = self._by_digest.get(_digest(token))
        return stream if stream is not None and (last is None or last <= stream.sent) else None

    def resume(self, token: str, last: int | None) -> Resumption:
        """Give a claimed ID to a new socket. The caller ends the old one, if there is one, and takes no more from it."""
        stream = self._by_digest[_digest(token)]
        self._lost.pop(stream, None)
        self._confirm(stream, last or 0)
        stream.ack_due = None  # `your_id` confirms
        self.totals.resumed += 1
        following = blake2b(token.encode(), key=self._secret, digest_size=TOKEN_BYTES).digest()
        return Resumption(self._issue(stream, following), stream.taken, [kept.text for kept in stream.unconfirmed()])

    # ---- frames

    def post(self, stream: ReplayBuffer, text: str, sender: object = None) -> str | None:
        """Give a frame its number and keep it. Returns what to send, if there is a socket; None: the client goes, as `slow`."""
        before = stream.bytes
        numbered = stream.post(text, sender, self._bounds)
        self.bytes += stream.bytes - before
        return numbered

    def take(self, stream: ReplayBuffer, frame: str | bytes, now: float) -> FrameVerdict:
        """Take a frame from the client's present socket; see `FrameVerdict`. Raises `Refusal`."""
        if len(stream.digests) > 1:
            self._revoke(stream, [each for each in stream.digests if each != stream.digest])
        before, was_due = stream.bytes, stream.ack_due
        try:
            return stream.take(frame, now)
        finally:
            self.bytes += stream.bytes - before
            if stream.ack_due is not None and stream.ack_due != was_due:
                self._acks.append((stream.ack_due, stream))

    # ---- ends

    def lose(self, stream: ReplayBuffer, reason: DisconnectReason, now: float) -> list[Eviction]:
        """Hold a client that lost its socket, for the window; returns who has to go now: itself, or one that makes room."""
        stream.reason = reason
        stream.ack_due = None
        if not self._bounds.window:
            return [Eviction(stream, reason)]
        self._lost[stream] = now
        if len(self._lost) <= self._bounds.held:
            return []
        self.totals.evicted += 1
        return [Eviction(next(iter(self._lost)), "slow")]

    def forget(self, stream: ReplayBuffer) -> list[object]:
        """Let a client go for good: its tokens are void. Returns who sent what it has not confirmed, each once, in order."""
        self._revoke(stream, stream.digests)
        self._lost.pop(stream, None)
        self._streams.pop(stream, None)
        senders = dict.fromkeys(kept.sender for kept in stream.unconfirmed() if kept.sender is not None)
        before = stream.bytes
        stream.confirm(stream.sent)
        self.bytes -= before
        stream.ack_due = None
        return list(senders)

    def over_budget(self) -> list[Eviction]:
        """Return who has to go for what all keep to be within bounds: who makes most be kept, first."""
        if self.bytes <= self._bounds.all_bytes:
            return []
        left, gone = self.bytes, list[Eviction]()
        for stream in sorted(self._streams, key=lambda each: each.bytes, reverse=True):
            if left <= self._bounds.all_bytes * ROOM:
                break
            left -= stream.bytes
            gone.append(Eviction(stream, "slow"))
        self.totals.evicted += len(gone)
        return gone

    # ---- time

    @property
    def next_due(self) -> float | None:
        """When `acks` or `expired` will have something to say."""
        ack = self._acks[0][0] if self._acks else None
        expiry = next(iter(self._lost.values())) + self._bounds.window if self._lost else None
        return min((due for due in (ack, expiry) if due is not None), default=None)

    def acks(self, now: float) -> list[tuple[ReplayBuffer, str]]:
        """Return the acks that are due, and to whom they go; they bear no `seq`."""
        due = []
        while self._acks and self._acks[0][0] <= now:
            deadline, stream = self._acks.popleft()
            if stream.ack_due == deadline:
                stream.ack_due = None
                due.append((stream, messages.encode(ServerAck(stream.taken))))
        return due

    def expired(self, now: float) -> list[Eviction]:
        """Return who was held for the whole window; `forget` is to follow."""
        late = [stream for stream, since in self._lost.items() if since + self._bounds.window <= now]
        self.totals.expired += len(late)
        return [Eviction(stream, stream.reason) for stream in late]

    # ---- tokens

    def _issue(self, stream: ReplayBuffer, secret: bytes) -> str:
        """Return a token made of `secret`; it is that of the client's socket from now on."""
        token = urlsafe_b64encode(secret).rstrip(b"=").decode()
        stream.digest = _digest(token)
        if stream.digest not in stream.digests:
            stream.digests.append(stream.digest)
            self._by_digest[stream.digest] = stream
            self._revoke(stream, stream.digests[:-TOKENS])
        return token

    def _revoke(self, stream: ReplayBuffer, digests: list[bytes]) -> None:
        for digest in digests:
            del self._by_digest[digest]
        stream.digests = [each for each in stream.digests if each not in digests]

    def _confirm(self, stream: ReplayBuffer, seq: int) -> None:
        before = stream.bytes
        stream.confirm(seq)
        self.bytes += stream.bytes - before


def _digest(token: str) -> bytes:
    return sha256(token.encode(errors="replace")).digest()
