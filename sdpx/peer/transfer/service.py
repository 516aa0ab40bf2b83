"""Files beside the messages of `sdpx peer --stdin json`: `{"send_file": PATH}`, and `--files DIR` for those that come.

Each direction has a link of its own between two such peers, on the channels `files` (from the initiator) and `files.back`. With
`sdpx send` or `sdpx receive` on the other side there is one link; its direction follows from that side's role.
"""

from typing import TYPE_CHECKING, Final

import trio

from sdpx.concurrency import RepeatedEvent, leaf_exceptions
from sdpx.errors import Ending
from sdpx.events import transfer
from sdpx.log import Log
from sdpx.peer.commands import InputRejected
from sdpx.peer.transfer.link import Link, new_name
from sdpx.peer.transfer.meter import Meter
from sdpx.peer.transfer.receive import Receiver
from sdpx.peer.transfer.records import Offer
from sdpx.peer.transfer.send import Sender
from sdpx.peer.transfer.source import BadSource, scan
from sdpx.peer.transfer.transport import ChannelUser, modes_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from sdpx.peer.webrtc.peer_connection import PeerConnection

FORTH: Final = "files"
BACK: Final = "files.back"
QUEUE_BOUND: Final = 256


class FileService(ChannelUser):
    """Sends the files that are queued to the present peer, or the next one; receives into `directory` unless it is None."""

    replaces_messages = False

    def __init__(self, directory: str | None, log: Log) -> None:
        self.mode = "both, files-out" if directory is None else "both, files"
        self._directory = directory
        self._log = log
        self._peer_id = ""
        self._refusal = ""  # why the present peer takes no files
        self._links: dict[str, Link] = {}
        self._outgoing: str | None = None  # the channel to send on, where that does not follow from a role
        self._paths: list[str] = []
        self._changed = RepeatedEvent()

    # ---- connections ----------------------------------------------------------------------------------------------

    def attach(  # noqa: D102
        self, pc: "PeerConnection", agent: str, peer_id: str, start_soon: "Callable[..., None]", *, is_initiator: bool
    ) -> None:
        modes = modes_of(agent)
        has_files, is_peer = bool({"files", "files-out"} & set(modes)), "both" in modes
        self._refusal = "" if "files" in modes else f"{peer_id} takes no files; 'sdpx peer' does with --files DIR"
        if peer_id != self._peer_id or any(link.has_failed for link in self._links.values()):
            self._end_links("The peer has changed")
            self._peer_id = peer_id
        if has_files:
            self._outgoing = (FORTH if is_initiator else BACK) if is_peer else None
            for label in (FORTH, BACK) if is_peer else (FORTH,):
                role = ("send" if label == self._outgoing else "receive") if is_peer else "both"
                link = self._links.setdefault(label, Link(role, new_name, restarts=True))
                start_soon(self._serve, link, pc, label)
                if is_initiator:
                    start_soon(pc.channels.create, label)
        self._changed.set()

    async def _serve(self, link: Link, pc: "PeerConnection", label: str) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._pass_on_changes, link)
            await link.serve(pc.channels.binary(label))
            nursery.cancel_scope.cancel()

    async def _pass_on_changes(self, link: Link) -> None:
        while True:
            await link.change()
            self._changed.set()

    def _end_links(self, reason: str) -> None:
        for link in self._links.values():
            link.fail(Ending("peer_gone", reason))
        self._links = {}

    def _link(self, *, sends: bool) -> Link | None:
        """Return the connected link for a direction."""
        for label, link in self._links.items():
            role = "receive" if sends else "send"
            fits = link.peer_role == role if self._outgoing is None else (label == self._outgoing) == sends
            if link.connected and not link.has_failed and fits:
                return link
        return None

    # ---- transfers ------------------------------------------------------------------------------------------------

    def send(self, path: str) -> None:
        """Queue a file or directory. Raises `InputRejected` if the peer takes none, or too many wait."""
        if self._peer_id and self._refusal:
            raise InputRejected("no_files", self._refusal)
        if len(self._paths) >= QUEUE_BOUND:
            raise InputRejected("too_many", f"{QUEUE_BOUND} files wait already; this one is not sent")
        self._paths.append(path)
        self._changed.set()

    async def idle(self) -> None:
        """Wait until the queued files are sent, as long as there is a connection for them."""
        while self._paths and self._link(sends=True) is not None:
            await self._changed.wait()

    async def run(self) -> None:
        """Send and receive until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send_all)
            if self._directory is not None:
                nursery.start_soon(self._receive_all, self._directory)

    async def _send_all(self) -> None:
        while True:
            while not self._paths or (link := self._link(sends=True)) is None:
                await self._changed.wait()
            try:
                manifest = await trio.to_thread.run_sync(scan, [self._paths[0]])
                await self._attempt(Sender(link, manifest, Meter(), self._log), link)
            except BadSource as bad:
                self._log.emit(transfer.TransferFailed("bad_source", str(bad)))
            self._paths.pop(0)
            self._changed.set()

    async def _receive_all(self, directory: str) -> None:
        async def is_wanted(_offer: Offer) -> bool:
            await trio.lowlevel.checkpoint()
            return True

        while True:
            while (link := self._link(sends=False)) is None:
                await self._changed.wait()
            await self._attempt(Receiver(link, directory, Meter(), self._log, is_wanted), link)

    async def _attempt(self, program: Sender | Receiver, link: Link) -> None:
        try:
            self._log.emit(await program.run())
        except* Ending as group:
            ending = leaf_exceptions(group)[0]
            assert isinstance(ending, Ending)
            self._log.emit(transfer.TransferFailed(ending.code, ending.reason))
            if ending.code != "transfer_incomplete":
                await link.abort(ending.code, ending.reason)
                link.fail(ending)
