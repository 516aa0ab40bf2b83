"""The private corner, its half for ICE: what aioice does not offer in public, kept to versions that it fits.

aioice's `Connection.get_component_candidates` has the host candidates at once and then waits up to 5 s for the first STUN
and the first TURN server. So a connection is given no servers, and what they say comes in here, later and from all of
them: server-reflexive candidates are asked for on the host candidates' own sockets, relayed ones become local candidates
of the agent and are paired with what the peer has sent. Where the installed versions are others, `fits` says so and `rtc`
does without: see `probe`.
"""

import asyncio
import ipaddress
import re
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final

from aioice import Candidate, Connection, stun
from aioice.candidate import candidate_foundation, candidate_priority
from aioice.ice import StunProtocol, relayed_candidate
from aiortc import RTCPeerConnection

from sdpx.ice_servers import IceServer

FITTING: Final = {"aiortc": (1, 16), "aioice": (0, 13)}
SERVER_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """A server where it really is: `addresses` are what its host's name resolved to, the preferred one first."""

    server: IceServer
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ServerResult:
    """What a server said: its answer, an error `code` (RFC 8489, 14.8), or neither, and then `reason` says why."""

    server: IceServer
    answered: bool
    code: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class IceGatherer:
    """The ICE agent of one transport, and the m-line that it goes by."""

    connection: Connection
    mid: str
    index: int

    @property
    def username(self) -> str:
        """The username fragment that its candidates belong to."""
        return str(self.connection.local_username)


@dataclass(frozen=True, slots=True)
class Pair:
    """The pair of candidates that ICE selected: type and address, the peer's as far as they are known."""

    local_type: str
    local_address: str
    remote_type: str
    remote_address: str


def fits() -> bool:
    """Whether the installed aiortc and aioice are those that this corner was made for."""
    return all(_release(name) == wanted for name, wanted in FITTING.items())


def _release(name: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"[0-9]+", version(name))[:2])


# ---- candidates that come later ---------------------------------------------------------------------------------


def agents(pc: RTCPeerConnection, mids: Sequence[str]) -> list[IceGatherer]:
    """Return the agents of a connection that has a local description with these `mids`; bundled m-lines share the first."""
    by_mid = {each.mid: each.receiver.transport.transport for each in pc.getTransceivers()}
    if pc.sctp is not None:
        by_mid[pc.sctp.mid] = pc.sctp.transport.transport
    found: dict[int, IceGatherer] = {}
    for index, mid in enumerate(mids):
        if mid in by_mid:
            connection = by_mid[mid]._connection  # noqa: SLF001
            found.setdefault(id(connection), IceGatherer(connection, mid, index))
    return list(found.values())


async def ask(
    agent: IceGatherer, place: ServerAddress, found: Callable[[Candidate], None], told: Callable[[ServerResult], None]
) -> None:
    """Ask a server for candidates: `found` hears of each that is new, `told` what the server said, after 5 s at most."""

    def note(candidate: Candidate) -> None:
        known = agent.connection._local_candidates  # noqa: SLF001
        if all((each.type, each.host, each.port) != (candidate.type, candidate.host, candidate.port) for each in known):
            known.append(candidate)
            found(candidate)

    questions: list[Coroutine[Any, Any, None]] = []
    if place.server.transport == "udp":  # a TURN server over UDP answers STUN's question too
        questions.append(_reflexive(agent, place, note, told if not place.server.is_turn else lambda _: None))
    if place.server.is_turn:
        questions.append(_relayed(agent, place, note, told))
    await asyncio.gather(*questions)


async def _reflexive(
    agent: IceGatherer, place: ServerAddress, note: Callable[[Candidate], None], told: Callable[[ServerResult], None]
) -> None:
    """Ask a server for the address that each host candidate has from outside (RFC 8445, 5.1.1.2)."""

    async def ask(protocol: StunProtocol, address: str) -> bool:
        request = stun.Message(message_method=stun.Method.BINDING, message_class=stun.Class.REQUEST)
        response, _ = await protocol.request(request, (address, place.server.port))
        note(_reflexive_candidate(protocol.local_candidate, response.attributes["XOR-MAPPED-ADDRESS"]))
        return True

    asked = []
    for protocol in _host_protocols(agent):
        address = next((each for each in place.addresses if _same_family(each, protocol.local_candidate.host)), None)
        if address is not None:
            asked.append(asyncio.wait_for(ask(protocol, address), SERVER_SECONDS))
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    answered = any(outcome is True for outcome in outcomes)
    told(ServerResult(place.server, answered, reason="" if answered else _why(outcomes)))


