"""Private parts of aioice and aiortc for ICE, for the versions in `versions.TESTED`, and the fallback for other versions.

aioice's `Connection.get_component_candidates` has the host candidates at once, and then waits up to 5 s for the first STUN
and the first TURN server. So a connection is created without servers, and all servers are queried here, later and at once:
server-reflexive candidates come from the sockets of the host candidates, relayed candidates become local candidates of the
agent and are paired with the remote ones (trickle ICE, RFC 8838).

Where the installed versions do not fit, the connection is created with the servers that `answering_servers` finds.
"""

import asyncio
import ipaddress
import secrets
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final

import ifaddr
import trio
from aioice import Candidate, Connection, stun
from aioice.candidate import candidate_foundation, candidate_priority
from aioice.ice import CandidatePair, StunProtocol, relayed_candidate
from aiortc import RTCPeerConnection
from msgspec import Struct

from sdpx.events.webrtc import PathSelected
from sdpx.ice_servers import IceServer
from sdpx.peer.negotiation.addresses import MAX_PAIRS, choose_local
from sdpx.peer.webrtc.events import IceServerResult

SERVER_SECONDS: Final = 5.0
PROBE_SECONDS: Final = 1.0
_BINDING_REQUEST: Final = bytes.fromhex("000100002112a442")
_PROBE_RESENDS: Final = 3


class IceGatherer(Struct, frozen=True):
    """The ICE agent of one transport, and the m-line that it belongs to."""

    connection: Connection
    mid: str
    index: int


# ---- trickled candidates ----------------------------------------------------------------------------------------------


def gatherer(pc: RTCPeerConnection, mid: str, index: int) -> IceGatherer:
    """Return the ICE agent of the data channel, for candidates of the section with this mid and index."""
    assert pc.sctp is not None
    return IceGatherer(pc.sctp.transport.transport._connection, mid, index)  # noqa: SLF001


def limit_agent(agent: IceGatherer, refuse: Callable[[str, int], bool], on_skipped: Callable[[int, int], None]) -> None:
    """Bound the addresses and pairs of an agent that has not gathered.

    `on_skipped` is called with the number of local addresses used and of those left out. `refuse` says whether a remote address
    is not used; it is asked for the address that an mDNS name has.
    """
    connection = agent.connection
    get_candidates, add_remote = connection.get_component_candidates, connection._add_remote_candidate  # noqa: SLF001
    pair_remote = connection._pair_remote_candidate  # noqa: SLF001

    async def get_component_candidates(component: int, addresses: list[str], timeout: int = 5) -> list[Candidate]:  # noqa: ASYNC109
        used = choose_local(interfaces()) if addresses else []
        if len(used) < len(addresses):
            on_skipped(len(used), len(addresses) - len(used))
        return await get_candidates(component, used, timeout)

    def add_remote_candidate(candidate: Candidate, network_host: str) -> None:
        if network_host == candidate.host or not refuse(network_host, candidate.port):
            add_remote(candidate, network_host)

    def pair_remote_candidate(candidate: Candidate) -> None:
        pair_remote(candidate)
        connection.sort_check_list()
        for pair in connection._check_list[MAX_PAIRS:]:  # noqa: SLF001
            if pair.task is None and pair.state is pair.State.FROZEN:
                connection._check_list.remove(pair)  # noqa: SLF001

    vars(connection).update(
        get_component_candidates=get_component_candidates,
        _add_remote_candidate=add_remote_candidate,
        _pair_remote_candidate=pair_remote_candidate,
    )


def interfaces() -> list[tuple[str, list[str]]]:
    """Return the interfaces of this machine with the addresses that aioice uses: none that are loopback or have a scope."""
    found = []
    for adapter in ifaddr.get_adapters():
        v4 = [each.ip for each in adapter.ips if isinstance(each.ip, str) and each.ip != "127.0.0.1"]
        v6 = [
            each.ip[0] for each in adapter.ips if isinstance(each.ip, tuple) and each.ip[0] != "::1" and not each.ip[2]
        ]
        found.append((adapter.name, v4 + v6))
    return found


