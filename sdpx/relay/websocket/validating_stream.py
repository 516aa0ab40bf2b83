"""The stream between a socket and the WebSocket library."""

import math

import trio

from sdpx.relay.core.limits import Limits
from sdpx.relay.websocket.handler import ConnectionHandler
from sdpx.relay.websocket.validator import FrameValidator, Violation


class ValidatingStream(trio.abc.Stream):
    """Gives the library a request's head, then lets whole frames through a gate, and notes when the client last sent one.

    A frame that breaks a rule, and all that follows, never reaches the library: for it the stream ends there, and
    `violation` says why.

    The library may close the tap, not `stream`: it does so without a close frame where it finds an error of its own, and
    there is still one to be sent. Whatever is sent has `write_timeout`, and all of it `close_timeout` once the client has
    said that it closes; what could not be sent whole leaves the stream `torn`, and nothing more can be said on it. `late`
    says that it was for lack of time.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        head: bytes,
        behind: bytes,
        limits: Limits,
        handler: ConnectionHandler,
        session: object,
    ) -> None:
        self.stream = stream
        self._handler = handler
        self._session = session
        self.report_partial = True
        self._head = head
        self._behind = behind
        self._limits = limits
        self._gate = FrameValidator(limits.max_message_size, limits.max_fragments)
        self._partial = bytearray()
        self._unfinished = 0
        self._accepted = trio.Event()
        self._closed = False
        self._send_until = math.inf
        self._sending = trio.CancelScope()
        self._sent = trio.Event()
        self._sent.set()
        self.torn = self.late = False
        self.last_heard = trio.current_time()

    @property
    def violation(self) -> Violation | None:
        """The rule that the client broke, if it did."""
        return self._gate.violation

    @property
    def client_closed(self) -> bool:
        """Whether the client has sent its close frame."""
        return self._gate.closed

    @property
    def close_code(self) -> int:
        """The code in that frame."""
        return self._gate.close_code

    def accepted(self) -> None:
        """Let frames through: the WebSocket is open. Those that the library got earlier would wait for the next read."""
        self._accepted.set()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return the head, then whole frames that are in order; empty at the end of them."""
        if self._head:
            head, self._head = self._head, b""
            return head
        await self._accepted.wait()
        while self._gate.violation is None and not self._gate.closed:
            data, self._behind = self._behind, b""
            self._refuse_if_closed()
            data = data or bytes(await self.stream.receive_some(max_bytes))
            if not data or (data := self._whole(data)):
                return data
        return b""

    def _whole(self, data: bytes) -> bytes:
        """Return the whole frames that these bytes complete, and keep what is left."""
        now, frames, extra_frames = trio.current_time(), self._gate.frames, self._gate.extra_frames
        self._partial += data[: self._gate.feed(data)]
        if self._gate.frames > frames:
            self.last_heard = now
        if self._gate.extra_frames > extra_frames and self._gate.violation is None:
            self._gate.violation = self._handler.on_non_message_frames(
                self._session, self._gate.extra_frames - extra_frames, now
            )
            if self._gate.violation:
                return b""
        if self._gate.closed:
            self._hurry()
        return self._cut()

    def _cut(self) -> bytes:
        end = len(self._partial) - (0 if self._gate.violation else self._gate.partial)
        whole = bytes(self._partial[:end])
        del self._partial[:end]
        # The library keeps fragments as text: a single rare letter makes four bytes of each.
        unfinished = len(self._partial) + 4 * self._gate.kept
        if unfinished != self._unfinished and self.report_partial:
            self._unfinished = unfinished
            self._handler.on_partial_message(self._session, unfinished)
        return whole

    def _hurry(self) -> None:
        """Give all that is still to be sent no more time than a farewell gets."""
        self._send_until = min(self._send_until, trio.current_time() + self._limits.close_timeout)
        self._sending.deadline = min(self._sending.deadline, self._send_until)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send, in the time that there is for it; raises `BrokenResourceError` past it."""
        self._refuse_if_closed()
        deadline = min(self._send_until, trio.current_time() + self._limits.write_timeout)
        self._sending = trio.CancelScope(deadline=deadline)
        self._sent = trio.Event()
        whole = False
        try:
            with self._sending:
                await self.stream.send_all(data)
                whole = True
        finally:
            self.torn = self.torn or not whole
            self._sent.set()
        if not whole:
            self.late = True
            raise trio.BrokenResourceError("the client did not read in time")

    async def fall_silent(self) -> bool:
        """Let the library send nothing more; returns whether all that it began to send went out whole."""
        self._closed = True
        self._hurry()
        await self._sent.wait()
        return not self.torn

    async def wait_send_all_might_not_block(self) -> None:
        """Wait as the stream does."""
        await self.stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Let nothing more through."""
        self._closed = True
        await trio.lowlevel.checkpoint()

    def _refuse_if_closed(self) -> None:
        if self._closed or self.torn:
            raise trio.ClosedResourceError
