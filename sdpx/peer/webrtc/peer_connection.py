"""aiortc's RTCPeerConnection for Trio.

- Every call into aiortc, synchronous ones too, runs in the asyncio context (`runtime`).
- The callbacks only put events into a bounded channel: an exception in one would cancel the loop.
- The exceptions of aiortc are mapped to `NegotiationFailed` here, and nowhere else.
- A connection is closed exactly once, shielded: a cancelled close leaves six tasks behind, a second one hangs.
"""

import logging
import math
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Literal

import trio
import trio_asyncio
from aioice import Candidate
from aioice.ice import get_host_addresses
from aiortc import RTCConfiguration, RTCIceServer, RTCIceTransportPolicy, RTCPeerConnection, RTCSessionDescription
from aiortc.sdp import candidate_from_sdp

from sdpx.errors import describe_os_error
from sdpx.events import Event, webrtc
from sdpx.ice_servers import IceServer
from sdpx.peer.negotiation import sdp
from sdpx.peer.negotiation.addresses import MAX_REMOTE, is_group_address, refuse_remote
from sdpx.peer.negotiation.description import MID, RemoteDescription
from sdpx.peer.webrtc import aioice_ext, dtls_patch, versions
from sdpx.peer.webrtc.data_channel import DataChannels
from sdpx.peer.webrtc.events import HeartbeatReceived, IceServerResult, NegotiationFailed, RtcEvent
from sdpx.peer.webrtc.runtime import in_asyncio
from sdpx.protocol.messages import CandidateInit

logger = logging.getLogger("aiortc")

HEARTBEATS_BOUND: Final = 4096  # messages are bounded in bytes by their flow control, other events are few
LOCAL_CANDIDATES_BOUND: Final = 256
CLOSE_SECONDS: Final = 5.0
RESOLVE_SECONDS: Final = 5.0
# The four states of an RTCPeerConnection (W3C WebRTC, 4.3).
_STATES: Final[dict[str, Callable[[str], Event]]] = {
    "iceGatheringState": webrtc.IceGatheringState,
    "iceConnectionState": webrtc.IceConnectionState,
    "connectionState": webrtc.ConnectionState,
    "signalingState": webrtc.SignalingState,
}


async def connect(
    servers: Sequence[IceServer], *, relay_only: bool = False, allow_loopback: bool = True
) -> "PeerConnection":
    """Return a new connection, which the caller closes.

    With `relay_only` it uses relayed candidates alone (RTCIceTransportPolicy, W3C WebRTC 4.2.1). `allow_loopback` says whether
    loopback addresses of the peer are used.
    """
    if relay_only:
        servers = [server for server in servers if server.is_turn]
    if not versions.fits("trickle_ice"):
        servers = await aioice_ext.answering_servers(servers)
    return await in_asyncio(PeerConnection, servers, relay_only, allow_loopback)


def unavailable_features() -> dict[str, tuple[str, str]]:
    """Return each feature that the installed versions do not have, with the library that does not fit and its version."""
    return {feature: unfit for feature in versions.NEEDS if (unfit := versions.unfit_library(feature)) is not None}


def host_addresses() -> list[str]:
    """Return the addresses of this machine for host candidates; aioice never uses loopback addresses."""
    return list(get_host_addresses(use_ipv4=True, use_ipv6=True))


