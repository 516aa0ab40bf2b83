"""A stream of messages to and from another sdpx, over connections that come and go. Pure.

- The receiver grants bytes as its reader takes them, `WINDOW` ahead to begin with; a sender sends no further than granted.
- A sender keeps each message until the reader has taken it. A new connection begins with a hello from both sides, with the
  position that has arrived: the rest is sent again, so that no message is lost or comes twice.
- A stream belongs to one process. A hello with another stream means that the other side was started again: `Replaced`.
- A hello for an earlier process of this side is ignored: the other side learns from this side's hello, and sends another.
"""

from collections import deque
from typing import Final

from sdpx.peer.transfer.frames import Abort, Data, Grant, Hello, Violation, decode, encode, encode_data

WINDOW: Final = 4 * 1024 * 1024  # bytes that may be sent and not yet taken by the reader
GRANT_STEP: Final = WINDOW // 8  # bytes taken after which a grant does not wait
MAX_UNCONFIRMED: Final = 4 * WINDOW  # bytes that a sender keeps, whatever is granted


class Replaced(Exception):
    """The other side was started again, and has nothing of this stream."""


class Aborted(Exception):
    """The other side has ended the transfer."""

    def __init__(self, abort: Abort) -> None:
        super().__init__(abort.reason)
        self.abort = abort


class Stream:
    """Both directions of a stream; `name` is unique to it, `role` is that of this side."""

    def __init__(self, name: str, role: str) -> None:
        self.name = name
        self.role = role
        self.peer_role = ""
        self._peer_name = ""
        self._greeted = False  # the other side's hello has come on the present connection
        self._sent = 0  # positions in the stream of this side
        self._confirmed = 0
        self._limit = 0
        self._unconfirmed: deque[bytes] = deque()
        self._next = 0  # index of the first frame in `_unconfirmed` that the present connection has not carried
        self._received = 0  # positions in the stream of the other side
        self._taken = 0
        self._granted = 0  # `_taken` as the other side knows it
        self._inbox: deque[bytes] = deque()  # frames: a payload of its own would take more memory than a small frame

    # ---- the stream of this side ----------------------------------------------------------------------------------

    def has_room(self, size: int) -> bool:
        """Whether a message of `size` bytes may be added."""
        return self._sent + size + 1 <= min(self._limit, self._confirmed + MAX_UNCONFIRMED)

    def add(self, payload: bytes | memoryview) -> None:
        """Add a message; the caller has checked `has_room`."""
        frame = encode_data(payload)
        self._unconfirmed.append(frame)
        self._sent += len(frame)

    @property
    def unconfirmed(self) -> int:
        """The bytes that the other side's reader has not taken, as far as is known."""
        return self._sent - self._confirmed

    @property
    def begun(self) -> bool:
        """Whether anything was sent or received."""
        return self._sent > 0 or self._received > 0

    def _confirm(self, position: int) -> None:
        if position > self._sent:
            raise Violation("The other side confirms more than was sent")
        while self._unconfirmed and self._confirmed + len(self._unconfirmed[0]) <= position:
            self._confirmed += len(self._unconfirmed.popleft())
            self._next -= 1
        if self._next < 0:
            raise Violation("The other side confirms more than was sent on this connection")

    # ---- the stream of the other side -----------------------------------------------------------------------------

    @property
    def inbox(self) -> int:
        """The number of messages that wait for the reader."""
        return len(self._inbox)

    def pop(self) -> memoryview:
        """Return the next message; `take` confirms it."""
        return memoryview(self._inbox.popleft())[1:]

    def take(self, payload: memoryview) -> None:
        """Note that the reader is done with a message: the other side may send as much again."""
        self._taken += len(payload) + 1

    @property
    def grant_pending(self) -> bool:
        """Whether the other side does not know yet all that was taken."""
        return self._greeted and self._taken > self._granted

    @property
    def grant_due(self) -> bool:
        """Whether a grant should not wait any longer."""
        return self._greeted and self._taken - self._granted >= GRANT_STEP

    def grant(self) -> bytes:
        """Return the frame with the present grant."""
        self._granted = self._taken
        return encode(Grant(self._taken, self._taken + WINDOW))

    # ---- connections ----------------------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether both sides have greeted each other on the present connection."""
        return self._greeted

    def connect(self) -> bytes:
        """Begin a connection; returns its first frame."""
        self._greeted = False
        self._granted = self._taken
        return encode(Hello(self.name, self.role, self._peer_name, self._received, self._taken + WINDOW))

    def disconnect(self) -> None:
        """Note that the connection is lost."""
        self._greeted = False

    def next_frame(self) -> bytes | None:
        """Return the next data frame for the present connection; None if there is none now."""
        if not self._greeted or self._next >= len(self._unconfirmed):
            return None
        self._next += 1
        return self._unconfirmed[self._next - 1]

    def receive(self, data: bytes | str) -> None:
        """Take a message of the channel. Raises `Violation`, `Replaced` or `Aborted`."""
        match decode(data):
            case Data():
                self._on_data(data)  # type: ignore[arg-type]  # a text is a violation
            case Grant(taken, limit) if self._greeted:
                self._confirm(taken)
                self._limit = max(self._limit, limit)
            case Hello() as hello:
                self._on_hello(hello)
            case Abort() as abort:
                raise Aborted(abort)
            case _:
                raise Violation("A grant came before the hello")

    def _on_data(self, frame: bytes) -> None:
        if not self._greeted:
            raise Violation("Data came before the hello")
        self._received += len(frame)
        if self._received > self._granted + WINDOW:
            raise Violation("The other side sent more than was granted")
        self._inbox.append(frame)

    def _on_hello(self, hello: Hello) -> None:
        if self._peer_name not in ("", hello.stream):
            raise Replaced
        if hello.peer_stream not in ("", self.name):
            return
        if hello.received > self._sent:
            raise Violation("The other side has received more than was sent")
        self._peer_name, self.peer_role = hello.stream, hello.role
        self._next = len(self._unconfirmed)
        self._confirm(hello.received)
        self._next = 0
        self._limit = max(self._limit, hello.limit)
        self._greeted = True
