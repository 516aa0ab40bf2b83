"""The step that follows the end of a pairing, of an attempt at a connection, of a request or of the relay connection. Pure.

- A pairing with an open data channel is detached, and goes on until the channel closes, when the relay connection is lost, when
  the relay shuts down, and when the other peer loses its relay connection.
- A pairing that fails ends the program if the program needs it: with `--pair`, with `--expect` unmet, or with `--once` once
  its channel was open. Otherwise the peer is ready for the next pairing.
- With `--pair` the pairing is requested again if the relay connection was lost under it, not if the other peer left.
- A transfer that is unfinished when the other peer leaves goes on: its pairing is requested again with `--to` or the like.
- When the relay will not be dialled again, there is no next pairing: the program ends with the reason.

Each function takes the known facts and returns a value; `Session` and `PairSession` carry it out.
"""

from collections.abc import Mapping
from enum import Enum, auto
from typing import Final

from msgspec import Struct

from sdpx.errors import Ending, ExitStatus
from sdpx.peer.diagnostics.diagnosis import Diagnosis, diagnose_departure
from sdpx.peer.diagnostics.trace import ConnectionTrace
from sdpx.protocol.messages import ErrorFrame

RELAY_LOST: Final = "relay_lost"  # the relay connection ended before it answered a request
NO_REPLY: Final = "no_reply"  # the relay did not answer a request in time


# ---- pairings ---------------------------------------------------------------------------------------------------------


class SessionState(Struct, frozen=True):
    """The options and the state of the program that decide; `stopped` is set once the relay will not be dialled again."""

    pair: bool = False
    once: bool = False
    unmet: bool = False  # `--expect` has not been met yet
    stopped: Ending | None = None
    unfinished: bool = False  # a transfer has begun, and goes on over the next connection


class PairingState(Struct, frozen=True):
    """The state of a pairing. `was_open` and `is_open` are of its data channel."""

    trace: ConnectionTrace
    was_open: bool = False
    is_open: bool = False
    detached: bool = False


class Departed(Struct, frozen=True):
    """The other side left or closed the channel, for this `reason`: that of `peer_disconnected`, or `closed`.

    `unsent`: input is left that was not sent, or not confirmed. `killed`: the channel was still open after the time that a
    close takes.
    """

    reason: str
    unsent: bool = False
    killed: bool = False


class Failed(Struct, frozen=True):
    """No attempt at a connection succeeded, or the connection was lost."""

    diagnosis: Diagnosis


class Unpaired(Struct, frozen=True):
    """The local peer left."""


class Finish(Struct, frozen=True):
    """End the program: with an error, or successfully (None). `diagnosis` is for the log."""

    ending: Ending | None
    diagnosis: Diagnosis | None = None


class Ready(Struct, frozen=True):
    """Wait for the next pairing; `reason` is for the `ready` event."""

    reason: str
    diagnosis: Diagnosis | None = None


class AskAgain(Struct, frozen=True):
    """Request the pairing of `--pair` again."""

    reason: str
    diagnosis: None = None


class Detach(Struct, frozen=True):
    """Keep the pairing until its data channel closes."""


def after_relay_lost(session: SessionState, pairing: PairingState | None) -> Detach | AskAgain | Ready:
    """Return the step after the loss of the relay connection, and with it of every pairing that the relay had."""
    if pairing is not None and pairing.is_open:
        return Detach()
    return AskAgain(RELAY_LOST) if session.pair else Ready(RELAY_LOST)


def after_peer_disconnected(pairing: PairingState, reason: str) -> Detach | None:
    """Return whether a pairing outlives the relay's message that the other peer has left; None: it ends.

    On `shutdown` the relay stops, and not the peer. On every reason but `left` the peer has lost its socket; the connection
    shows whether it still runs.
    """
    if pairing.is_open and reason != "left":
        return Detach()
    return None


def declines(present: PairingState, *, same_peer: bool) -> bool:
    """Whether a new pairing is declined if the present peer, another one, still responds: the relay has lost its pairing."""
    return present.detached and present.is_open and not same_peer


def after_pairing(
    session: SessionState, pairing: PairingState, end: Departed | Failed | Unpaired
) -> Finish | AskAgain | Ready:
    """Return the step after the end of a pairing."""
    match end:
        case Departed():
            step = _after_departure(session, pairing, end)
        case Failed(diagnosis):
            step = _after_failure(session, pairing, diagnosis)
        case Unpaired():
            step = Ready("unpaired")
    if session.stopped is not None and not isinstance(step, Finish):
        return Finish(session.stopped, step.diagnosis)
    return step