def _why(outcomes: Sequence[object]) -> str:
    if not outcomes:
        return "no address of this machine can reach it"
    failure = outcomes[0]
    if isinstance(failure, (TimeoutError, stun.TransactionTimeout)):
        return "it was silent"
    return str(failure) or type(failure).__name__


def _host_protocols(agent: IceGatherer) -> list[StunProtocol]:
    protocols: list[StunProtocol] = agent.connection._protocols  # noqa: SLF001
    return [each for each in protocols if each.local_candidate.type == "host"]


def _same_family(one: str, other: str) -> bool:
    return ipaddress.ip_address(one).version == ipaddress.ip_address(other).version


def _reflexive_candidate(base: Candidate, mapped: tuple[str, int]) -> Candidate:
    return Candidate(
        foundation=candidate_foundation("srflx", "udp", base.host),
        component=base.component,
        transport="udp",
        priority=candidate_priority(base.component, "srflx"),
        host=mapped[0],
        port=mapped[1],
        type="srflx",
        related_address=base.host,
        related_port=base.port,
    )


async def _relayed(
    agent: IceGatherer, place: ServerAddress, note: Callable[[Candidate], None], told: Callable[[ServerResult], None]
) -> None:
    """Allocate an address at a TURN server (RFC 8656, 7) and let the agent check its pairs."""
    server = place.server
    # A certificate is for the name, so TLS dials the name; it has just been resolved.
    host = server.host if server.scheme == "turns" else place.addresses[0]
    allocation = relayed_candidate(
        component=1,
        hide_related_address=False,
        protocol_factory=lambda: StunProtocol(agent.connection),
        turn_server=(host, server.port),
        turn_username=server.username,
        turn_password=server.credential,
        turn_ssl=server.scheme == "turns",
        turn_transport=server.transport,
    )
    try:
        candidate, protocol = await asyncio.wait_for(allocation, SERVER_SECONDS)
    except (TimeoutError, stun.TransactionTimeout):
        told(ServerResult(server, answered=False, reason="it was silent"))
    except stun.TransactionFailed as failed:
        code, words = failed.response.attributes.get("ERROR-CODE", (0, ""))
        told(ServerResult(server, answered=True, code=code, reason=words))
    except Exception as error:  # noqa: BLE001  what answers there may be anything
        told(ServerResult(server, answered=False, reason=str(error) or type(error).__name__))
    else:
        _pair_late(agent.connection, protocol)
        note(candidate)
        told(ServerResult(server, answered=True))


def _pair_late(connection: Connection, protocol: StunProtocol) -> None:
    """Make a socket that came late one of the agent's, its pairs in the check list unless that is settled (RFC 8838, 12)."""
    connection._protocols.append(protocol)  # noqa: SLF001
    if not connection._check_list_done:  # noqa: SLF001
        for remote in connection.remote_candidates:
            connection._pair_remote_candidate(remote)  # noqa: SLF001
        connection.sort_check_list()


def connect(pc: RTCPeerConnection) -> None:
    """Let ICE start now that there are local candidates: aiortc looks for some only when a description is set."""
    task = asyncio.ensure_future(pc._RTCPeerConnection__connect())  # type: ignore[attr-defined]  # noqa: SLF001
    task.add_done_callback(lambda done: done.cancelled() or done.exception())


# ---- what else only they know -----------------------------------------------------------------------------------


def selected_pair(agent: IceGatherer) -> Pair | None:
    """Return the pair that carries the data, once ICE has selected one."""
    pair = agent.connection._nominated.get(1)  # noqa: SLF001
    if pair is None:
        return None
    local, remote = pair.local_candidate, pair.remote_candidate
    return Pair(local.type, f"{local.host}:{local.port}", remote.type, f"{remote.host}:{remote.port}")


def pair_count(agent: IceGatherer) -> int:
    """Return how many pairs of candidates the agent has formed and not given up as needless."""
    return len(agent.connection._check_list)  # noqa: SLF001


def consent_expired(agent: IceGatherer) -> bool:
    """Whether a connection that was up ended because the peer answered no check any more (RFC 7675)."""
    connection = agent.connection
    return bool(connection._closing) and connection._query_consent_task is None  # noqa: SLF001
