"""The stream between a socket and the WebSocket library."""

from collections.abc import Callable

import trio

from sdpx.relay.frames import FrameGate, Violation
from sdpx.relay.limits import Limits


class Tap(trio.abc.Stream):
    """Replays the request's head, then lets frames through a gate, and notes when the client last finished one.

    A frame that breaks a rule, and all that follows, never reaches the library: for it the stream ends there, and
    `violation` says why. `on_control` is told how many control frames came, and may find that they are too many.

    The library may close the tap, not `stream`: it does so without a close frame where it finds an error of its own, and
    there is still one to be sent. Whatever is sent has `write_seconds`, or `close_seconds` once the client has said that it
    closes; what could not be sent whole leaves the stream `torn`, and nothing more can be said on it. `late` says that
    it was for lack of time.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        head: bytes,
        behind: bytes,
        limits: Limits,
        on_control: Callable[[int], Violation | None],
    ) -> None:
        self.stream = stream
        self._on_control = on_control
        self._head = head
        self._behind = behind
        self._limits = limits
        self._gate = FrameGate(limits.frame_bytes, limits.frame_fragments)
        self._accepted = trio.Event()
        self._closed = False
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
    def ended(self) -> bool:
        """Whether the library believes that the stream has ended, while it has not."""
        return self._closed or self._gate.violation is not None

    def accepted(self) -> None:
        """Let frames through: the WebSocket is open. Those that the library got earlier would wait for the next read."""
        self._accepted.set()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return the head, then bytes of frames that are in order; empty at the end of them."""
        if self._head:
            head, self._head = self._head, b""
            return head
        await self._accepted.wait()
        if self._gate.violation:
            return b""
        data, self._behind = self._behind, b""
        self._refuse_if_closed()
        data = data or bytes(await self.stream.receive_some(max_bytes))
        return self._passed(data)

    def _passed(self, data: bytes) -> bytes:
        frames, control_frames = self._gate.frames, self._gate.control_frames
        in_order = self._gate.feed(data)
        if self._gate.frames > frames:
            self.last_heard = trio.current_time()
        if self._gate.control_frames > control_frames and self._gate.violation is None:
            self._gate.violation = self._on_control(self._gate.control_frames - control_frames)
        if self._gate.closed:
            self._hurry()
        return data if in_order == len(data) else data[:in_order]

    def _hurry(self) -> None:
        """Give what is being sent no more time than a farewell gets."""
        deadline = trio.current_time() + self._limits.close_seconds
        self._sending.deadline = min(self._sending.deadline, deadline)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send, in the time that there is for it; raises `BrokenResourceError` past it."""
        self._refuse_if_closed()
        self._sending = trio.move_on_after(self._limits.write_seconds)
        self._sent = trio.Event()
        whole = False
        try:
            with self._sending:
                await self.stream.send_all(data)
                whole = True
        finally:
            self.torn = not whole
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
        if self._closed:
            raise trio.ClosedResourceError
