"""Why a connection failed, derived from its trace: the most likely cause, and what to do about it. Pure.

The first rule that applies decides; certain causes come before likely ones. Each cause has an `Ending` in `sdpx.errors`, and
so an exit status.
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

_NETWORKS: Final = "are both peers on networks that reach each other, or is a TURN server needed (--turn)?"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """A cause of failure; the program ends with `ending`, if it ends because of it.

    `may_pass` says whether another attempt can have another outcome.
    """

    ending: Ending
    may_pass: bool = True

    @property
    def code(self) -> str:
        """The stable code of the cause."""
        return self.ending.code

    @property
    def sentence(self) -> str:
        """The most likely cause, and what to do."""
        return self.ending.reason

    def event(self, trace: ConnectionTrace, now: float, *, retrying: bool) -> peer.Diagnosis:
        """Return the log event; `now` is in seconds since the connection was begun."""
        heard = trace.last_heard
        return peer.Diagnosis(
            code=self.code,
            peer_id=trace.peer_id,
            is_initiator=trace.is_initiator,
            retrying=retrying,
            after_ms=_ms(now),
            description_sent=trace.description_sent,
            description_received=trace.description_received,
            local_candidates=dict(trace.local_candidates),
            remote_candidates=dict(trace.remote_candidates),
            remote_mdns=trace.remote_mdns,
            silent_stun=list(trace.silent_stun),
            turn_refusals=[f"{each.url} {each.code}" for each in trace.turn_refusals],
            ice_state=trace.ice_state,
            dtls=trace.dtls_error or None,
            silent_ms=None if heard is None else _ms(now - heard),
            _sentence=self.sentence,
        )


def diagnose(trace: ConnectionTrace, now: float) -> Diagnosis:
    """Return why a connection failed; `now` is in seconds since it was begun."""
    for rule in _RULES:
        if diagnosis := rule(trace, now):
            return diagnosis
    return Diagnosis(
        NoConnection("no_connection", f"No connection to {trace.peer_id} was established within {now:.1f} s")
    )


def diagnose_departure(trace: ConnectionTrace, reason: str, *, unsent: bool = False) -> Diagnosis:
    """Return what a departure of the peer means; `reason` is the relay's, or this side's for a closed channel.

    `unsent` says that input remains which was not sent.
    """
    if trace.succeeded and unsent:
        sentence = f"The peer {trace.peer_id} closed the connection or is gone, and input was left unsent"
        return Diagnosis(ChannelLost("channel_closed", sentence))
    if trace.succeeded:
        return _closed(trace)
    if trace.gathered and (diagnosis := _no_relayed_candidate(trace, 0.0)) is not None:
        return diagnosis
    sentence = f"The peer {trace.peer_id} left before the connection was established ({reason}); request it again later"
    return Diagnosis(PairingLost("pairing_lost", sentence))


def summarize(trace: ConnectionTrace) -> peer.ConnectionSummary:
    """Return the log event for the end of a connection that was established."""
    return peer.ConnectionSummary(
        peer_id=trace.peer_id,
        is_initiator=trace.is_initiator,
        phases=trace.phases_ms(),
        local_candidate=trace.local_type,
        remote_candidate=trace.remote_type,
        bytes_sent=trace.bytes_sent,
        bytes_received=trace.bytes_received,
    )


# ---- rules ----------------------------------------------------------------------------------------------------------


def _fingerprint_mismatch(trace: ConnectionTrace, _now: float) -> Diagnosis | None:
    if not trace.fingerprint_mismatch:
        return None
    reason = (
        f"The certificate of {trace.peer_id} does not match the fingerprint in its description: the description was "
        "changed on the way, or another party answers. Do not trust this connection"
    )
    return Diagnosis(DtlsFailed("fingerprint_mismatch", reason), may_pass=False)


def _vanished(trace: ConnectionTrace, now: float) -> Diagnosis | None:
    if not trace.vanished:
        return None
    silent = "" if trace.last_heard is None else f" for {max(0.0, now - trace.last_heard):.1f} s"
    reason = (
        f"The peer {trace.peer_id} has been silent{silent}: its process, its machine or the network between is down"
    )
    return Diagnosis(ChannelLost("peer_silent", reason))


def _dtls_error(trace: ConnectionTrace, _now: float) -> Diagnosis | None:
    if not trace.dtls_error or not trace.ice_completed:  # without a network path DTLS always fails
        return None
    reason = f"The network path to {trace.peer_id} works, but the DTLS handshake failed: {trace.dtls_error}"
    return Diagnosis(DtlsFailed("dtls_failed", reason))


def _connection_closed(trace: ConnectionTrace, _now: float) -> Diagnosis | None:
    return _closed(trace) if trace.succeeded else None


def _closed(trace: ConnectionTrace) -> Diagnosis:
    reason = f"The connection to {trace.peer_id} was established, and the peer closed it, or is gone"
    return Diagnosis(ChannelLost("channel_closed", reason))


def _bad_description(trace: ConnectionTrace, _now: float) -> Diagnosis | None:
    if not trace.description_flaw or "exchange" in trace.reached_at:
        return None
    return Diagnosis(NoConnection("bad_description", f"The offer/answer exchange failed: {trace.description_flaw}"))


def _no_relayed_candidate(trace: ConnectionTrace, now: float) -> Diagnosis | None:
    if not trace.relay_only or trace.local_candidates or trace.ice_completed:
        return None
    if not trace.gathered and not trace.description_received:
        return None  # gathering goes on
    if (refused := _turn_refused(trace, now)) is not None:
        return replace(refused, may_pass=False)
    reason = (
        "Only relayed candidates are allowed (--ice-transport relay), and no TURN server provided one: give one that "
        "answers (--turn), or configure it at the relay (sdpx serve --turn-url)"
    )
    return Diagnosis(NoCommonCandidates("no_turn", reason), may_pass=False)


def _no_description(trace: ConnectionTrace, now: float) -> Diagnosis | None:
    if trace.description_received:
        return None
    if not trace.is_initiator:
        reason = (
            f"No offer from {trace.peer_id} arrived within {now:.1f} s of the pairing: it is the initiator, and its "
            "program sends none, or hangs"
        )
        return Diagnosis(NoAnswer("no_offer", reason), may_pass=False)
    cause = "although the relay forwarded the offer: its program does not answer offers, or hangs"
    if not trace.description_sent:
        cause = "because the offer was not sent: the connection to the relay is down"
    reason = f"No answer from {trace.peer_id} arrived within {now:.1f} s, {cause}"
    return Diagnosis(NoAnswer("no_answer", reason), may_pass=False)


def _no_network(trace: ConnectionTrace, _now: float) -> Diagnosis | None:
    if trace.local_candidates or trace.ice_state in ("completed", "connected"):
        return None
    reason = (
        "This machine has no network address for a candidate (loopback addresses are not used): bring up a network "
        "interface, or give a TURN server (--turn)"
    )
    return Diagnosis(NoCommonCandidates("no_network", reason), may_pass=False)


def _answer_unsent(trace: ConnectionTrace, now: float) -> Diagnosis | None:
    if trace.is_initiator or trace.description_sent or trace.ice_completed:
        return None
    reason = f"The answer to {trace.peer_id} was not sent within {now:.1f} s: the connection to the relay is down"
    return Diagnosis(NoConnection("no_connection", reason))


def _only_mdns(trace: ConnectionTrace, _now: float) -> Diagnosis | None:
    if trace.ice_completed or trace.remote_mdns < (trace.remote_candidates.total() or 1):
        return None
    reason = (
        f"All candidates of {trace.peer_id} are mDNS names (.local, as of browsers without camera permission), and none "
        "worked: they resolve within one local network only. Give both sides a STUN or TURN server"
    )
    return Diagnosis(NoCommonCandidates("only_mdns", reason), may_pass=False)


def _no_common_candidates(trace: ConnectionTrace, _now: float) -> Diagnosis | None:
    if trace.ice_completed:
        return None
    if not trace.remote_candidates:
        reason = f"{trace.peer_id} offered no candidates, so there is no address to connect to: check its network"
    elif trace.candidate_pairs == 0:
        reason = f"No candidate of {trace.peer_id} fits a local one (IPv4 or IPv6, UDP or TCP): {_NETWORKS}"
    else:
        return None
    return Diagnosis(NoCommonCandidates("no_common_candidates", reason), may_pass=False)


def _turn_refused(trace: ConnectionTrace, _now: float) -> Diagnosis | None:
    if trace.ice_completed or not trace.turn_refusals:
        return None
    first = trace.turn_refusals[0]
    wrong = first.code in (401, 441)  # RFC 8489, 14.8; RFC 8656, 15
    hint = "the user or password is wrong, or has expired" if wrong else "ask its operator"
    reason = f"No network path to {trace.peer_id} was found, and the TURN server {first.url} answered {first.code}: {hint} (--turn)"
    return Diagnosis(IceFailed("turn_refused", reason))


def _stun_silent(trace: ConnectionTrace, _now: float) -> Diagnosis | None:
    if trace.ice_completed or not trace.silent_stun or trace.local_candidates["srflx"]:
        return None
    reason = (
        f"No network path to {trace.peer_id} was found, and the STUN server {trace.silent_stun[0]} does not answer, so "
        "this side could not offer a public address: check --stun, and that the network lets UDP out"
    )
    return Diagnosis(IceFailed("stun_silent", reason))


def _ice_failed(trace: ConnectionTrace, _now: float) -> Diagnosis | None:
    if trace.ice_completed:
        return None
    pairs = "" if trace.candidate_pairs is None else f" ({trace.candidate_pairs} pairs tried)"
    reason = f"No pair of candidates worked between this side and {trace.peer_id}{pairs}: {_NETWORKS}"
    return Diagnosis(IceFailed("ice_failed", reason))


def _dtls_timeout(trace: ConnectionTrace, now: float) -> Diagnosis | None:
    if not trace.ice_completed or trace.succeeded:
        return None
    reason = (
        f"The network path to {trace.peer_id} works, but the DTLS handshake did not end within {now:.1f} s: the peer "
        "does not take part in it"
    )
    return Diagnosis(DtlsFailed("dtls_failed", reason))


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


_RULES: Final[tuple[Callable[[ConnectionTrace, float], Diagnosis | None], ...]] = (
    _fingerprint_mismatch,
    _vanished,
    _dtls_error,
    _connection_closed,
    _bad_description,
    _no_relayed_candidate,
    _no_description,
    _no_network,
    _answer_unsent,
    _only_mdns,
    _no_common_candidates,
    _turn_refused,
    _stun_silent,
    _ice_failed,
    _dtls_timeout,
)
