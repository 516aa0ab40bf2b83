"""The wall: aiortc's RTCPeerConnection for Trio. Only this and its private corner, `ice` and `dtls`, import its libraries.

- Every call into aiortc runs in asyncio's world, through `aio_as_trio`, the synchronous ones too.
- Its callbacks only put events into a bounded channel: one that raised would cancel the loop.
- Its exceptions are translated here, once, into `NegotiationFailed`.
- A connection is closed exactly once, shielded: a close that is cancelled leaves six tasks behind, a second one hangs.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Literal

import trio
import trio_asyncio
from aioice import Candidate
from aioice.ice import get_host_addresses
from aiortc import RTCConfiguration, RTCIceServer, RTCIceTransportPolicy, RTCPeerConnection, RTCSessionDescription
from aiortc.sdp import candidate_from_sdp

from sdpx.ice_servers import IceServer
from sdpx.peer.negotiation import sdp
from sdpx.peer.webrtc import aioice_ext, dtls_patch, server_probe
from sdpx.peer.webrtc.asyncio_bridge import asyncio_loop, in_asyncio
from sdpx.peer.webrtc.data_channel import Channels
from sdpx.peer.webrtc.events import (
    Beat,
    ChannelClosed,
    ChannelOpened,
    NegotiationFailed,
    Received,
    RtcEvent,
    ServerTold,
    StateChanged,
    StateKind,
)
from sdpx.protocol.messages import CandidateInit

__all__ = [
    "Beat",
    "ChannelClosed",
    "ChannelOpened",
    "NegotiationFailed",
    "PeerConnection",
    "Received",
    "RtcEvent",
    "ServerTold",
    "StateChanged",
    "StateKind",
    "asyncio_loop",
    "connect",
    "host_addresses",
]
logger = logging.getLogger("aiortc")

EVENTS_BOUND: Final = 4096
MESSAGES_BOUND: Final = 4000  # the rest is kept for state changes, which come in small numbers
LOCAL_CANDIDATES_BOUND: Final = 256
CLOSE_SECONDS: Final = 5.0
RESOLVE_SECONDS: Final = 5.0


async def connect(servers: Sequence[IceServer], *, relay_only: bool = False) -> "PeerConnection":
    """Return a new connection, its state handlers attached. Whoever calls closes it.

    With `relay_only` it uses relayed candidates and no others (RTCIceTransportPolicy, W3C WebRTC 4.2.1).
    """
    if relay_only:
        servers = [server for server in servers if server.is_turn]
    trickles = aioice_ext.fits()
    if not trickles:  # aiortc will wait for them, and takes one of each kind: so only those that answer
        servers = await server_probe.answering(servers)
    return await in_asyncio(PeerConnection, servers, trickles, relay_only)


def host_addresses() -> list[str]:
    """Return the addresses that this machine can offer as host candidates; loopback is never among them."""
    return list(get_host_addresses(use_ipv4=True, use_ipv6=True))


class PeerConnection:
    """An RTCPeerConnection with one data channel, and `events` of it until it is closed.

    With `trickles`, its descriptions leave with the host candidates, and `gather` puts the others into `local_candidates`.
    """

    def __init__(self, servers: Sequence[IceServer], trickles: bool, relay_only: bool) -> None:
        self._push, self.events = trio.open_memory_channel[RtcEvent](EVENTS_BOUND)
        self._found, self.local_candidates = trio.open_memory_channel[CandidateInit](LOCAL_CANDIDATES_BOUND)
        self._servers = tuple(servers) if trickles else ()
        self._trickles = trickles
        self._agents: list[aioice_ext.IceGatherer] = []
        self._gathering = trio.CancelScope()
        self._gathered = trio.Event()
        self._gathered.set()
        self._channels = Channels(self._emit, self._is_crowded)
        self._dtls_blame = ""
        self._remote = ""
        self._refused: dict[int, str] = {}  # sections of the offer that the stack cannot answer
        self._close_began = False
        self.used = False
        known = [] if trickles else [RTCIceServer(**server.dictionary()) for server in servers]
        policy = RTCIceTransportPolicy.RELAY if relay_only else RTCIceTransportPolicy.ALL
        self._pc = RTCPeerConnection(RTCConfiguration(known, iceTransportPolicy=policy))
        self._watch_states()
        self._pc.on("datachannel", self._channels.watch)

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

    # ---- the data channel -----------------------------------------------------------------------------------------

    def _is_crowded(self) -> bool:
        return self._push.statistics().current_buffer_used >= MESSAGES_BOUND

    @property
    def channel_is_open(self) -> bool:
        """Whether there is a data channel to send on."""
        return self._channels.is_open

    async def create_channel(self, label: str) -> None:
        """Create the data channel: without it an offer has no m-line, and ICE never starts."""
        self._channels.watch(await in_asyncio(self._pc.createDataChannel, label))

    async def send(self, data: str | bytes) -> bool:
        """Send a message and wait until SCTP has taken it; False if the channel was not open."""
        return await self._channels.send(data)

    async def finish(self) -> None:
        """Close the data channel and wait, for a few seconds at most, until the peer has all that was sent."""
        await self._channels.finish()

    async def create_heartbeat(self) -> None:
        """Create the second channel; the other side does the same."""
        await self._channels.create_heartbeat(self._pc)

    async def beat(self) -> None:
        """Send a beat, if that channel is open."""
        await self._channels.beat()

    # ---- descriptions ---------------------------------------------------------------------------------------------

    async def create_offer(self) -> str:
        """Create an offer and set it as local description; return the SDP for the peer (RFC 8829, 4.1.8)."""
        await self._guard_dtls()
        return await self._describe(self._pc.createOffer)

    async def create_answer(self) -> str:
        """Create an answer to the offer that was accepted, and so on as for an offer."""

        async def answer() -> RTCSessionDescription:
            made = await self._pc.createAnswer()
            return RTCSessionDescription(sdp.with_passive_setup(made.sdp, self._remote), made.type)

        return await self._describe(answer)

    async def _describe(self, create: Callable[[], Awaitable[RTCSessionDescription]]) -> str:
        with _map_exceptions("wrong_state", "No description could be made"):
            description = await trio_asyncio.aio_as_trio(create)()
            await trio_asyncio.aio_as_trio(self._pc.setLocalDescription)(description)
        described = sdp.insert_rejected_media(str(self._pc.localDescription.sdp), self._refused)
        if self._trickles:
            self._agents = aioice_ext.agents(self._pc, [mid or "" for mid in sdp.mids(described)])
        return sdp.announce_trickle(described, more_follow=bool(self._agents and self._servers))

    async def accept_offer(self, text: str) -> list[CandidateInit | None]:
        """Set the peer's offer as remote description; its audio and video, if any, will be answered `inactive`.

        Returns the candidates that were in it, for `add_candidate`; None stands for the end of them.
        """
        candidates = await self._accept("offer", text)
        for transceiver in self._pc.getTransceivers():
            transceiver.direction = "inactive"  # what nobody plays would pile up
        await self._guard_dtls()
        return candidates

    async def accept_answer(self, text: str) -> list[CandidateInit | None]:
        """Set the peer's answer as remote description; returns the candidates that were in it."""
        return await self._accept("answer", text)

    async def _accept(self, kind: Literal["offer", "answer"], text: str) -> list[CandidateInit | None]:
        if flaw := sdp.validate_sdp(text):
            raise NegotiationFailed("bad_sdp", f"The peer's {kind} is no session description: {flaw}")
        self.used = True  # whatever comes of it: what aiortc applied halfway stays applied
        expected = "have-local-offer" if kind == "answer" else "stable"
        if self._pc.signalingState != expected:
            raise NegotiationFailed("wrong_state", f"Received {kind} in signaling state '{self._pc.signalingState}'")
        rest, candidates = sdp.split_candidates(text)
        rest, self._refused = sdp.remove_unsupported_media(rest) if kind == "offer" else (rest, {})
        self._remote = text
        with _map_exceptions("bad_sdp", f"The peer's {kind} cannot be used"):
            description = RTCSessionDescription(sdp=rest, type=kind)
            await trio_asyncio.aio_as_trio(self._pc.setRemoteDescription)(description)
        return candidates

    async def _guard_dtls(self) -> None:
        if not self._trickles:
            return
        transports = {each.receiver.transport for each in self._pc.getTransceivers()}
        if self._pc.sctp is not None:
            transports.add(self._pc.sctp.transport)
        for transport in transports:
            await in_asyncio(dtls_patch.guard, transport, self._on_dtls_error)

    def _on_dtls_error(self, reason: str) -> None:
        self._dtls_blame = reason

    # ---- candidates -----------------------------------------------------------------------------------------------

    async def gather(self) -> None:
        """Ask all servers at once for candidates, which go into `local_candidates`; that ends when all have been asked.

        Call it once the description is on its way. No server holds up another.
        """
        self._gathered = trio.Event()
        try:
            with self._gathering:
                async with trio.open_nursery() as nursery:
                    for agent in self._agents:
                        for server in self._servers:
                            nursery.start_soon(self._ask, agent, server)
        finally:
            self._found.close()
            self._gathered.set()

    async def _ask(self, agent: aioice_ext.IceGatherer, server: IceServer) -> None:
        if server.scheme == "stuns":
            self._told(
                aioice_ext.ServerResult(
                    server, answered=False, reason="STUN over TLS cannot tell the address of a UDP socket"
                )
            )
            return
        addresses: tuple[str, ...] = ()
        reason = f"its name did not resolve within {RESOLVE_SECONDS:.0f} s"
        with trio.move_on_after(RESOLVE_SECONDS):
            try:
                found = await trio.socket.getaddrinfo(server.host, server.port, type=trio.socket.SOCK_DGRAM)
                addresses = tuple(dict.fromkeys(str(each[4][0]) for each in found))
            except (OSError, UnicodeError) as error:
                reason = f"its name does not resolve: {error}"
        if not addresses:
            self._told(aioice_ext.ServerResult(server, answered=False, reason=reason))
            return

        def note(candidate: Candidate) -> None:
            self._note(agent, candidate)

        await trio_asyncio.aio_as_trio(aioice_ext.ask)(
            agent, aioice_ext.ServerAddress(server, addresses), note, self._told
        )

    def _note(self, agent: aioice_ext.IceGatherer, candidate: Candidate) -> None:
        text = f"candidate:{candidate.to_sdp()}"
        try:
            self._found.send_nowait(CandidateInit(text, agent.mid, agent.index, agent.username))
        except trio.WouldBlock:
            logger.warning("A local candidate was lost: there are too many")
        if self._pc.iceConnectionState == "new" and self._pc.remoteDescription is not None:
            aioice_ext.connect(self._pc)  # there was none before

    def _told(self, told: aioice_ext.ServerResult) -> None:
        self._emit(ServerTold(told.server, told.answered, told.code, told.reason))

    async def add_candidate(self, init: CandidateInit) -> None:
        """Add a candidate of the peer (RFC 8838). The remote description is set. May wait for an mDNS name to resolve."""
        init = CandidateInit(
            sdp.normalize_candidate(init.candidate), init.sdpMid, init.sdpMLineIndex, init.usernameFragment
        )
        if flaw := sdp.validate_candidate(init):
            raise NegotiationFailed("bad_candidate", f"The peer's candidate cannot be used: {flaw}")
        with _map_exceptions("bad_candidate", "The peer's candidate cannot be used"):
            candidate = candidate_from_sdp(init.candidate.removeprefix("candidate:"))
            candidate.sdpMid, candidate.sdpMLineIndex = self._section(init)
            await trio_asyncio.aio_as_trio(self._pc.addIceCandidate)(candidate)

    def _section(self, init: CandidateInit) -> tuple[str | None, int | None]:
        """Return the media section that a candidate is for; with everything bundled it can only be the first."""
        known = sdp.mids(self._remote)
        index = init.sdpMLineIndex
        if init.sdpMid is not None and init.sdpMid in known:
            index = known.index(init.sdpMid)
        elif init.sdpMid is None and index is None:
            index = 0
        if index is None or index >= len(known):
            raise NegotiationFailed(
                "bad_candidate", "The peer's candidate cannot be used: its description has no such media section"
            )
        if init.usernameFragment and init.usernameFragment not in sdp.ice_ufrags(self._remote):
            raise NegotiationFailed(
                "bad_candidate", "The peer's candidate cannot be used: it belongs to another description"
            )
        usable = [number for number in range(len(known)) if number not in self._refused]
        if "a=group:BUNDLE" in self._remote or index not in usable:
            index = usable[0]
        return known[index], usable.index(index)

    async def end_candidates(self) -> None:
        """Tell ICE that the peer has no more candidates: from now on it may fail (RFC 8838, 13)."""
        with _map_exceptions("bad_candidate", "The end of the peer's candidates cannot be used"):
            await trio_asyncio.aio_as_trio(self._pc.addIceCandidate)(None)

    # ---- what is known of it --------------------------------------------------------------------------------------

    @property
    def selected_pair(self) -> aioice_ext.Pair | None:
        """The candidates that ICE selected; None if it has not, or nobody can know."""
        return next((pair for agent in self._agents if (pair := aioice_ext.selected_pair(agent))), None)

    @property
    def pair_count(self) -> int | None:
        """How many pairs of candidates ICE has to check; None if nobody can know."""
        return sum(map(aioice_ext.pair_count, self._agents)) if self._agents else None

    @property
    def dtls_error(self) -> str:
        """Why DTLS failed; an empty string if it did not."""
        if self._pc.sctp is None or self._pc.sctp.transport.state != "failed":
            return ""
        return self._dtls_blame or "the handshake failed"

    @property
    def fingerprint_mismatch(self) -> bool:
        """Whether it failed because the peer's certificate is not the one that was announced."""
        return self.dtls_error == dtls_patch.FINGERPRINT_MISMATCH

    @property
    def consent_expired(self) -> bool:
        """Whether the connection, which was up, ended because the peer answered nothing for half a minute."""
        return any(map(aioice_ext.consent_expired, self._agents))

    async def close(self) -> None:
        """Close the connection, whatever state it is in, and end `events`."""
        if not self._close_began:
            self._close_began = True
            self._gathering.cancel()
            with trio.move_on_after(CLOSE_SECONDS, shield=True):
                await self._gathered.wait()
                await trio_asyncio.aio_as_trio(self._pc.close)()
            self._found.close()
            self._push.close()


class _map_exceptions:  # noqa: N801  used as a word in a with statement
    """Translate whatever aiortc raises: hostile SDP brings KeyError, AssertionError, AttributeError and ValueError."""

    def __init__(self, code: str, what: str) -> None:
        self._code = code
        self._what = what

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, NegotiationFailed):
            words = str(error) or type(error).__name__
            raise NegotiationFailed(self._code, f"{self._what}: {words}") from error
