"""`--stdin json`: the commands of a program that drives this peer, done one by one, in their order."""

from typing import Final, Protocol

import trio

from sdpx.events import peer
from sdpx.log import Log
from sdpx.peer.input.commands import Close, Command, InputRejected, Pair, Send, Unpair, parse_command
from sdpx.peer.input.lines import Lines
from sdpx.peer.input.sources import WAITING, MessageQueue

FLUSH_SECONDS: Final = 10.0
LOOK_SECONDS: Final = 0.25


class CommandTarget(Protocol):
    """What commands are for."""

    @property
    def has_peer(self) -> bool:
        """Whether there is a pairing."""

    @property
    def channel_is_open(self) -> bool:
        """Whether what is sent now goes out now."""

    @property
    def has_addressee(self) -> bool:
        """Whether it is known whom a message is for: the present peer, one that is asked for, or the first one of all."""

    async def pair(self, target: str) -> None:
        """Ask for a pairing and wait for the answer. Raises `InputRejected` if that cannot be."""

    async def unpair(self) -> None:
        """Leave the present peer, if it is still there."""

    async def quit(self) -> None:
        """End the program in order."""


class CommandRunner:
    """Does what the lines say."""

    def __init__(self, lines: Lines, outgoing: MessageQueue, driven: CommandTarget, log: Log) -> None:
        self._lines = lines
        self._outgoing = outgoing
        self._driven = driven
        self._log = log

    async def run(self) -> None:
        """Read and do until the end of the input."""
        while (line := await self._lines.next()) is not None:
            try:
                await self._do(parse_command(line))
            except InputRejected as refused:
                self._refuse(refused)
        self._outgoing.end()

    async def _do(self, command: Command) -> None:
        match command:
            case Send(data):
                await self._take(data)
            case Pair(target):
                await self._driven.pair(target)
            case Unpair():
                if not self._driven.has_peer:
                    raise InputRejected("not_paired", "There is no peer to leave")
                await self._flush()
                await self._driven.unpair()
                self._drop()  # what a channel that takes nothing had begun to take: the next peer must not get it
            case Close():
                await self._flush()
                await self._driven.quit()

    async def _take(self, data: str | bytes) -> None:
        """Let a message wait for its turn; past the bound the input waits, or, with no channel open, it is refused.

        Behind a pairing it is refused until there is the next one: it was meant for the peer that is gone.
        """
        if not self._driven.has_addressee:
            reason = 'The pairing is over, so this message was not kept: {"pair": ID} or the next "paired" comes first'
            raise InputRejected("not_paired", reason)
        while self._outgoing.is_full:
            if not self._driven.channel_is_open:
                raise InputRejected(
                    "not_open", f"{WAITING} messages wait for a data channel already; this one was not kept"
                )
            await self._look()
        self._outgoing.put(data)

    async def _flush(self) -> None:
        """Let an open channel take what waits for it; what nothing can take is dropped, and told of."""
        with trio.move_on_after(FLUSH_SECONDS):
            while self._driven.channel_is_open and not self._outgoing.is_empty:
                await self._look()
        self._drop()

    def _drop(self) -> None:
        if count := self._outgoing.forget():
            self._refuse(InputRejected("not_sent", f"Messages that waited for a data channel were not sent: {count}"))

    async def _look(self) -> None:
        with trio.move_on_after(LOOK_SECONDS):  # a channel that closes tells nobody here
            await self._outgoing.change()

    def _refuse(self, refused: InputRejected) -> None:
        self._log.emit(peer.InputRejected(refused.code, refused.reason))
