"""The wall: aiortc's RTCPeerConnection for Trio. Nothing else imports aiortc, aioice, asyncio or trio_asyncio.

- Every call into aiortc runs in asyncio's world, through `aio_as_trio`, the synchronous ones too.
- Its callbacks only put events into a bounded channel: one that raised would cancel the loop.
- Its exceptions are translated here, once, into `NegotiationFailed`.
- A connection is closed exactly once, shielded: a close that is cancelled leaves six tasks behind, a second one hangs.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

import trio
import trio_asyncio
from aioice.ice import get_host_addresses
from aiortc import RTCConfiguration, RTCDataChannel, RTCIceServer, RTCPeerConnection, RTCSessionDescription
from aiortc.exceptions import InvalidStateError
from aiortc.sdp import candidate_from_sdp

from sdpx.messages import CandidateInit
from sdpx.peer.sdp import flaw_in_sdp

logger = logging.getLogger("aiortc")

EVENTS_BOUND: Final = 4096
MESSAGES_BOUND: Final = 4000  # the rest is kept for state changes, which come in small numbers
CLOSE_SECONDS: Final = 5.0
FINISH_SECONDS: Final = 5.0

StateKind = Literal["ice_gathering", "ice_connection", "connection", "signaling"]
T = TypeVar("T")


class NegotiationFailed(Exception):
    """A description or a candidate could not be used; `code` is that of the `negotiation_error` event."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@dataclass(frozen=True, slots=True)
class StateChanged:
    """One of the four states of an RTCPeerConnection (W3C WebRTC, 4.3) is now `state`."""

    kind: StateKind
    state: str


@dataclass(frozen=True, slots=True)
class ChannelOpened:
    """The data channel is open: the first one that opens, whoever made it."""

    label: str


@dataclass(frozen=True, slots=True)
class ChannelClosed:
    """That data channel is closed."""

    label: str


@dataclass(frozen=True, slots=True)
class Received:
    """A message came over the data channel."""

    data: str | bytes


RtcEvent = StateChanged | ChannelOpened | ChannelClosed | Received