def restart_ice(pc: RTCPeerConnection, agent: IceGatherer, ufrag: str, password: str) -> None:
    """Continue with new credentials of the peer, and take candidates again (RFC 8445, 9).

    aioice keeps its own credentials and its selected pair until another one is nominated. Checks with the peer's earlier
    username are still answered: the data takes the earlier path meanwhile. Earlier pairs that were not checked are dropped.
    """
    assert pc.sctp is not None
    connection, transport = agent.connection, pc.sctp.transport.transport
    known = {connection.remote_username, ufrag}

    def valid_username(username: str) -> bool:
        local, _, remote = username.partition(":")
        return local == connection.local_username and remote in known

    vars(connection)["_valid_username"] = valid_username
    connection.remote_username, connection.remote_password = ufrag, password
    unchecked = (CandidatePair.State.FROZEN, CandidatePair.State.WAITING)
    for pair in [pair for pair in connection._check_list if pair.task is None and pair.state in unchecked]:  # noqa: SLF001
        connection._check_list.remove(pair)  # noqa: SLF001
    connection._remote_candidates_end = transport.iceGatherer._remote_candidates_end = False  # noqa: SLF001


def check_late_pairs(agent: IceGatherer) -> None:
    """Start the checks of pairs that came after ICE had selected one: aioice checks only until then."""
    connection = agent.connection
    if connection._check_list_done and not connection._closing:  # noqa: SLF001
        for pair in connection._check_list:  # noqa: SLF001
            if pair.state in (pair.State.FROZEN, pair.State.WAITING):
                connection.check_start_task(pair)


@dataclass
class ServerQuery:
    """Queries a server at its `addresses`, the preferred one first, for candidates.

    `on_candidate` is called for each new candidate, `on_result` once for the server.
    """

    _agent: IceGatherer
    _server: IceServer
    _addresses: Sequence[str]
    _on_candidate: Callable[[Candidate], None]
    _on_result: Callable[[IceServerResult], None]

    async def run(self) -> None:
        """Query for `SERVER_SECONDS` at most."""
        queries: list[Coroutine[Any, Any, None]] = []
        if self._server.transport == "udp":  # a TURN server over UDP answers a Binding request, too
            queries.append(self._query_reflexive())
        if self._server.is_turn:
            queries.append(self._query_relayed())
        await asyncio.gather(*queries)

    def _add(self, candidate: Candidate) -> None:
        known = self._agent.connection._local_candidates  # noqa: SLF001
        if all((each.type, each.host, each.port) != (candidate.type, candidate.host, candidate.port) for each in known):
            known.append(candidate)
            self._on_candidate(candidate)

    async def _query_reflexive(self) -> None:
        """Query a STUN server for the server-reflexive address of each host candidate (RFC 8445, 5.1.1.2)."""
        requests = []
        for protocol in self._agent.connection._protocols:  # noqa: SLF001
            family = ipaddress.ip_address(protocol.local_candidate.host).version
            host = next((each for each in self._addresses if ipaddress.ip_address(each).version == family), None)
            if protocol.local_candidate.type == "host" and host is not None:
                requests.append(asyncio.wait_for(self._bind(protocol, host), SERVER_SECONDS))
        failures = await asyncio.gather(*requests, return_exceptions=True)
        if self._server.is_turn:
            return  # its result is that of the allocation
        if None in failures:  # at least one had no failure
            self._on_result(IceServerResult(self._server, answered=True))
        else:
            no_address = "this machine has no address that can reach it"
            reason = _failure_reason(failures[0]) if failures else no_address
            self._on_result(IceServerResult(self._server, answered=False, reason=reason))

    async def _bind(self, protocol: StunProtocol, host: str) -> None:
        request = stun.Message(message_method=stun.Method.BINDING, message_class=stun.Class.REQUEST)
        response, _ = await protocol.request(request, (host, self._server.port))
        base, (address, port) = protocol.local_candidate, response.attributes["XOR-MAPPED-ADDRESS"]
        foundation = candidate_foundation("srflx", "udp", base.host)
        priority = candidate_priority(base.component, "srflx")
        self._add(Candidate(foundation, base.component, "udp", priority, address, port, "srflx", base.host, base.port))

    async def _query_relayed(self) -> None:
        """Allocate an address at a TURN server (RFC 8656, 7) and let the agent check its pairs."""
        server, connection = self._server, self._agent.connection
        # TLS verifies the name in the certificate, so it connects by name, which has just been resolved.
        host = server.host if server.scheme == "turns" else self._addresses[0]
        allocation = relayed_candidate(
            component=1,
            hide_related_address=False,
            protocol_factory=lambda: StunProtocol(connection),
            turn_server=(host, server.port),
            turn_username=server.username,
            turn_password=server.credential,
            turn_ssl=server.scheme == "turns",
            turn_transport=server.transport,
        )
        try:
            candidate, protocol = await asyncio.wait_for(allocation, SERVER_SECONDS)
        except stun.TransactionFailed as failed:
            code, reason = failed.response.attributes.get("ERROR-CODE", (0, ""))
            self._on_result(IceServerResult(server, answered=True, code=code, reason=reason))
        except Exception as error:  # noqa: BLE001  another kind of server may answer anything
            self._on_result(IceServerResult(server, answered=False, reason=_failure_reason(error)))
        else:
            # Its pairs join the check list unless that is completed (RFC 8838, 12).
            connection._protocols.append(protocol)  # noqa: SLF001
            if not connection._check_list_done:  # noqa: SLF001
                for remote in connection.remote_candidates:
                    connection._pair_remote_candidate(remote)  # noqa: SLF001
                connection.sort_check_list()
            self._add(candidate)
            self._on_result(IceServerResult(server, answered=True))