class PeerConnection:
    """An RTCPeerConnection with one data channel, and its `events` until it is closed.

    With trickle ICE a description has the host candidates, and `gather` puts later ones into `local_candidates`.
    """

    def __init__(self, servers: Sequence[IceServer], relay_only: bool, allow_loopback: bool) -> None:
        self._send_event, self.events = trio.open_memory_channel[RtcEvent](math.inf)
        self._send_candidate, self.local_candidates = trio.open_memory_channel[CandidateInit](LOCAL_CANDIDATES_BOUND)
        self._trickles = versions.fits("trickle_ice")
        self._servers = tuple(servers) if self._trickles else ()
        self._gatherer: aioice_ext.IceGatherer | None = None
        self._gathering = trio.CancelScope()
        self._gathered = trio.Event()
        self._gathered.set()
        self._gathering_ended = False
        self._dtls_error = ""
        self.remote: RemoteDescription | None = None  # set last, even if that failed halfway
        self._has_dtls_role = False
        self._restarted = False
        self._allow_loopback = allow_loopback
        self._remote_count = 0
        self._host_addresses = host_addresses()
        self._close_began = False
        rtc_servers = [] if self._trickles else [RTCIceServer(**server.dictionary()) for server in servers]
        policy = RTCIceTransportPolicy.RELAY if relay_only else RTCIceTransportPolicy.ALL
        self._pc = RTCPeerConnection(RTCConfiguration(rtc_servers, iceTransportPolicy=policy))
        self.channels = DataChannels(self._pc, self._emit)
        for name, changed in _STATES.items():

            def on_change(name: str = name, changed: Callable[[str], Event] = changed) -> None:
                self._emit(changed(getattr(self._pc, name)))

            self._pc.on(f"{name.lower()}change", on_change)

    def _emit(self, event: RtcEvent) -> None:
        waiting = self._send_event.statistics().current_buffer_used
        if isinstance(event, HeartbeatReceived) and waiting >= HEARTBEATS_BOUND:
            return  # the counts of the next one include those of this one
        try:
            self._send_event.send_nowait(event)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            logger.warning("An event of the connection was lost: %s", type(event).__name__)

    # ---- descriptions (RFC 8829, JSEP) ----------------------------------------------------------------------------

    async def create_offer(self) -> str:
        """Create an offer and set it as local description; return the SDP for the peer (RFC 8829, 4.1.8)."""
        await self._patch_transports()
        text = await self._create(self._pc.createOffer)
        self._has_dtls_role = True  # from the answer
        return self._announce(text, MID, 0)

    async def create_answer(self) -> str:
        """Create an answer and set it as local description; return the SDP for the peer (RFC 8829, 4.1.9)."""
        remote = self.remote
        assert remote is not None

        async def create() -> RTCSessionDescription:
            answer = await self._pc.createAnswer()
            if not self._has_dtls_role and remote.setup != "passive":
                # aiortc as a DTLS client fails against RSA certificates; as a server it accepts them (RFC 8842, 5.3).
                answer.sdp = answer.sdp.replace("a=setup:active", "a=setup:passive")
            return answer

        text = remote.complete_answer(await self._create(create))
        self._has_dtls_role = bool(remote.sections)
        return self._announce(text, *remote.tagged)

    async def _create(self, create: Callable[[], Awaitable[RTCSessionDescription]]) -> str:
        with _map_exceptions("wrong_state", "No description could be created"):
            description = await trio_asyncio.aio_as_trio(create)()
            await trio_asyncio.aio_as_trio(self._pc.setLocalDescription)(description)
        return str(self._pc.localDescription.sdp)

    def _announce(self, text: str, mid: str, index: int) -> str:
        if self._trickles and self._gatherer is None and self._pc.sctp is not None:
            self._gatherer = aioice_ext.gatherer(self._pc, mid, index)
        more_follow = self._gatherer is not None and bool(self._servers) and not self._gathering_ended
        return sdp.announce_trickle(text, more_follow=more_follow)

    def continues(self, offer: RemoteDescription) -> bool:
        """Whether an offer is a further one for this connection, while it exists (RFC 8829, 5.2.2)."""
        alive = self._pc.connectionState not in ("failed", "closed")
        return alive and self.remote is not None and offer.continues(self.remote)

    async def accept_offer(self, offer: RemoteDescription) -> None:
        """Set the peer's offer as remote description: the first one, or a further one on the present connection."""
        earlier = self.remote
        await self._set_remote("offer", offer)
        if earlier is None:
            await self._patch_transports()
        elif self._gatherer is not None and offer.restarts(earlier):
            self._restarted = True
            await in_asyncio(aioice_ext.restart_ice, self._pc, self._gatherer, offer.ufrag, offer.password)

    async def accept_answer(self, answer: RemoteDescription) -> None:
        """Set the peer's answer as remote description."""
        await self._set_remote("answer", answer)

    async def _set_remote(self, kind: Literal["offer", "answer"], remote: RemoteDescription) -> None:
        expected = "have-local-offer" if kind == "answer" else "stable"
        if self._pc.signalingState != expected:
            raise NegotiationFailed("wrong_state", f"Received {kind} in signaling state '{self._pc.signalingState}'")
        self.remote = remote
        self.channels.max_message_size = remote.max_message_size
        with _map_exceptions("bad_sdp", f"The peer's {kind} cannot be used"):
            description = RTCSessionDescription(sdp=remote.text, type=kind)
            await trio_asyncio.aio_as_trio(self._pc.setRemoteDescription)(description)

    async def _patch_transports(self) -> None:
        def on_error(reason: str) -> None:
            self._dtls_error = reason

        def on_skipped(used: int, skipped: int) -> None:
            self._emit(webrtc.AddressesSkipped(used, skipped))

        await in_asyncio(self.channels.control_flow)
        if self._pc.sctp is None:
            return
        if versions.fits("dtls_diagnosis"):
            await in_asyncio(dtls_patch.patch, self._pc.sctp.transport, on_error)
        if versions.fits("trickle_ice"):
            agent = aioice_ext.gatherer(self._pc, "", 0)
            await in_asyncio(aioice_ext.limit_agent, agent, self._refuses, on_skipped)

    # ---- candidates (RFC 8445, ICE; RFC 8838, trickle ICE) ----------------------------------------------------------

    async def gather(self) -> None:
        """Query all servers at once for candidates, which go into `local_candidates`; the end of gathering closes that.

        To be called once, after the description has been sent.
        """
        self._gathered = trio.Event()
        try:
            with self._gathering:
                async with trio.open_nursery() as nursery:
                    for server in self._servers:
                        nursery.start_soon(self._query, server)
        finally:
            self._gathering_ended = True
            self._send_candidate.close()
            self._gathered.set()

    async def _query(self, server: IceServer) -> None:
        gatherer = self._gatherer
        assert gatherer is not None
        if server.scheme == "stuns":
            reason = "STUN over TLS cannot tell the address of a UDP socket"
            self._emit(IceServerResult(server, answered=False, reason=reason))
            return
        addresses: tuple[str, ...] = ()
        reason = f"its name did not resolve within {RESOLVE_SECONDS:.0f} s"
        with trio.move_on_after(RESOLVE_SECONDS):
            try:
                found = await trio.socket.getaddrinfo(server.host, server.port, type=trio.socket.SOCK_DGRAM)
                addresses = tuple(dict.fromkeys(str(each[4][0]) for each in found))
            except (OSError, UnicodeError) as error:
                reason = f"its name does not resolve: {describe_os_error(error)}"
        if addresses and not (addresses := tuple(each for each in addresses if not is_group_address(each))):
            reason = "its address is multicast, broadcast or reserved"
        if not addresses:
            self._emit(IceServerResult(server, answered=False, reason=reason))
            return

        def on_candidate(candidate: Candidate) -> None:
            self._on_local_candidate(gatherer, candidate)

        query = aioice_ext.ServerQuery(gatherer, server, addresses, on_candidate, self._emit)
        await trio_asyncio.aio_as_trio(query.run)()

    def _on_local_candidate(self, gatherer: aioice_ext.IceGatherer, candidate: Candidate) -> None:
        text, username = f"candidate:{candidate.to_sdp()}", str(gatherer.connection.local_username)
        try:
            self._send_candidate.send_nowait(CandidateInit(text, gatherer.mid, gatherer.index, username))
        except trio.WouldBlock:
            logger.warning("A local candidate was dropped: there are too many")
        if self._pc.iceConnectionState == "new" and self._pc.remoteDescription is not None:
            aioice_ext.start_ice(self._pc)  # the description had no candidates

    @property
    def local_end(self) -> CandidateInit:
        """The end of the local candidates, an empty one (W3C WebRTC, 4.4.2): null ends some programs."""
        mid, index = ("", 0) if self._gatherer is None else (self._gatherer.mid, self._gatherer.index)
        return CandidateInit("", mid, index)

    async def add_candidate(self, init: CandidateInit) -> None:
        """Add a remote candidate, after the remote description. May wait until an mDNS name is resolved."""
        init = CandidateInit(
            sdp.normalize_candidate(init.candidate), init.sdpMid, init.sdpMLineIndex, init.usernameFragment
        )
        if error := sdp.validate_candidate(init):
            raise _bad_candidate(error)
        if not self._is_for_data(init):
            return
        if " udp " in init.candidate.lower() and not sdp.is_mdns(init.candidate):
            address, port = sdp.candidate_endpoint(init.candidate)
            if self._refuses(address, port):
                return
        self._remote_count += 1
        if self._remote_count > MAX_REMOTE:
            if self._remote_count == MAX_REMOTE + 1:
                reason = f"The peer has more than {MAX_REMOTE} candidates; the others are not used"
                self._emit(webrtc.CandidateIgnored(reason))
            return
        with _map_exceptions("bad_candidate", "The peer's candidate cannot be used"):
            candidate = candidate_from_sdp(init.candidate.removeprefix("candidate:"))
            candidate.sdpMid, candidate.sdpMLineIndex = MID, 0
            await trio_asyncio.aio_as_trio(self._pc.addIceCandidate)(candidate)
        if self._restarted and self._gatherer is not None:
            await in_asyncio(aioice_ext.check_late_pairs, self._gatherer)

    def _refuses(self, address: str, port: int) -> bool:
        reason = refuse_remote(address, port, self._host_addresses, allow_loopback=self._allow_loopback)
        if reason:
            self._emit(webrtc.CandidateIgnored(f"A candidate of the peer is not used: {reason}"))
        return bool(reason)

    def _is_for_data(self, init: CandidateInit) -> bool:
        """Whether a candidate is for the transport of the data section. Raises `NegotiationFailed` for an unknown section."""
        remote = self.remote
        assert remote is not None
        index = 0 if init.sdpMid is None and init.sdpMLineIndex is None else init.sdpMLineIndex
        if init.sdpMid is not None and init.sdpMid in remote.mids:
            index = remote.mids.index(init.sdpMid)
        elif init.sdpMid == MID and remote.mids == [""]:
            index = 0
        if index is None or index >= len(remote.mids):
            raise _bad_candidate("its description has no such media section")
        if init.usernameFragment and init.usernameFragment != remote.ufrag:
            raise _bad_candidate("it belongs to another description")
        return remote.uses_candidates(index)

    async def end_candidates(self) -> None:
        """Notify ICE of the end of the remote candidates: from now on it may fail (RFC 8838, 13)."""
        with _map_exceptions("bad_candidate", "The end of the peer's candidates cannot be used"):
            await trio_asyncio.aio_as_trio(self._pc.addIceCandidate)(None)

    # ---- state that aiortc does not report --------------------------------------------------------------------------

    @property
    def selected_pair(self) -> webrtc.PathSelected | None:
        """The candidates that ICE selected, by type and address; None before that, and without trickle ICE."""
        return None if self._gatherer is None else aioice_ext.selected_pair(self._gatherer)

    @property
    def pair_count(self) -> int | None:
        """How many candidate pairs ICE has to check; None without trickle ICE."""
        return None if self._gatherer is None else aioice_ext.pair_count(self._gatherer)

    @property
    def dtls_error(self) -> str:
        """Why DTLS failed; an empty string if it did not."""
        if self._pc.sctp is None or self._pc.sctp.transport.state != "failed":
            return ""
        return self._dtls_error or "the handshake failed"

    @property
    def fingerprint_mismatch(self) -> bool:
        """Whether DTLS failed because the peer's certificate has another fingerprint than its description (RFC 5763, 5)."""
        return self.dtls_error == dtls_patch.FINGERPRINT_MISMATCH

    @property
    def consent_expired(self) -> bool:
        """Whether the connection, which was up, ended because the peer answered no checks for half a minute (RFC 7675)."""
        return self._gatherer is not None and aioice_ext.consent_expired(self._gatherer)

    async def close(self) -> None:
        """Close the connection in any state, and end `events`. A second call does nothing."""
        if not self._close_began:
            self._close_began = True
            self._gathering.cancel()
            with trio.move_on_after(CLOSE_SECONDS, shield=True):
                await self._gathered.wait()
                await trio_asyncio.aio_as_trio(self._pc.close)()
            self._send_candidate.close()
            self._send_event.close()


def _bad_candidate(reason: str) -> NegotiationFailed:
    return NegotiationFailed("bad_candidate", f"The peer's candidate cannot be used: {reason}")


@contextmanager
def _map_exceptions(code: str, message: str) -> Iterator[None]:
    """Map the exceptions of aiortc. Their texts are for its developers, and go to the log of the library."""
    try:
        yield
    except NegotiationFailed:
        raise
    except Exception as error:
        logger.info("%s: %r", message, error)
        raise NegotiationFailed(code, message) from error
