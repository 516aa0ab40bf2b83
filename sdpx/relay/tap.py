"""The stream between a socket and the WebSocket library."""

import trio

from sdpx.relay.frames import FrameGate, Violation


class Tap(trio.abc.Stream):
    """Replays the request's head, then lets frames through a gate, and notes when the client last finished one.

    A frame that breaks a rule, and all that follows, never reaches the library: for it the stream ends there, and
    `violation` says why. The tap owns `stream`: closing the tap closes it.
    """

    def __init__(self, stream: trio.abc.Stream, head: bytes, behind: bytes, gate: FrameGate) -> None:
        self.stream = stream
        self._head = head
        self._behind = behind
        self._gate = gate
        self._accepted = trio.Event()
        self.last_heard = trio.current_time()

    @property
    def violation(self) -> Violation | None:
        """The rule that the client broke, if it did."""
        return self._gate.violation

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
        data = data or bytes(await self.stream.receive_some(max_bytes))
        return self._passed(data)

    def _passed(self, data: bytes) -> bytes:
        frames = self._gate.frames
        in_order = self._gate.feed(data)
        if self._gate.frames > frames:
            self.last_heard = trio.current_time()
        return data if in_order == len(data) else data[:in_order]

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send as the stream does."""
        await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait as the stream does."""
        await self.stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close the stream."""
        await self.stream.aclose()
