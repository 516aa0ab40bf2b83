"""Why a connection failed, derived from its trace: the most likely cause, and the remedy. Pure.

The first of `RULES` that applies decides; certain causes come before likely ones. `sdpx.remedies` has the exit status and the
remedy of each code.
"""

from collections.abc import Callable
from typing import Final

from msgspec import Struct

from sdpx.errors import Ending, ExitStatus
from sdpx.events import webrtc
from sdpx.peer.diagnostics.trace import ConnectionTrace
from sdpx.remedies import REMEDIES


class Diagnosis(Struct, frozen=True):
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
        """The most likely cause, and the remedy."""
        return self.ending.reason

    def event(self, trace: ConnectionTrace, now: float, *, retrying: bool) -> webrtc.Diagnosis:
        """Return the log event; `now` is in seconds since the connection was begun."""
        last_received = trace.last_received
        return webrtc.Diagnosis(
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
            silent_ms=None if last_received is None else _ms(now - last_received),
            _sentence=self.sentence,
        )


class Rule(Struct, frozen=True):
    """A cause with its code, and when it applies. `cause` is a template for the trace `t` and the values of `_values`."""

    code: str
    applies: Callable[[ConnectionTrace], object]
    cause: str


def diagnose(trace: ConnectionTrace, now: float) -> Diagnosis:
    """Return why a connection failed; `now` is in seconds since it was begun."""
    rule = next(rule for rule in RULES if rule.applies(trace))
    remedy = REMEDIES[rule.code]
    sentence = f"{rule.cause.format(t=trace, **_values(trace, now))}: {remedy.remedy}"
    may_pass = rule.code not in _PERMANENT and not _lacks_relayed(trace)
    return Diagnosis(Ending(rule.code, sentence, remedy.status), may_pass)


def diagnose_departure(trace: ConnectionTrace, reason: str, *, unsent: bool = False) -> Diagnosis:
    """Return the diagnosis of a departure of the peer; `reason` is the relay's, or this side's for a closed channel.

    `unsent` says that input remains which was not sent, or not confirmed.
    """
    if trace.succeeded and unsent:
        sentence = (
            f"The peer {trace.peer_id} closed the connection or was lost, and input was left unsent or unconfirmed"
        )
        return Diagnosis(Ending("channel_closed", sentence, ExitStatus.CHANNEL_LOST))
    if trace.succeeded:
        return diagnose(trace, 0.0)
    if trace.gathered and (_lacks_relayed(trace) or _lacks_addresses(trace)):
        return diagnose(trace, 0.0)
    sentence = f"The peer {trace.peer_id} left before the connection was established ({reason})"
    return Diagnosis(Ending("pairing_lost", f"{sentence}: {REMEDIES['pairing_lost'].remedy}", ExitStatus.PAIRING_LOST))


def diagnose_doubt(trace: ConnectionTrace, messages: int, size: int) -> Diagnosis:
    """Return the diagnosis of a pairing that ended with so many messages, and bytes, unconfirmed."""
    sentence = f"The peer {trace.peer_id} has not confirmed the last messages in time ({messages}, with {size} bytes)"
    return Diagnosis(Ending("unconfirmed", sentence, ExitStatus.CHANNEL_LOST))


def summarize(trace: ConnectionTrace) -> webrtc.ConnectionSummary:
    """Return the log event for the end of a connection that was established."""
    return webrtc.ConnectionSummary(
        peer_id=trace.peer_id,
        is_initiator=trace.is_initiator,
        phases=trace.phases_ms(),
        local_candidate=trace.local_candidate,
        remote_candidate=trace.remote_candidate,
        bytes_sent=trace.bytes_sent,
        bytes_received=trace.bytes_received,
    )


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


# ---- rules ----------------------------------------------------------------------------------------------------------


def _values(trace: ConnectionTrace, now: float) -> dict[str, object]:
    return {
        "now": now,
        "silent": "" if trace.last_received is None else f" for {max(0.0, now - trace.last_received):.1f} s",
        "pairs": "" if trace.candidate_pairs is None else f" ({trace.candidate_pairs} pairs tried)",
        "turn": trace.turn_refusals[0] if trace.turn_refusals else None,
    }


def _lacks_relayed(trace: ConnectionTrace) -> bool:
    """Whether gathering ended without a relayed candidate, and no others are allowed."""
    ended = trace.gathered or trace.description_received
    return trace.relay_only and ended and not trace.local_candidates and not trace.ice_completed


def _lacks_addresses(trace: ConnectionTrace) -> bool:
    """Whether this side has no candidate at all, and never had a path."""
    return trace.gathered and not trace.local_candidates and trace.ice_state not in ("completed", "connected")