def _failure_reason(failure: object) -> str:
    if isinstance(failure, (TimeoutError, stun.TransactionTimeout)):
        return "it did not answer"
    return str(failure) or type(failure).__name__


def start_ice(pc: RTCPeerConnection) -> None:
    """Start ICE with late local candidates: aiortc starts it only when a description is set."""
    task = asyncio.ensure_future(pc._RTCPeerConnection__connect())  # type: ignore[attr-defined]  # noqa: SLF001
    task.add_done_callback(lambda done: done.cancelled() or done.exception())


# ---- state that aiortc does not report --------------------------------------------------------------------------------


def selected_pair(agent: IceGatherer) -> PathSelected | None:
    """Return the pair that carries the data, once ICE has selected one."""
    pair = agent.connection._nominated.get(1)  # noqa: SLF001
    if pair is None:
        return None
    local, remote = pair.local_candidate, pair.remote_candidate
    return PathSelected(local.type, local.host, remote.type, remote.host)


def pair_count(agent: IceGatherer) -> int:
    """Return how many pairs are in the agent's check list."""
    return len(agent.connection._check_list)  # noqa: SLF001


def consent_expired(agent: IceGatherer) -> bool:
    """Whether a connection that was up ended because the peer answered no more checks (RFC 7675)."""
    connection = agent.connection
    return bool(connection._closing) and connection._query_consent_task is None  # noqa: SLF001


# ---- without `trickle_ice` --------------------------------------------------------------------------------------------


async def answering_servers(servers: Sequence[IceServer]) -> tuple[IceServer, ...]:
    """Return the servers that answer within `PROBE_SECONDS`, in their order.

    aiortc waits for the first STUN and TURN server in its list, so a silent one must not be there. The probe is a Binding
    request over UDP (RFC 8489, 6), or a TCP connection.
    """
    answered: set[IceServer] = set()

    async def probe(server: IceServer) -> None:
        try:
            if server.transport == "tcp":
                await trio.aclose_forcefully(await trio.open_tcp_stream(server.host, server.port))
            else:
                await _probe_udp(server)
        except (OSError, UnicodeError):
            return
        answered.add(server)

    with trio.move_on_after(PROBE_SECONDS):
        async with trio.open_nursery() as nursery:
            for server in servers:
                nursery.start_soon(probe, server)
    return tuple(server for server in servers if server in answered)


async def _probe_udp(server: IceServer) -> None:
    kind = trio.socket.SOCK_DGRAM
    family, *_, address = (await trio.socket.getaddrinfo(server.host, server.port, type=kind))[0]
    with trio.socket.socket(family, kind) as socket:
        await socket.connect(address)
        transaction = secrets.token_bytes(12)
        for _ in range(_PROBE_RESENDS):
            await socket.send(_BINDING_REQUEST + transaction)
            with trio.move_on_after(PROBE_SECONDS / _PROBE_RESENDS):
                while (await socket.recv(2048))[8:20] != transaction:
                    pass
                return
        raise TimeoutError
