"""Lines of text before there is a peer: each names one to pair with."""

import sys
from collections.abc import Awaitable, Callable

import trio

from sdpx.events import peer
from sdpx.ids import validate_id
from sdpx.log import Log
from sdpx.peer.input.lines import Lines
from sdpx.protocol.messages import ErrorFrame


class Prompt:
    """Reads a line only while this peer is free: from the pairing on, lines are for the other peer."""

    def __init__(self, lines: Lines, log: Log) -> None:
        self._lines = lines
        self._log = log
        self._up = trio.Event()
        self._free = trio.Event()
        self._free.set()
        self._typing = trio.CancelScope()

    def may_ask(self) -> None:
        """Note that there is a relay to ask."""
        self._up.set()

    def hold(self) -> None:
        """Leave the lines to a pairing."""
        self._free = trio.Event()
        self._typing.cancel()

    def release(self) -> None:
        """Take the lines again: the pairing is over."""
        self._free.set()

    async def run(self, ask: Callable[[str], Awaitable[ErrorFrame | None]]) -> None:
        """Ask for each pairing that a line names, until the input ends."""
        while (target := await self._next()) is not None:
            if not target:
                continue
            if flaw := validate_id(target[:80]):
                self._log.emit(peer.InputRejected("bad_id", flaw))
            else:
                await ask(target)

    async def _next(self) -> str | None:
        await self._up.wait()
        while True:
            while not self._free.is_set():  # looked at last of all: a pairing may come while this waits
                await self._free.wait()
            _show("ID of the peer to pair with (or wait to be asked): ")
            with trio.CancelScope() as self._typing:
                line = await self._lines.next()
                if self._free.is_set() or line is None:
                    return None if line is None else line.strip()
                self._lines.unread(line)


def _show(text: str) -> None:
    if sys.stdin and sys.stderr and sys.stdin.isatty() and sys.stderr.isatty():
        print(text, end="", file=sys.stderr, flush=True)  # noqa: T201
