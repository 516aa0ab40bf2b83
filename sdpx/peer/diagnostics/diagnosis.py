"""Why a connection failed, from its evidence: what most likely went wrong, and what to do about it. Pure.

The first rule that applies decides; they go from what is certain to what is merely likely. Each has an `Ending` in
`sdpx.errors`, and so an exit status.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from sdpx.errors import (
    ChannelLost,
    DtlsFailed,
    Ending,
    IceFailed,
    NoAnswer,
    NoCommonCandidates,
    NoConnection,
    PairingLost,
)
from sdpx.events import peer
from sdpx.peer.diagnostics.trace import ConnectionTrace

_NETWORKS: Final = "are the two on networks that reach each other, or does one need a TURN server (--turn)?"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """`code` is stable, `sentence` is for a person; `ending` is what the program ends with, if it ends of this.

    `may_pass` tells whether another try can have another outcome.
    """

    ending: Ending
    may_pass: bool = True

    @property
    def code(self) -> str:
        """The stable word for what went wrong."""
        return self.ending.code

    @property
    def sentence(self) -> str:
        """What most likely went wrong, and what to do."""
        return self.ending.reason

    def event(self, evidence: ConnectionTrace, now: float, *, retrying: bool) -> peer.Diagnosis:
        """Return what the log tells of it; `now` is in seconds since the connection was begun."""
        heard = evidence.last_heard
        return peer.Diagnosis(
            code=self.code,
            peer_id=evidence.peer_id,
            is_initiator=evidence.is_initiator,
            retrying=retrying,
            after_ms=_ms(now),
            description_sent=evidence.description_sent,
            description_received=evidence.description_received,
            local_candidates=dict(evidence.local_candidates),
            remote_candidates=dict(evidence.remote_candidates),
            remote_mdns=evidence.remote_mdns,
            silent_stun=list(evidence.silent_stun),
            turn_refusals=[f"{each.url} {each.code}" for each in evidence.turn_refusals],
            ice_state=evidence.ice_state,
            dtls=evidence.dtls_error or None,
            silent_ms=None if heard is None else _ms(now - heard),
            _sentence=self.sentence,
        )


def diagnose(evidence: ConnectionTrace, now: float) -> Diagnosis:
    """Return why the connection failed; `now` is in seconds since it was begun."""
    for rule in _RULES:
        if diagnosis := rule(evidence, now):
            return diagnosis
    return Diagnosis(NoConnection("no_connection", f"No connection to {evidence.peer_id} came up within {now:.1f} s"))


def diagnose_departure(evidence: ConnectionTrace, reason: str, *, unsent: bool = False) -> Diagnosis:
    """Return what it means that the peer left; `reason` is the relay's word, or the side's own for a closed channel.

    `unsent` says that input was left which did not go out.
    """
    if evidence.succeeded and unsent:
        sentence = f"The other side, {evidence.peer_id}, closed the connection or is gone, and input was left unsent"
        return Diagnosis(ChannelLost("channel_closed", sentence))
    if evidence.succeeded:
        return _closed(evidence)
    if evidence.gathered and (diagnosis := _no_relayed(evidence, 0.0)) is not None:
        return diagnosis
    sentence = f"The peer {evidence.peer_id} left before there was a connection ({reason}): ask again once it is back"
    return Diagnosis(PairingLost("pairing_lost", sentence))


def summarize(evidence: ConnectionTrace) -> peer.ConnectionSummary:
    """Return what the log tells of a connection that came up, once it is over."""
    return peer.ConnectionSummary(
        peer_id=evidence.peer_id,
        is_initiator=evidence.is_initiator,
        phases=evidence.phases_ms(),
        local_candidate=evidence.local_type,
        remote_candidate=evidence.remote_type,
        bytes_sent=evidence.bytes_sent,
        bytes_received=evidence.bytes_received,
    )


Rule = Callable[[ConnectionTrace, float], Diagnosis | None]


def _fingerprint(evidence: ConnectionTrace, _now: float) -> Diagnosis | None:
    if not evidence.fingerprint_mismatch:
        return None
    reason = (
        f"The certificate of {evidence.peer_id} does not match the fingerprint in its description: the description was "
        "changed on its way, or somebody else answers. Do not trust this connection"
    )
    return Diagnosis(DtlsFailed("fingerprint_mismatch", reason), may_pass=False)


def _silence(evidence: ConnectionTrace, now: float) -> Diagnosis | None:
    if not evidence.vanished:
        return None
    silent = "" if evidence.last_heard is None else f" for {max(0.0, now - evidence.last_heard):.1f} s"
    reason = (
        f"The peer {evidence.peer_id} has been silent{silent}: its program, its host or the network between is gone"
    )
    return Diagnosis(ChannelLost("peer_silent", reason))


def _dtls(evidence: ConnectionTrace, _now: float) -> Diagnosis | None:
    if not evidence.dtls_error or not _ice_is_done(evidence):  # without a path DTLS fails too, and means nothing
        return None
    reason = (
        f"The network path to {evidence.peer_id} is there, but the DTLS handshake over it failed: {evidence.dtls_error}"
    )
    return Diagnosis(DtlsFailed("dtls_failed", reason))


def _channel(evidence: ConnectionTrace, _now: float) -> Diagnosis | None:
    return _closed(evidence) if evidence.succeeded else None


def _closed(evidence: ConnectionTrace) -> Diagnosis:
    reason = f"The connection to {evidence.peer_id} was up, and the other side closed it, or is gone"
    return Diagnosis(ChannelLost("channel_closed", reason))


def _description(evidence: ConnectionTrace, _now: float) -> Diagnosis | None:
    if not evidence.description_flaw or "exchange" in evidence.reached_at:
        return None
    return Diagnosis(NoConnection("bad_description", f"No exchange of descriptions: {evidence.description_flaw}"))


def _answer(evidence: ConnectionTrace, now: float) -> Diagnosis | None:
    if evidence.description_received:
        return None
    if evidence.is_initiator:
        cause = "although the relay passed the offer on: its program does not answer offers, or hangs"
        if not evidence.description_sent:
            cause = "because the offer was not sent: the connection to the relay is down"
        reason = f"No answer came from {evidence.peer_id} within {now:.1f} s, {cause}"
        return Diagnosis(NoAnswer("no_answer", reason), may_pass=False)
    reason = (
        f"No offer came from {evidence.peer_id} within {now:.1f} s of the pairing: its program is the "
        "initiator and sends none, or hangs"
    )
    return Diagnosis(NoAnswer("no_offer", reason), may_pass=False)


def _no_network(evidence: ConnectionTrace, _now: float) -> Diagnosis | None:
    if evidence.local_candidates or evidence.ice_state in ("completed", "connected"):
        return None
    reason = (
        "This machine has no network address to offer (loopback does not count): bring a network interface up, or give a "
        "TURN server (--turn)"
    )
    return Diagnosis(NoCommonCandidates("no_network", reason), may_pass=False)


def _no_relayed(evidence: ConnectionTrace, now: float) -> Diagnosis | None:
    if not evidence.relay_only or evidence.local_candidates or _ice_is_done(evidence):
        return None
    if not evidence.gathered and not evidence.description_received:
        return None  # there may yet be one
    if (refused := _turn(evidence, now)) is not None:
        return replace(refused, may_pass=False)
    reason = (
        "Only relayed candidates are allowed (--ice-transport relay), and no TURN server gave one: name one that answers "
        "(--turn), or let the relay do so (sdpx serve --turn-url)"
    )
    return Diagnosis(NoCommonCandidates("no_turn", reason), may_pass=False)


def _candidates(evidence: ConnectionTrace, _now: float) -> Diagnosis | None:
    if _ice_is_done(evidence):
        return None
    who = evidence.peer_id
    if not evidence.remote_candidates:
        reason = f"{who} offered no candidate at all, so there is no address to try: has its machine a network?"
    elif evidence.candidate_pairs == 0:
        reason = f"No candidate of {who} fits one of this side (IPv4 against IPv6, UDP against TCP): {_NETWORKS}"
    else:
        return None
    return Diagnosis(NoCommonCandidates("no_common_candidates", reason), may_pass=False)


def _unsent_answer(evidence: ConnectionTrace, now: float) -> Diagnosis | None:
    if evidence.is_initiator or evidence.description_sent or _ice_is_done(evidence):
        return None
    reason = f"The answer to {evidence.peer_id} was not sent within {now:.1f} s: the connection to the relay is down"
    return Diagnosis(NoConnection("no_connection", reason))


def _mdns(evidence: ConnectionTrace, _now: float) -> Diagnosis | None:
    if _ice_is_done(evidence) or evidence.remote_mdns < (evidence.remote_candidates.total() or 1):
        return None
    reason = (
        f"{evidence.peer_id} offered nothing but mDNS candidates (.local names, as browsers without a camera permission do), "
        "and none led to it: they only work within one local network. Give both sides a STUN or TURN server"
    )
    return Diagnosis(NoCommonCandidates("only_mdns", reason), may_pass=False)


def _turn(evidence: ConnectionTrace, _now: float) -> Diagnosis | None:
    if _ice_is_done(evidence) or not evidence.turn_refusals:
        return None
    first = evidence.turn_refusals[0]
    hint = "the user or password given is wrong, or has ended" if first.code in (401, 441) else "ask whoever runs it"
    reason = (
        f"No path to {evidence.peer_id} was found, and the TURN server {first.url} said {first.code}: {hint} (--turn)"
    )
    return Diagnosis(IceFailed("turn_refused", reason))


def _stun(evidence: ConnectionTrace, _now: float) -> Diagnosis | None:
    if _ice_is_done(evidence) or not evidence.silent_stun or evidence.local_candidates["srflx"]:
        return None
    reason = (
        f"No path to {evidence.peer_id} was found, and the STUN server {evidence.silent_stun[0]} is silent, so this side "
        "could offer no public address: check --stun and that UDP may leave this network"
    )
    return Diagnosis(IceFailed("stun_silent", reason))


def _ice(evidence: ConnectionTrace, _now: float) -> Diagnosis | None:
    if _ice_is_done(evidence):
        return None
    pairs = "" if evidence.candidate_pairs is None else f" ({evidence.candidate_pairs} pairs tried)"
    reason = f"No pair of candidates worked between this side and {evidence.peer_id}{pairs}: {_NETWORKS}"
    return Diagnosis(IceFailed("ice_failed", reason))


def _handshake(evidence: ConnectionTrace, now: float) -> Diagnosis | None:
    if not _ice_is_done(evidence) or evidence.succeeded:
        return None
    reason = (
        f"The network path to {evidence.peer_id} is there, but the DTLS handshake over it did not end within "
        f"{now:.1f} s: the other side does not take part in it"
    )
    return Diagnosis(DtlsFailed("dtls_failed", reason))


def _ice_is_done(evidence: ConnectionTrace) -> bool:
    return "ice" in evidence.reached_at


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


_RULES: Final[tuple[Rule, ...]] = (
    _fingerprint,
    _silence,
    _dtls,
    _channel,
    _description,
    _no_relayed,
    _answer,
    _no_network,
    _unsent_answer,
    _mdns,
    _candidates,
    _turn,
    _stun,
    _ice,
    _handshake,
)
