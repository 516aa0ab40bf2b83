"""The stream between a socket and the WebSocket library."""

from collections.abc import Callable

import trio

from sdpx.relay.frames import FrameGate, Violation


class Tap(trio.abc.Stream):
    """Replays the request's head, then lets frames through a gate, and notes when the client last finished one.

    A frame that breaks a rule, and all that follows, never reaches the library: for it the stream ends there, and
    `violation` says why. `on_control` is told how many control frames came, and may find that they are too many.

    The library may close the tap, not `stream`: it does so without a close frame where it finds an error of its own, and
    there is still one to be sent.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        head: bytes,
        behind: bytes,
        gate: FrameGate,
        on_control: Callable[[int], Violation | None],
    ) -> None:
        self.stream = stream
        self._on_control = on_control
        self._head = head
        self._behind = behind
        self._gate = gate
        self._accepted = trio.Event()
        self._closed = False
        self.last_heard = trio.current_time()

    @property
    def violation(self) -> Violation | None:
        """The rule that the client broke, if it did."""
        return self._gate.violation

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
        return data if in_order == len(data) else data[:in_order]

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send as the stream does."""
        self._refuse_if_closed()
        await self.stream.send_all(data)

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
