"""How the bytes of a transfer go over a connection: on a link between two sdpx programs, or as plain messages to another one.

The programs name their modes in the `agent` of offer and answer, as `sdpx/1.0 (pipe)`, so both know before the channel opens.
"""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Literal

import trio

from sdpx.errors import Ending, ExitStatus
from sdpx.peer.negotiation.confirmation import Receipt
from sdpx.peer.transfer.link import Link

if TYPE_CHECKING:
    from sdpx.peer.transfer.plain import PlainChannel
    from sdpx.peer.webrtc.peer_connection import PeerConnection

REFUSE_SECONDS: Final = 1.0
_MODES: Final = re.compile(r"sdpx/\S+ \(([a-z, -]+)\)")


def modes_of(agent: str) -> list[str]:
    """Return the modes of the other side, from the `agent` of its description."""
    found = _MODES.match(agent)
    return found[1].split(", ") if found else []


class ChannelUser:
    """A user of the data channels of a peer's connections, beside messages or in place of them."""

    mode: str  # in the `agent` of the description
    replaces_messages = True  # there are none beside it
    is_plain = False
    is_unfinished = False  # a transfer has begun that the next connection can go on with
    announce: Callable[[str], None] | None = None  # called with the ID of this side

    def attach(
        self, pc: "PeerConnection", agent: str, peer_id: str, start_soon: Callable[..., None], *, is_initiator: bool
    ) -> None:
        """Use a connection, of which both descriptions are known and no channel is open yet.

        `agent` is the other side's; `start_soon` starts a task that ends with the connection.
        """

    def receipt(self) -> Receipt:
        """Return the counts of messages for a `sdpx peer` on the other side, which waits for their confirmation."""
        return Receipt()


class Transport(ChannelUser):
    """Carries the transfer of a command. Without `plain` the other side has to be an sdpx with a mode in `accepts`."""

    def __init__(
        self,
        mode: Literal["pipe", "files"],
        link: Link,
        plain: "PlainChannel | None" = None,
        flows: int = 1,
        accepts: tuple[str, ...] = (),
    ) -> None:
        self.mode = mode
        self.link = link
        self.plain = plain
        self._flows = flows
        self._accepts = accepts or (mode,)
        self.peer_id = ""  # of the other side; empty before the first connection
        self._pc: PeerConnection | None = None  # the present or last connection
        self.is_done = False

    def attach(  # noqa: D102
        self, pc: "PeerConnection", agent: str, peer_id: str, start_soon: Callable[..., None], *, is_initiator: bool
    ) -> None:
        del is_initiator
        channels, modes = pc.channels, modes_of(agent)
        self._pc, self.peer_id = pc, peer_id
        channels.set_flows(self._flows)
        if not self.is_plain and any(each in modes for each in self._accepts):
            start_soon(self.link.serve, channels.binary(self.mode))
        elif self.plain is not None and (not modes or "both" in modes) and not self.link.begun:
            self.is_plain = True
            start_soon(self.plain.serve, channels.binary(None), self.link.notify)
        else:
            needed = "'sdpx pipe'" if self.mode == "pipe" else "'sdpx send' with 'sdpx receive'"
            start_soon(refuse, self.link.fail, mismatch(peer_id, agent, needed))

    @property
    def is_connected(self) -> bool:
        """Whether bytes can go over now."""
        return self.link.connected or (self.plain is not None and self.plain.connected)

    def receipt(self) -> Receipt:  # noqa: D102
        count = 0 if self.plain is None else self.plain.received
        return Receipt(count, count)

    async def wait(self, *, connected: bool) -> None:
        """Wait until `is_connected` is that."""
        while self.is_connected != connected:
            await self.link.change()

    @property
    def is_unfinished(self) -> bool:  # type: ignore[override]  # noqa: D102
        return self.link.begun and not self.is_done

    @property
    def path(self) -> str:
        """`relayed` through a TURN server, or `direct`; empty while that is unknown."""
        return "" if self._pc is None else path_of(self._pc)


def path_of(pc: "PeerConnection") -> str:
    """Return how the packets of a connection go: `relayed` through a TURN server, or `direct`; empty while that is unknown."""
    pair = pc.selected_pair
    return "" if pair is None else "relayed" if "relay" in (pair.local_candidate, pair.remote_candidate) else "direct"


async def refuse(fail: Callable[[Ending], object], ending: Ending) -> None:
    """Fail, once the other side had the time to learn by the answer that it has to."""
    try:
        await trio.sleep(REFUSE_SECONDS)
    finally:
        fail(ending)


def mismatch(peer_id: str, agent: str, needed: str) -> Ending:
    """Return why a program with this `agent` cannot be the other side: this one needs another."""
    present = f"'{agent[:80]}'" if agent else "a program that does not name itself"
    reason = f"{peer_id} cannot take part: this side needs {needed}, and the other one is {present}"
    return Ending("no_transfer", reason, ExitStatus.TRANSFER_REFUSED)
