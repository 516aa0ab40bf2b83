"""`sdpx receive`: files and directories from an `sdpx send`.

Contents are written in a thread while further ones arrive. A fault of one file is reported, and the others go on; a full
disk ends the transfer, and all received bytes stay.
"""

import errno
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from sdpx.concurrency import map_exceptions
from sdpx.errors import Ending, ExitStatus, describe_os_error
from sdpx.events import Event, transfer
from sdpx.events.transfer import TransferComplete
from sdpx.log import Log
from sdpx.peer.transfer import records
from sdpx.peer.transfer.frames import Violation
from sdpx.peer.transfer.intake import Awaited, Intake
from sdpx.peer.transfer.link import Link, Restarted
from sdpx.peer.transfer.meter import Meter
from sdpx.peer.transfer.records import (
    Accept,
    Bye,
    Choice,
    Choices,
    Done,
    Entries,
    Entry,
    Offer,
    Result,
    Results,
    Verdict,
    decode_sender,
    records_of,
    shown,
)
from sdpx.peer.transfer.send import NAMES_SHOWN, incomplete, require_role, violation
from sdpx.peer.transfer.storage import Storage

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


class Receiver:
    """Receives into a directory the offers for which `is_wanted` returns True."""

    def __init__(
        self,
        link: Link,
        directory: str,
        meter: Meter,
        log: Log,
        is_wanted: Callable[[Offer], Awaitable[bool]],
        *,
        force: bool = False,
    ) -> None:
        self._link = link
        self._directory = directory
        self._meter = meter
        self._log = log
        self._is_wanted = is_wanted
        self._force = force

    async def run(self) -> TransferComplete:
        """Receive everything that the sender offers; returns the figures. Raises the `Ending` if not all of it is right."""
        began = trio.current_time()
        while True:
            await self._link.begin()
            require_role(self._link, "send")
            restarted = False
            with map_exceptions(Violation, violation):
                try:
                    await self._receive_once()
                except* Restarted:
                    restarted = True
            if not restarted:
                return TransferComplete(0, self._meter.moved, round(trio.current_time() - began, 3))

    async def _receive_once(self) -> None:
        offer = await self._receive_offer()
        writer = _OfferWriter(offer, self._directory, self._meter, force=self._force)
        try:
            await self._link.send(records.encode(Accept()))
            while not writer.is_done:
                payloads = await self._link.receive_some()
                replies = await trio.to_thread.run_sync(writer.process, payloads)
                for each in payloads:
                    self._link.take(each)
                for event in writer.events():
                    self._log.emit(event)
                for reply in replies:
                    await self._link.send(records.encode(reply))
        except OSError as error:
            raise self._failure(error) from None
        finally:
            writer.close()
        await self._link.send(records.encode(Verdict(writer.complete, writer.failed)))
        await self._await_bye()
        if writer.failed:
            raise incomplete(offer.files + offer.directories, writer.failed, writer.first_problem)

    async def _receive_offer(self) -> Offer:
        payload = await self._link.receive()
        offer = decode_sender(payload)
        self._link.take(payload)
        if not isinstance(offer, Offer):
            raise Violation("The first message is no offer")
        self._log.emit(transfer.TransferOffered(offer.names[:NAMES_SHOWN], offer.files, offer.directories, offer.size))
        self._meter.begin(offer.files, offer.size)
        wanted = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._link.wait_until, lambda: False)  # the other side may give up meanwhile
            wanted = await self._is_wanted(offer)
            nursery.cancel_scope.cancel()
        if not wanted:
            raise Ending("declined", "The offer was declined", ExitStatus.TRANSFER_REFUSED)
        return offer

    async def _await_bye(self) -> None:
        """Wait until the sender has the verdict; a failure to deliver it does not change the files."""
        try:
            payload = await self._link.receive()
        except (Restarted, Ending):
            return
        if isinstance(decode_sender(payload), Bye):
            self._link.take(payload)
            await self._link.flush()

    def _failure(self, error: OSError) -> Ending:
        code = "disk_full" if error.errno in _FULL else "storage_failed"
        reason = f"Cannot write to '{self._directory}': {describe_os_error(error)}"
        kept = "The received bytes are kept, and the same 'sdpx send' goes on from there"
        return Ending(code, f"{reason}. {kept}", ExitStatus.TRANSFER_FAILED)


class _OfferWriter:
    """Writes the files of one offer into the directory; `process` blocks."""

    def __init__(self, offer: Offer, directory: str, meter: Meter, *, force: bool) -> None:
        self._intake = Intake(offer)
        self._names = set(offer.names) if len(offer.names) < NAMES_SHOWN else None  # those that the answer is about
        self._storage = Storage(directory, force=force, check=trio.from_thread.check_cancelled)
        self._meter = meter
        self._events: list[Event] = []
        self._reported = -1  # the number of the last file with a result
        self.complete = 0
        self.failed = 0
        self.first_problem = ""
        self.is_done = False

    def close(self) -> None:
        """Close all files."""
        self._storage.close()

    def events(self) -> list[Event]:
        """Return the events since the last call."""
        events, self._events = self._events, []
        return events

    def process(self, payloads: list[memoryview]) -> list[records.FromReceiver]:
        """Execute messages of the sender; returns the replies. Raises `Violation` and OSError."""
        replies: list[records.FromReceiver] = []
        results: list[Result] = []
        for payload in payloads:
            match decode_sender(payload):
                case None:
                    for kind, number, body in records_of(payload):
                        self._on_record(kind, number, body, results)
                case Entries(entries):
                    replies.append(Choices([self._choose(entry) for entry in entries]))
                case Done() if self._intake.is_complete:
                    self._storage.finish()
                    self.is_done = True
                case _:
                    raise Violation("A message of the sender is out of order")
        return [*replies, Results(results)] if results else replies

    def _choose(self, entry: Entry) -> Choice:
        if self._names is not None and shown(entry.name.partition(b"/")[0]) not in self._names:
            raise Violation("A file is not below one of the names that were offered")
        choice = self._storage.choose(self._intake.count, entry)
        self._intake.add(entry, choice)
        if choice.refused:
            self._meter.bytes += entry.size
            self._count(entry, choice.refused)
        elif entry.kind == "directory":
            self.complete += 1
        return choice

    def _on_record(self, kind: int, number: int, body: memoryview, results: list[Result]) -> None:
        file, step = self._intake.take(kind, number, body)
        problem = self._storage.apply(file, step)
        self._note_progress(file, kind, body)
        if problem is not None and number != self._reported:
            self._reported = number
            self._count(file.entry, problem)
            results.append(Result(number, problem))

    def _note_progress(self, file: Awaited, kind: int, body: memoryview) -> None:
        if kind == records.BYTES:
            self._meter.bytes += len(body)
            self._meter.moved += len(body)
        elif kind == records.BEGIN:
            self._meter.bytes += records.parse_begin(body)[0]
        elif kind in (records.SAME, records.DIFFERENT):
            self._meter.bytes += file.entry.size

    def _count(self, entry: Entry, problem: str) -> None:
        name = shown(entry.name)
        self._meter.files += entry.kind == "file"
        if problem:
            self.failed += 1
            self.first_problem = self.first_problem or f"{name}: {problem}"
            self._events.append(transfer.FileFailed(name, problem))
        else:
            self.complete += 1
            self._events.append(transfer.FileReceived(name, entry.size))
