"""A sequenced client on real sockets: it dials again whenever its socket ends, and resumes its session.

The rules are those of `sdpx peer` (sdpx.peer.signaling.resume). One process can run hundreds of these clients.
"""

import json
from collections import Counter
from typing import Any, Final
from urllib.parse import urlencode

import trio

from sdpx.concurrency import RepeatedEvent
from sdpx.peer.signaling.resume import ResumeResult, ResumeState, SequenceCheck
from sdpx.protocol import codec
from sdpx.protocol.messages import ServerAck, YourId
from tests.harness.frames import CLOSE, PING, PONG, TEXT, FrameReader, frame, upgrade_request

FIRST_DELAY: Final = 0.001
MAX_DELAY: Final = 0.25
GREETING_SECONDS: Final = 10.0  # for `your_id` on a new socket; then the socket is given up
NO_MASK: Final = bytes(4)


class ResumingClient:
    """A client of a local port that always reconnects and resumes.

    A subclass implements `on_message`, and `on_session` for the fate of the session at each connection.
    """

    def __init__(self, port: int, requested_id: str = "") -> None:
        self._port = port
        self._requested_id = requested_id
        self.rules = ResumeState()
        self.id: str | None = None
        self.local_port = 0  # of the present socket
        self.welcomed = False  # `your_id` was received on the present socket
        self.results: list[ResumeResult] = []
        self.closes: Counter[int] = Counter()  # close codes received
        self.refusals: Counter[str] = Counter()  # status lines of refused upgrades
        self.gaps = 0  # frames of the relay that did not continue its sequence
        self.changed = RepeatedEvent()
        self._failures = 0
        self._out: list[bytes] = []
        self._write_lock = trio.Lock()
        self._written = RepeatedEvent()

    def on_message(self, message: dict[str, Any]) -> None:
        """Handle a new frame of the relay."""

    def on_session(self, result: ResumeResult) -> None:
        """Handle `your_id`."""

    def send(self, message: dict[str, Any]) -> None:
        """Send a message with the next `client_seq`; it is kept until the relay confirms it."""
        text = self.rules.send(json.dumps(message))
        if self.welcomed:
            self._write(text)

    def _write(self, *texts: str) -> None:
        self._out += (frame(TEXT, text.encode(), mask=NO_MASK) for text in texts)
        self._written.set()

    async def run(self) -> None:
        """Connect, and connect again for ever."""
        while True:
            try:
                stream = await trio.open_tcp_stream("127.0.0.1", self._port)
            except OSError:
                pass
            else:
                await self._use(stream)
            self.changed.set()
            await trio.sleep(min(MAX_DELAY, FIRST_DELAY * 2**self._failures))
            self._failures = min(self._failures + 1, 16)

    async def _use(self, stream: trio.SocketStream) -> None:
        """Serve one socket to its end."""
        self.welcomed, self._out = False, []
        try:
            self.local_port = stream.socket.getsockname()[1]
            async with stream, trio.open_nursery() as nursery:
                nursery.start_soon(self._read, stream, nursery.cancel_scope)
                nursery.start_soon(self._write_all, stream, nursery.cancel_scope)
        finally:
            self.welcomed, self.local_port = False, 0

    async def _write_all(self, stream: trio.SocketStream, scope: trio.CancelScope) -> None:
        query = self.rules.query() + ([("id", self._requested_id)] if self._requested_id else [])
        try:
            await stream.send_all(upgrade_request(f"/?{urlencode(query)}"))
            with trio.move_on_after(GREETING_SECONDS):
                while not self.welcomed:
                    await self._written.wait()
            while self.welcomed:
                due = self.rules.ack_due
                if due is not None and due <= trio.current_time():
                    self._write(self.rules.ack())
                if self._out:
                    data, self._out = b"".join(self._out), []
                    await self._send_all(stream, data)
                    continue
                with trio.move_on_at(trio.current_time() + 3600 if due is None else due):
                    await self._written.wait()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        scope.cancel()

    async def _send_all(self, stream: trio.SocketStream, data: bytes) -> None:
        async with self._write_lock:
            await stream.send_all(data)

    async def _read(self, stream: trio.SocketStream, scope: trio.CancelScope) -> None:
        reader, head = FrameReader(), None
        try:
            while data := await stream.receive_some(65536):
                reader.data += data
                if head is None and (head := reader.next_head()) and not head.startswith("HTTP/1.1 101"):
                    self.refusals[head.partition("\r\n")[0]] += 1
                    break
                if head is not None and not await self._handle_frames(stream, reader):
                    break
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        scope.cancel()

    async def _handle_frames(self, stream: trio.SocketStream, reader: FrameReader) -> bool:
        """Handle all complete frames; returns False if the socket has to be given up."""
        while (found := reader.next_frame()) is not None:
            opcode, payload = found
            if opcode == PING:
                await self._send_all(stream, frame(PONG, payload))
            elif opcode == CLOSE:
                self.closes[int.from_bytes(payload[:2])] += 1
                await self._send_all(stream, frame(CLOSE, payload[:2]))
                return False
            elif opcode == TEXT and not self._on_text(payload.decode()):
                return False
        return True

    def _on_text(self, text: str) -> bool:
        message = codec.parse_server(text)
        if isinstance(message, YourId):
            self._on_your_id(message)
        elif isinstance(message, ServerAck):
            assert self.rules.confirm(message.client_seq)
            self.changed.set()
        else:
            was_due = self.rules.ack_due
            check = self.rules.receive(text, trio.current_time())
            if self.rules.ack_due != was_due:
                self._written.set()
            if check is SequenceCheck.GAP:
                self.gaps += 1
                return False
            if check is SequenceCheck.NEW:
                self.on_message(json.loads(text))
                self.changed.set()
        return True

    def _on_your_id(self, message: YourId) -> None:
        self.results.append(self.rules.on_your_id(message))
        self.id = message.id
        self.welcomed = True
        self._failures = 0
        if self.rules.ack_due is not None:
            self._write(self.rules.ack())
        first = self.rules.confirmed + 1
        self._write(*(self.rules.frame(number) for number in range(first, self.rules.sent + 1)))
        self.on_session(self.results[-1])
        self.changed.set()