@asynccontextmanager
async def asyncio_loop() -> AsyncIterator[None]:
    """Run the asyncio loop that every connection needs. A task that dies unseen is logged as a library's error."""

    def on_fault(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        logger.error("%s: %r", context.get("message"), context.get("exception"))

    async with trio_asyncio.open_loop() as loop:
        loop.set_exception_handler(on_fault)
        yield


async def _in_asyncio(function: Callable[..., T], *args: object) -> T:
    async def call() -> T:
        return function(*args)

    result: T = await trio_asyncio.aio_as_trio(call)()
    return result


async def connect(ice_servers: Sequence[str]) -> "PeerConnection":
    """Return a new connection, its state handlers attached. Whoever calls closes it."""
    return await _in_asyncio(PeerConnection, ice_servers)


def host_addresses() -> list[str]:
    """Return the addresses that this machine can offer as host candidates; loopback is never among them."""
    return list(get_host_addresses(use_ipv4=True, use_ipv6=True))


class PeerConnection:
    """An RTCPeerConnection with one data channel, and `events` of it until it is closed."""

    def __init__(self, ice_servers: Sequence[str]) -> None:
        self._push, self.events = trio.open_memory_channel[RtcEvent](EVENTS_BOUND)
        self._channel: RTCDataChannel | None = None
        self._channel_moved = trio.Event()
        self._close_began = False
        self.used = False
        self._pc = RTCPeerConnection(RTCConfiguration([RTCIceServer(url) for url in ice_servers]))
        self._watch_states()
        self._pc.on("datachannel", self._watch_channel)

    def _watch_states(self) -> None:
        states: dict[StateKind, Callable[[], str]] = {
            "ice_gathering": lambda: self._pc.iceGatheringState,
            "ice_connection": lambda: self._pc.iceConnectionState,
            "connection": lambda: self._pc.connectionState,
            "signaling": lambda: self._pc.signalingState,
        }
        for kind, state in states.items():

            def on_change(kind: StateKind = kind, state: Callable[[], str] = state) -> None:
                self._emit(StateChanged(kind, state()))

            self._pc.on(f"{kind.replace('_', '')}statechange", on_change)

    def _emit(self, event: RtcEvent) -> None:
        try:
            self._push.send_nowait(event)
        except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
            logger.warning("An event of the connection was lost: %s", type(event).__name__)

    def _watch_channel(self, channel: RTCDataChannel) -> None:
        channel.on("open", lambda: self._opened(channel))
        channel.on("close", lambda: self._closed(channel))
        channel.on("message", lambda data: self._received(channel, data))
        channel.on("bufferedamountlow", self._move)
        if channel.readyState == "open":  # a remote one may be, when it is announced
            self._opened(channel)

    def _opened(self, channel: RTCDataChannel) -> None:
        if self._channel is None:
            self._channel = channel
            self._emit(ChannelOpened(channel.label))
            self._move()

    def _closed(self, channel: RTCDataChannel) -> None:
        if channel is self._channel:
            self._channel = None
            self._emit(ChannelClosed(channel.label))
            self._move()

    def _received(self, channel: RTCDataChannel, data: str | bytes) -> None:
        if channel is not self._channel:
            return
        if self._push.statistics().current_buffer_used < MESSAGES_BOUND:
            self._emit(Received(data))
        else:  # a reliable channel that lost a message must not look as if nothing had happened
            logger.error("Messages came faster than they could be taken: the data channel is closed")
            channel.close()

    def _move(self) -> None:
        self._channel_moved.set()
        self._channel_moved = trio.Event()

    @property
    def channel_is_open(self) -> bool:
        """Whether there is a data channel to send on."""
        return self._channel is not None

    async def create_channel(self, label: str) -> None:
        """Create the data channel: without it an offer has no m-line, and ICE never starts."""
        self._watch_channel(await _in_asyncio(self._pc.createDataChannel, label))

    async def create_offer(self) -> str:
        """Create an offer, set it as local description, gather candidates; return the SDP with them (RFC 8829, 4.1.8)."""
        return await self._describe(self._pc.createOffer)

    async def create_answer(self) -> str:
        """Create an answer to the offer that was accepted, and so on as for an offer."""
        return await self._describe(self._pc.createAnswer)

    async def _describe(self, create: Callable[[], Awaitable[RTCSessionDescription]]) -> str:
        with _translated("wrong_state", "No description could be made"):
            description = await trio_asyncio.aio_as_trio(create)()
            await trio_asyncio.aio_as_trio(self._pc.setLocalDescription)(description)
        return str(self._pc.localDescription.sdp)

    async def accept_offer(self, sdp: str) -> None:
        """Set the peer's offer as remote description; its audio and video, if any, will be answered `inactive`."""
        await self._accept("offer", sdp)
        for transceiver in self._pc.getTransceivers():
            transceiver.direction = "inactive"  # what nobody plays would pile up

    async def accept_answer(self, sdp: str) -> None:
        """Set the peer's answer as remote description."""
        await self._accept("answer", sdp)

    async def _accept(self, kind: Literal["offer", "answer"], sdp: str) -> None:
        if flaw := flaw_in_sdp(sdp):
            raise NegotiationFailed("bad_sdp", f"The peer's {kind} is no session description: {flaw}")
        self.used = True  # whatever comes of it: what aiortc applied halfway stays applied
        expected = "have-local-offer" if kind == "answer" else "stable"
        if self._pc.signalingState != expected:
            raise NegotiationFailed("wrong_state", f"Received {kind} in signaling state '{self._pc.signalingState}'")
        with _translated("bad_sdp", f"The peer's {kind} cannot be used"):
            description = RTCSessionDescription(sdp=sdp, type=kind)
            await trio_asyncio.aio_as_trio(self._pc.setRemoteDescription)(description)

    async def add_candidate(self, init: CandidateInit | None) -> None:
        """Add a candidate of the peer, in order; None or an empty one ends them (RFC 8838). The remote description is set."""
        with _translated("bad_candidate", "The peer's candidate cannot be used"):
            candidate = None
            if init is not None and init.candidate:
                candidate = candidate_from_sdp(init.candidate.removeprefix("candidate:"))
                candidate.sdpMid = init.sdpMid
                candidate.sdpMLineIndex = init.sdpMLineIndex
                if init.sdpMid is None and init.sdpMLineIndex is None:
                    candidate.sdpMLineIndex = 0  # with everything bundled it can only be the first
            await trio_asyncio.aio_as_trio(self._pc.addIceCandidate)(candidate)

    async def send(self, text: str) -> bool:
        """Send a message and wait until SCTP has taken it; False if the channel was not open."""
        channel = self._channel
        if channel is None or channel.readyState != "open":
            return False
        try:
            await _in_asyncio(channel.send, text)
        except InvalidStateError:  # it closed on the way into asyncio's world
            return False
        while channel.bufferedAmount and channel is self._channel:
            await self._channel_moved.wait()
        return True

    async def finish(self) -> None:
        """Close the data channel and wait, for a few seconds at most, until the peer has all that was sent.

        The reset of a stream is answered when all before it has arrived (RFC 8831, 6.7; RFC 6525, 5.2.2).
        """
        channel = self._channel
        if channel is not None:
            with trio.move_on_after(FINISH_SECONDS):
                await _in_asyncio(channel.close)
                while channel is self._channel:
                    await self._channel_moved.wait()

    async def close(self) -> None:
        """Close the connection, whatever state it is in, and end `events`."""
        if not self._close_began:
            self._close_began = True
            with trio.move_on_after(CLOSE_SECONDS, shield=True):
                await trio_asyncio.aio_as_trio(self._pc.close)()
            self._push.close()


class _translated:  # noqa: N801  used as a word in a with statement
    """Translate whatever aiortc raises: hostile SDP brings KeyError, AssertionError, AttributeError and ValueError."""

    def __init__(self, code: str, what: str) -> None:
        self._code = code
        self._what = what

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, NegotiationFailed):
            words = str(error) or type(error).__name__
            raise NegotiationFailed(self._code, f"{self._what}: {words}") from error
