"""The events of `sdpx pipe`, `sdpx send` and `sdpx receive`, beside those of `sdpx peer`."""

from msgspec import UNSET, UnsetType

from sdpx.events import Event, WarningEvent


class TransferWaiting(Event, frozen=True):
    """This side waits for the other one, which can connect by this `command`, or with a browser by the `link`."""

    id: str
    command: str
    link: str | UnsetType = UNSET

    def message(self) -> str:
        """Return the ways to connect."""
        page = "" if isinstance(self.link, UnsetType) else f", or open {self.link} in a browser"
        return f"Waiting. On the other machine: {self.command}{page}"


class TransferStarted(Event, frozen=True):
    """Both sides are connected, and bytes go over this `path`: `direct`, or `relayed` through a TURN server."""

    sentence = "Connected to {e.peer_id}, {e.path}."
    peer_id: str
    path: str


class TransferInterrupted(WarningEvent, frozen=True):
    """The connection was lost; the transfer goes on over the next one."""

    sentence = "The connection to {e.peer_id} was lost; the transfer goes on when it is back."
    peer_id: str


class TransferResumed(Event, frozen=True):
    """The transfer goes on over a new connection, where it was."""

    sentence = "Connected to {e.peer_id} again, {e.path}; the transfer goes on where it was."
    peer_id: str
    path: str


class PipeEnded(Event, frozen=True):
    """One direction of a pipe has ended: `input`, or `output`."""

    sentence = "End of the {e.direction}, after {e.bytes} bytes."
    direction: str
    bytes: int


class TransferComplete(Event, frozen=True):
    """Everything has arrived, and the other side has confirmed it. The bytes are those of this run."""

    bytes_sent: int
    bytes_received: int
    seconds: float

    def message(self) -> str:
        """Return the figures in a sentence."""
        return f"Complete: {self.bytes_sent} bytes sent, {self.bytes_received} received, in {self.seconds:.1f} s."


class FilesSkipped(WarningEvent, frozen=True):
    """Links, devices, sockets and pipes below a directory are not sent; the first of them are named."""

    sentence = "Not sent, because they are neither files nor directories: {e.count}, such as {e._first}"
    count: int
    names: list[str]
    _first: str


class TransferOffered(Event, frozen=True):
    """The sender has announced its files; the first `names` are listed."""

    names: list[str]
    files: int
    directories: int
    bytes: int

    def message(self) -> str:
        """Return the totals in a sentence."""
        names = ", ".join(self.names[:3]) + (", ..." if len(self.names) > 3 else "")  # noqa: PLR2004
        return f"Offered: {names}; files: {self.files}, directories: {self.directories}, bytes: {self.bytes}"


class TransferProgress(Event, frozen=True):
    """How far the transfer is, four times a second at most and only if it moves."""

    sentence = "{e.bytes} of {e.total} bytes, {e.files} of {e.files_total} files."
    bytes: int
    total: int
    files: int
    files_total: int
    bytes_per_second: float
    seconds_left: float | None
    path: str


class FileSent(Event, frozen=True):
    """The other side has a file, and its hash is right."""

    sentence = "Sent {e.file}"
    file: str
    bytes: int


class FileReceived(Event, frozen=True):
    """A file has arrived, and its hash is right."""

    sentence = "Received {e.file}"
    file: str
    bytes: int


class FileFailed(WarningEvent, frozen=True):
    """A file did not arrive; the others go on."""

    sentence = "{e.file} was not transferred: {e.reason}"
    file: str
    reason: str


class TransferFailed(WarningEvent, frozen=True):
    """A transfer of `sdpx peer` failed; the other commands end with an `error` instead."""

    sentence = "{e.reason}"
    code: str
    reason: str
