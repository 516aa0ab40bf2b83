"""`sdpx send`: files and directories to an `sdpx receive`.

The entries go ahead of the contents, in batches, so that no file waits for an answer. The receiver has the last word on each
file and on all; a receiver that is started again gets the whole offer again, and keeps its files.
"""

from typing import Final

import trio

from sdpx.concurrency import RepeatedEvent, leaf_exceptions, map_exceptions
from sdpx.errors import Ending, ExitStatus
from sdpx.events import transfer
from sdpx.events.transfer import TransferComplete
from sdpx.log import Log
from sdpx.peer.transfer import records
from sdpx.peer.transfer.frames import MAX_REASON, Violation
from sdpx.peer.transfer.link import Link, Restarted
from sdpx.peer.transfer.meter import Meter
from sdpx.peer.transfer.records import (
    BATCH_ENTRIES,
    Accept,
    Bye,
    Choice,
    Choices,
    Done,
    Entries,
    Offer,
    Results,
    Verdict,
    decode_receiver,
    shown,
)
from sdpx.peer.transfer.source import Manifest, Packer

AHEAD: Final = 4 * BATCH_ENTRIES  # entries without a choice
NAMES_SHOWN: Final = 20


class Sender:
    """Sends the files of a manifest over a link."""

    def __init__(self, link: Link, manifest: Manifest, meter: Meter, log: Log) -> None:
        self._link = link
        self._manifest = manifest
        self._meter = meter
        self._log = log
        self._changed = RepeatedEvent()
        self._reset()

    def _reset(self) -> None:
        self._packer = Packer(trio.from_thread.check_cancelled)
        self._announced = 0  # entries that have been sent
        self._chosen = 0  # entries of which the choice has come
        self._problems: dict[int, str] = {}
        self._is_done = False  # everything has been sent
        self._meter.begin(self._manifest.files, self._manifest.size)

    async def run(self) -> TransferComplete:
        """Send everything; returns the figures. Raises the `Ending` if not all of it is right on the other side."""
        began = trio.current_time()
        if self._manifest.skipped:
            names = self._manifest.skipped
            self._log.emit(transfer.FilesSkipped(len(names), names[:NAMES_SHOWN], names[0]))
        while True:
            await self._link.begin()
            require_role(self._link, "receive")
            with map_exceptions(Violation, violation):
                try:
                    verdict = await self._send_once()
                    await self._link.send(records.encode(Bye()))
                    break
                except* Restarted:
                    self._packer.close()
                    self._reset()
        await self._link.flush()
        self._meter.moved = self._packer.bytes_moved
        if verdict.failed or self._problems:
            raise incomplete(len(self._manifest.items), max(verdict.failed, len(self._problems)), self._shown_problems)
        return TransferComplete(self._meter.moved, 0, round(trio.current_time() - began, 3))

    async def _send_once(self) -> Verdict:
        manifest = self._manifest
        offer = Offer(manifest.names[:NAMES_SHOWN], manifest.files, manifest.directories, manifest.size)
        self._log.emit(transfer.TransferOffered(offer.names, offer.files, offer.directories, offer.size))
        await self._link.send(records.encode(offer))
        if not isinstance(await self._receive(), Accept):
            raise Violation("The receiver does not accept the offer, and does not refuse it")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send_entries)
            nursery.start_soon(self._send_contents)
            while not isinstance(message := await self._receive(), Verdict):
                self._on_message(message)
            nursery.cancel_scope.cancel()
        if message.complete + message.failed != len(manifest.items) or not self._is_done:
            raise Violation("The receiver ends the transfer before it has everything")
        return message

    async def _receive(self) -> records.FromReceiver:
        payload = await self._link.receive()
        message = decode_receiver(payload)
        self._link.take(payload)
        return message

    async def _send_entries(self) -> None:
        items = self._manifest.items
        while self._announced < len(items):
            batch = items[self._announced : self._announced + BATCH_ENTRIES]
            while self._announced - self._chosen + len(batch) > AHEAD:
                await self._changed.wait()
            self._announced += len(batch)
            await self._link.send(records.encode(Entries([each.entry for each in batch])))

    async def _send_contents(self) -> None:
        count = len(self._manifest.items)
        while self._chosen < count or not self._packer.is_idle:
            if self._packer.is_idle:
                await self._changed.wait()
                continue
            messages = await trio.to_thread.run_sync(self._packer.fill_some, self._link.chunk)
            waiting = self._link.unconfirmed + sum(map(len, messages))
            self._meter.bytes = max(0, self._packer.bytes_done - waiting)
            self._meter.moved = max(0, self._packer.bytes_moved - waiting)
            for message in messages:
                await self._link.send(message)
        self._is_done = True
        await self._link.send(records.encode(Done()))

    def _on_message(self, message: records.FromReceiver) -> None:
        match message:
            case Choices(choices):
                for choice in choices:
                    self._on_choice(choice)
                self._changed.set()
            case Results(results):
                for result in results:
                    self._on_result(result.number, result.problem[:MAX_REASON])
            case _:
                raise Violation("A message of the receiver is out of order")

    def _on_choice(self, choice: Choice) -> None:
        number = self._chosen
        if number >= self._announced:
            raise Violation("There are more choices than entries")
        self._chosen += 1
        item = self._manifest.items[number]
        if choice.refused:
            self._packer.bytes_done += item.entry.size
            self._on_result(number, choice.refused[:MAX_REASON])
        elif item.entry.kind == "file":
            self._packer.want(number, item, choice)

    def _on_result(self, number: int, problem: str) -> None:
        if not 0 <= number < self._announced:
            raise Violation("There is a result for a file that was not announced")
        entry = self._manifest.items[number].entry
        name = shown(entry.name)
        self._meter.files += 1
        if problem:
            self._problems[number] = problem
            self._log.emit(transfer.FileFailed(name, problem))
        else:
            self._log.emit(transfer.FileSent(name, entry.size))

    @property
    def _shown_problems(self) -> str:
        number, problem = next(iter(self._problems.items()), (0, "see the receiver's log"))
        return f"{shown(self._manifest.items[number].entry.name)}: {problem}"


def require_role(link: Link, needed: str) -> None:
    """Raise the `Ending` if the other side does the same as this one."""
    if link.peer_role not in (needed, "both"):
        reason = f"The other side runs 'sdpx {link.peer_role[:20]}', too; one of the two has to run 'sdpx {needed}'"
        raise Ending("no_transfer", reason, ExitStatus.TRANSFER_REFUSED)


def violation(group: BaseExceptionGroup[Violation]) -> Ending:
    """Return the `Ending` of a transfer of which the other side broke the rules."""
    return Ending("protocol_error", str(leaf_exceptions(group)[0]), ExitStatus.TRANSFER_FAILED)


def incomplete(total: int, failed: int, first: str) -> Ending:
    """Return the `Ending` of a transfer in which some files did not arrive."""
    reason = f"{failed} of {total} files did not arrive, the first of them: {first}"
    return Ending("transfer_incomplete", reason, ExitStatus.TRANSFER_FAILED)
