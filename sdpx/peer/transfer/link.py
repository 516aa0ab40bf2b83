"""The link to the other side of a transfer: a `Stream`, carried by one connection after the other.

`serve` runs for each connection, from the opening of its channel to its end. The program sends and receives on the link, and
does not notice that a connection was lost.
"""

import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import trio

from sdpx.concurrency import RepeatedEvent
from sdpx.errors import Ending, ExitStatus
from sdpx.peer.transfer.frames import Abort, Violation, encode
from sdpx.peer.transfer.stream import Aborted, Replaced, Stream

if TYPE_CHECKING:
    from sdpx.peer.webrtc.binary_channel import BinaryChannel

GRANT_SECONDS: Final = 0.02  # a small grant waits so long for a larger one
ABORT_SECONDS: Final = 1.0
FLUSH_SECONDS: Final = 5.0
CHUNK: Final = 256 * 1024
BATCH_BYTES: Final = 1024 * 1024  # about, in one change of threads


def new_name() -> str:
    """Return a name for a stream that no other one has."""
    return secrets.token_hex(8)


class Restarted(Exception):
    """The other side was started again, and a new stream has begun."""


class Link:
    """A link for programs of this `role`; `new_name` returns a name for a stream, different each time.

    With `restarts` the link outlives the other side's process: `send` and `receive` raise `Restarted`, and `begin` begins a new
    stream. Without, that is a failure. Both raise the `Ending` of a link that has failed.
    """

    def __init__(self, role: str, new_name: Callable[[], str], *, restarts: bool = False) -> None:
        self._role = role
        self._new_name = new_name
        self._restarts = restarts
        self._stream = Stream(new_name(), role)
        self._generation = 0  # of the stream
        self._noticed = 0  # the generation that the program knows
        self._channel: BinaryChannel | None = None
        self._chunk = CHUNK - 1
        self._changed = RepeatedEvent()
        self._failure: Ending | None = None
        self._abort: Abort | None = None
        self._was_aborted = False  # by the other side, which needs no reason

    # ---- for the program ------------------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether there is a connection, and both sides have greeted each other."""
        return self._stream.connected

    @property
    def has_failed(self) -> bool:
        """Whether the link is over, for either side's reason."""
        return self._failure is not None

    @property
    def begun(self) -> bool:
        """Whether anything was sent or received."""
        return self._stream.begun or self._generation > 0

    @property
    def peer_role(self) -> str:
        """The role of the other side; empty before its first hello."""
        return self._stream.peer_role

    @property
    def chunk(self) -> int:
        """How large a message may be, as on the present or last connection."""
        return self._chunk

    def notify(self) -> None:
        """Wake all that wait for a change."""
        self._changed.set()

    async def change(self) -> None:
        """Wait until anything changes."""
        await self._changed.wait()

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds. Raises the `Ending` of a link that has failed."""
        while not condition():
            if self._failure is not None:
                raise self._failure
            await self._changed.wait()
        await trio.lowlevel.checkpoint()

    @property
    def _is_new(self) -> bool:
        return self._generation != self._noticed

    async def begin(self) -> None:
        """Wait for the first connection, or begin anew after `Restarted`."""
        self._noticed = self._generation
        await self.wait_until(lambda: self.connected)

    async def send(self, payload: bytes | memoryview) -> None:
        """Send a message, once the other side has room for it."""
        await self.wait_until(lambda: self._is_new or self._stream.has_room(len(payload)))
        if self._is_new:
            raise Restarted
        self._stream.add(payload)
        self._changed.set()

    async def receive(self) -> memoryview:
        """Return the next message; `take` has to be called when it is used up."""
        await self.wait_until(lambda: self._is_new or self._stream.inbox > 0)
        if self._is_new:
            raise Restarted
        return self._stream.pop()

    async def receive_some(self) -> list[memoryview]:
        """Return the next message, and those behind it that have come already, as many as a thread should use at once.

        An empty message is the last one.
        """
        payloads = [await self.receive()]
        size = len(payloads[0])
        while payloads[-1] and size < BATCH_BYTES and self._stream.inbox:
            payloads.append(self._stream.pop())
            size += len(payloads[-1])
        return payloads

    def take(self, payload: memoryview) -> None:
        """Note that a message is used up, so that the other side may send as much again."""
        if not self._is_new:
            self._stream.take(payload)
        self._changed.set()

    async def flush(self) -> None:
        """Wait until both sides know the position that the other one has taken, at most as long as the connection lasts."""
        with trio.move_on_after(FLUSH_SECONDS):
            while self.connected and (self._stream.unconfirmed or self._stream.grant_pending):
                await self._changed.wait()

    @property
    def unconfirmed(self) -> int:
        """The bytes that the other side has not taken, as far as is known."""
        return self._stream.unconfirmed

    async def abort(self, code: str, reason: str) -> None:
        """Send an abort to the other side, if there is a connection."""
        if self._was_aborted:
            return
        self._abort = Abort(code, reason)
        self._changed.set()
        with trio.move_on_after(ABORT_SECONDS, shield=True):
            while self._has_unsent_abort:  # noqa: ASYNC110  the channel has no event for it
                await trio.sleep(GRANT_SECONDS)

    @property
    def _has_unsent_abort(self) -> bool:
        channel = self._channel
        return channel is not None and (self._abort is not None or channel.unacknowledged > 0)

    def fail(self, ending: Ending) -> None:
        """End the link; only the first call counts."""
        self._failure = self._failure or ending
        self._changed.set()

    # ---- for the connections --------------------------------------------------------------------------------------

    async def serve(self, channel: "BinaryChannel") -> None:
        """Carry the stream over a channel until that closes."""
        try:
            await channel.opened()
            self._channel, self._chunk = channel, min(CHUNK, channel.max_message_size) - 1
            async with trio.open_nursery() as nursery:
                await channel.send(self._stream.connect())
                nursery.start_soon(self._transmit, channel)
                nursery.start_soon(self._acknowledge, channel)
                while frames := await channel.receive():
                    for frame in frames:
                        await self._on_frame(frame, channel)
                    self._changed.set()
                nursery.cancel_scope.cancel()
        except* trio.BrokenResourceError:
            pass  # the channel has closed
        finally:
            self._channel = None
            self._stream.disconnect()
            self._changed.set()

    async def _on_frame(self, frame: bytes | str, channel: "BinaryChannel") -> None:
        try:
            try:
                self._stream.receive(frame)
            except Replaced:
                if await self._begin_anew(channel):
                    self._stream.receive(frame)
        except Aborted as aborted:
            self._was_aborted = True
            reason = f"The other side ended the transfer: {aborted.abort.reason}"
            self.fail(Ending("aborted", reason, ExitStatus.TRANSFER_FAILED))
        except Violation as violation:
            self._abort = Abort("protocol_error", str(violation))
            self.fail(Ending("protocol_error", str(violation), ExitStatus.TRANSFER_FAILED))

    async def _begin_anew(self, channel: "BinaryChannel") -> bool:
        """Begin a new stream for a process of the other side that was started again; False if the link does not outlive it."""
        if self._stream.begun and not self._restarts:
            reason = "The other side was started again: the stream cannot go on"
            self._abort = Abort("peer_restarted", reason)
            self.fail(Ending("peer_restarted", reason, ExitStatus.TRANSFER_FAILED))
            return False
        self._generation += self._stream.begun
        self._stream = Stream(self._new_name(), self._role)
        await channel.send(self._stream.connect())
        return True

    async def _transmit(self, channel: "BinaryChannel") -> None:
        while True:
            if self._abort is not None:
                await channel.send(encode(self._abort))
                self._abort = None
                self._changed.set()
            elif (frame := self._stream.next_frame()) is not None:
                await channel.send(frame)
            else:
                await self._changed.wait()

    async def _acknowledge(self, channel: "BinaryChannel") -> None:
        while True:
            if not self._stream.grant_pending:
                await self._changed.wait()
                continue
            if not self._stream.grant_due:
                with trio.move_on_after(GRANT_SECONDS):
                    while not self._stream.grant_due:
                        await self._changed.wait()
            if self._stream.grant_pending:
                await channel.send(self._stream.grant())
                self._changed.set()