_CLOSED: Final = "The connection to {t.peer_id} was established, and the peer closed it, or was lost"
_TURN_REFUSED: Final = "No network path to {t.peer_id} was found, and the TURN server {turn.url} answered {turn.code}"

# Another attempt has the same outcome.
_PERMANENT: Final = {
    *("fingerprint_mismatch", "no_answer", "no_offer", "no_turn", "no_network", "only_mdns", "no_common_candidates"),
    *("data_rejected", "no_channel", "receiver_overrun"),
}
RULES: Final = (
    Rule(
        "fingerprint_mismatch",
        lambda t: t.fingerprint_mismatch,
        "The certificate of {t.peer_id} does not match the fingerprint in its description",
    ),
    Rule(
        "receiver_overrun",
        lambda t: t.overrun,
        "{t.peer_id} sends faster than the output of this side is read, and cannot be held back; a message was lost, so the "
        "connection is closed",
    ),
    Rule("peer_silent", lambda t: t.vanished, "The peer {t.peer_id} has been silent{silent}"),
    Rule(
        "dtls_failed",
        lambda t: t.ice_completed and t.dtls_error,  # without a network path DTLS always fails
        "The network path to {t.peer_id} works, but the DTLS handshake failed ({t.dtls_error})",
    ),
    Rule(
        "no_channel",
        lambda t: t.lacks_channel,
        "The connection to {t.peer_id} is established, but it opened no data channel within {now:.1f} s",
    ),
    Rule("channel_closed", lambda t: t.succeeded, _CLOSED),
    Rule(
        "data_rejected",
        lambda t: t.data_rejected,
        "{t.peer_id} answered without a data channel ({t.description_flaw})",
    ),
    Rule(
        "bad_description",
        lambda t: t.description_flaw and "exchange" not in t.reached_at,
        "The offer/answer exchange failed ({t.description_flaw})",
    ),
    Rule("turn_refused", lambda t: _lacks_relayed(t) and t.turn_refusals, _TURN_REFUSED),
    Rule(
        "no_turn",
        _lacks_relayed,
        "Only relayed candidates are allowed (--ice-transport relay), and no TURN server provided one",
    ),
    Rule(
        "no_network",
        _lacks_addresses,
        "This machine has no network address for a candidate (loopback addresses are not used)",
    ),
    Rule(
        "no_answer",
        lambda t: t.is_initiator and not t.description_received and t.description_sent,
        "No answer from {t.peer_id} arrived within {now:.1f} s, although the relay forwarded the offer",
    ),
    Rule(
        "no_answer",
        lambda t: t.is_initiator and not t.description_received,
        "No answer from {t.peer_id} arrived within {now:.1f} s, because the offer was not sent while the connection to the "
        "relay was down",
    ),
    Rule(
        "no_offer",
        lambda t: not t.description_received,
        "No offer from {t.peer_id} arrived within {now:.1f} s of the pairing, although it is the initiator",
    ),
    Rule(
        "dtls_failed",
        lambda t: t.ice_completed,
        "The network path to {t.peer_id} works, but the DTLS handshake did not end within {now:.1f} s",
    ),
    Rule(
        "no_connection",
        lambda t: not t.is_initiator and not t.description_sent,
        "The answer to {t.peer_id} was not sent within {now:.1f} s, because the connection to the relay is down",
    ),
    Rule(
        "only_mdns",
        lambda t: t.remote_candidates and t.remote_mdns >= t.remote_candidates.total(),
        "All candidates of {t.peer_id} are mDNS names (.local, as of browsers without camera permission), which resolve within "
        "one local network only, and none worked",
    ),
    Rule(
        "no_common_candidates",
        lambda t: not t.remote_candidates,
        "{t.peer_id} offered no candidates, so there is no address to connect to",
    ),
    Rule(
        "no_common_candidates",
        lambda t: t.candidate_pairs == 0,
        "No candidate of {t.peer_id} fits a local one (IPv4 or IPv6, UDP or TCP)",
    ),
    Rule("turn_refused", lambda t: t.turn_refusals, _TURN_REFUSED),
    Rule(
        "stun_silent",
        lambda t: t.silent_stun and not t.local_candidates["srflx"],
        "No network path to {t.peer_id} was found, and the STUN server {t.silent_stun[0]} does not answer, so this side could "
        "not offer a public address",
    ),
    Rule("ice_failed", lambda _: True, "No pair of candidates worked between this side and {t.peer_id}{pairs}"),
)
