"""Options of `sdpx pipe`, `sdpx send` and `sdpx receive`. Pure."""

from dataclasses import dataclass, field, replace
from typing import Self

from sdpx.options import ViewOptions, option, values_of
from sdpx.peer.options import ConnectOptions, PeerOptions
from sdpx.urls import complete_relay_url


@dataclass(frozen=True, slots=True)
class TransferOptions(ConnectOptions):
    """Options of all three commands."""

    flows: int = option(
        1,
        "Claim the share of this many connections on a long path with losses; at the expense of other traffic.",
        "Transfer",
        "NUMBER",
        1,
        8,
    )

    def completed(self) -> Self:
        """Return the options with the URL in full."""
        return replace(self, url=complete_relay_url(self.url))

    def peer_options(self, pair: str | None, label: str) -> PeerOptions:
        """Return the options of the peer that carries the transfer: it requests `pair`, or waits."""
        shared = values_of(self)
        names = {name for name in shared if name in ConnectOptions.__dataclass_fields__}
        values = {name: shared[name] for name in names}
        return PeerOptions(**values, access=self.access, pair=pair, stdin="json", channel=label)


@dataclass(frozen=True, slots=True)
class PipeOptions(TransferOptions):
    """Options of `sdpx pipe`."""

    target: str | None = option(
        None, "Connect to the peer with this ID; without it, wait.", "Pairing", "ID", is_argument=True, in_file=False
    )
    view: ViewOptions = field(default_factory=ViewOptions)


@dataclass(frozen=True, slots=True)
class SendOptions(TransferOptions):
    """Options of `sdpx send`."""

    files: tuple[str, ...] = option(
        (), "Files and directories to send.", "Transfer", "FILE", is_argument=True, in_file=False
    )
    to: str | None = option(
        None, "Send to the peer with this ID; without it, wait for one and print how to receive.", "Pairing", "ID"
    )
    view: ViewOptions = field(default_factory=ViewOptions)


@dataclass(frozen=True, slots=True)
class ReceiveOptions(TransferOptions):
    """Options of `sdpx receive`."""

    directory: str = option(
        ".", "Directory to receive into; it is created if missing.", "Transfer", "DIR", is_argument=True, in_file=False
    )
    sender: str | None = option(
        None, "Receive from the peer with this ID; without it, wait for one.", "Pairing", "ID", flag="--from"
    )
    yes: bool = option(False, "Receive without asking.", "Transfer")
    force: bool = option(False, "Replace existing files.", "Transfer")
    view: ViewOptions = field(default_factory=ViewOptions)
