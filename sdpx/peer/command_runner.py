"""`--stdin json`: executes the commands of the program that controls this peer, one by one, in their order."""

import trio

from sdpx.concurrency import wait_for_change
from sdpx.peer.commands import Close, Command, InputRejected, Pair, SendFile, Unpair, parse_command
from sdpx.peer.input import Lines, MessageQueue
from sdpx.peer.negotiation.confirmation import Message
from sdpx.peer.session import Session
from sdpx.peer.transfer.service import FileService


class CommandRunner:
    """Executes the commands in `lines` on `session`, which sends the messages of `queue`, and on `files`."""

    def __init__(self, lines: Lines, queue: MessageQueue, session: Session, files: FileService | None = None) -> None:
        self._files = files
        self._lines = lines
        self._queue = queue
        self._session = session

    async def run(self) -> None:
        """Read and execute until the end of the input. Messages that are left at the end of the program are reported."""
        executing = ""
        try:
            while (line := await self._lines.next()) is not None:
                if not line.strip():
                    continue  # as in NDJSON
                executing = line
                try:
                    await self._execute(parse_command(line))
                except InputRejected as rejected:
                    self._lines.reject(rejected.code, rejected.reason, messages=int(_may_be_message(line)))
                executing = ""
            self._queue.end()
        except trio.Cancelled:
            self._report_unsent(sum(map(_may_be_message, [executing, *self._lines.drain()])))
            raise

    async def _execute(self, command: Command) -> None:
        match command:
            case Message():
                await self._enqueue(command)
            case SendFile(path) if self._files is not None:
                self._files.send(path)
            case Pair(target):
                await self._session.pair(target)
            case Unpair():
                if not self._session.has_peer:
                    raise InputRejected("not_paired", "There is no peer to leave")
                await self._flush()
                await self._session.unpair()
                # A message that the channel began to take and did not is not for the next peer.
                self._report_unsent(self._queue.clear())
            case Close():
                await self._flush()
                await self._session.quit()

    async def _enqueue(self, message: Message) -> None:
        """Queue a message. While the queue is full the input waits, but where no channel is expected the message is rejected.

        Between two pairings it is rejected, too: it was meant for the former peer.
        """
        if not self._session.has_addressee:
            reason = 'The pairing is over, so this message was not kept: {"pair": ID} or the next "paired" comes first'
            raise InputRejected("not_paired", reason)
        while self._queue.is_full:
            if not self._session.awaits_channel:
                reason = f"{len(self._queue)} messages wait for a data channel already; this one was not kept"
                raise InputRejected("not_open", reason)
            await wait_for_change(self._queue.change)  # the closing of a channel does not wake this task
        self._queue.put(message)

    async def _flush(self) -> None:
        """Wait until an open channel has taken the queued messages; the rest is dropped and reported."""
        await self._session.flush()
        if self._files is not None:
            await self._files.idle()
        self._report_unsent(self._queue.clear())

    def _report_unsent(self, count: int) -> None:
        if count:
            self._lines.reject("not_sent", f"Messages that waited for a data channel were not sent: {count}", count)


def _may_be_message(line: str) -> bool:
    """Return whether a line is a message, or a faulty one: it is no other command, and not empty."""
    try:
        return isinstance(parse_command(line), Message)
    except InputRejected:
        return bool(line.strip())