def _after_departure(session: SessionState, pairing: PairingState, end: Departed) -> Finish | AskAgain | Ready:
    if session.unfinished:
        return AskAgain(end.reason) if session.pair else Ready(end.reason)
    done = session.once and pairing.was_open
    unsent = done and end.unsent
    if not (end.killed or unsent or session.unmet or not pairing.was_open):
        return Finish(None) if done else Ready(end.reason)
    diagnosis = diagnose_departure(pairing.trace, end.reason, unsent=unsent)
    if done or session.pair or session.unmet:
        return Finish(diagnosis.ending, diagnosis)
    return Ready(end.reason, diagnosis)


def _after_failure(session: SessionState, pairing: PairingState, diagnosis: Diagnosis) -> Finish | AskAgain | Ready:
    if pairing.detached and session.pair and session.stopped is None and not session.unmet:
        return AskAgain("failed")
    if session.pair or session.unmet or (session.once and pairing.was_open):
        return Finish(diagnosis.ending)
    return Ready("failed")


def after_run(doubt: Ending | None, rejected: Mapping[str, int]) -> Ending | None:
    """Return why a program that has not failed otherwise has no success: messages of its input were not delivered.

    `doubt` is of messages that were not confirmed, `rejected` the number of those that were not sent, by the code of the event.
    """
    if doubt is not None:
        return doubt
    if unsent := rejected.get("not_sent", 0):
        return Ending("not_sent", f"Messages were not sent: {unsent}", ExitStatus.CHANNEL_LOST)
    if count := sum(rejected.values()):
        reason = f"Messages of the input were rejected and not sent: {count} ({', '.join(sorted(rejected))})"
        return Ending("input_rejected", reason, ExitStatus.INPUT_REJECTED)
    return None


# ---- attempts at a connection, within a pairing -------------------------------------------------------------------------


class Step(Enum):
    """The next step within a pairing."""

    CONTINUE = auto()
    RETRY = auto()  # begin another attempt, with an offer
    AWAIT_OFFER = auto()  # close the connection and wait for the other side's offer
    AWAIT_CHANNEL = auto()  # wait a moment for another data channel
    END = auto()  # the pairing is done
    FAIL = auto()


def after_attempt(
    diagnosis: Diagnosis, *, offers: bool, awaits_offer: bool, detached: bool, retries_left: int, seconds_left: float
) -> Step:
    """Return the step after a failed attempt: another one, while that is possible, allowed and of use.

    An initiator `offers`. A receiver `awaits_offer` if the other side is an sdpx: other programs may not offer again.
    """
    is_last = retries_left <= 0 or seconds_left <= 0
    if detached or is_last or not diagnosis.may_pass or not (offers or awaits_offer):
        return Step.FAIL
    return Step.RETRY if offers else Step.AWAIT_OFFER


def after_channel_closed(pairing: PairingState, *, once: bool, unmet: bool) -> Step:
    """Return the step after the other side closed the data channel; `unmet`: `--expect` has not been met yet."""
    if pairing.trace.vanished:  # the end of the connection comes next, and says why
        return Step.CONTINUE
    if once or pairing.detached:
        return Step.END
    return Step.AWAIT_CHANNEL if unmet else Step.CONTINUE


# ---- requests, and the time for `--expect` ------------------------------------------------------------------------------


def after_refusal(refusal: ErrorFrame, *, target: str, required: bool, reconnect: bool) -> Finish | None:
    """Return the step after a refused request; None: go on. The pairing with `target` is `required` by `--pair`."""
    if refusal.code == NO_REPLY and not reconnect:
        return Finish(Ending(RELAY_LOST, refusal.message, ExitStatus.RELAY))
    if required and refusal.code not in (RELAY_LOST, NO_REPLY):
        return Finish(_pairing_refused(target, refusal))
    return None


def _pairing_refused(target: str, refusal: ErrorFrame) -> Ending:
    reason = f"The relay refused the pairing with '{target}': {refusal.message}"
    if refusal.code == "target_not_found":
        reason = f"No client '{target}' is connected: start it first, or use --wait 30"
    return Ending(refusal.code, reason, ExitStatus.PAIRING_REFUSED)


def before_any_pairing(
    within: float, *, url: str, connected: bool, target: str | None, refusal: ErrorFrame | None
) -> Ending | None:
    """Return why `--expect` was not met in time where there is no pairing; None: no reason but the time."""
    if not connected:
        return Ending(
            "relay_unreachable", f"The relay at {url} could not be reached within {within:g} s", ExitStatus.RELAY
        )
    return _pairing_refused(target, refusal) if target is not None and refusal is not None else None
