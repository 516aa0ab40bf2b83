"""Why a connection failed, derived from its trace."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from sdpx.errors import ExitStatus
from sdpx.peer.diagnostics.diagnosis import diagnose, diagnose_departure, summarize
from sdpx.peer.diagnostics.trace import ConnectionTrace, Phase, TurnRefusal

# Both descriptions are set, and both sides have candidates: the network causes all later failures.
NEGOTIATED = ConnectionTrace(
    "bob",
    is_initiator=True,
    description_sent=True,
    description_received=True,
    local_candidates=Counter(host=1),
    remote_candidates=Counter(host=2),
    candidate_pairs=2,
    ice_state="checking",
)
ICE_DONE: dict[Phase, float] = {"exchange": 0.1, "ice": 0.2}
UP: dict[Phase, float] = {"exchange": 0.1, "ice": 0.2, "connected": 0.3}
EXCHANGED: dict[Phase, float] = {"exchange": 0.1}
PHASES: list[tuple[Phase, float]] = [
    ("exchange", 0.1),
    ("ice", 0.3),
    ("connected", 0.35),
    ("channel", 0.4),
    ("message", 9.0),
]


@pytest.mark.parametrize(
    ("changed", "code", "status", "words"),
    [
        ({"description_received": False}, "no_answer", ExitStatus.NO_ANSWER, "No answer from bob arrived within 5.0 s"),
        (
            {"description_received": False, "description_sent": False},
            "no_answer",
            ExitStatus.NO_ANSWER,
            "the offer was not sent while the connection to the relay was down",
        ),
        (
            {"description_sent": False, "is_initiator": False},
            "no_connection",
            ExitStatus.NO_CONNECTION,
            "The answer to bob was not sent within 5.0 s, because the connection to the relay is down",
        ),
        (
            {"description_received": False, "is_initiator": False},
            "no_offer",
            ExitStatus.NO_ANSWER,
            "No offer from bob arrived",
        ),
        (
            {"description_flaw": "its SDP has no line 'o='"},
            "bad_description",
            ExitStatus.NO_CONNECTION,
            "no line 'o='",
        ),
        (
            {"local_candidates": Counter(), "gathered": True},
            "no_network",
            ExitStatus.NO_COMMON_CANDIDATES,
            "network interface",
        ),
        (
            {"relay_only": True, "local_candidates": Counter()},
            "no_turn",
            ExitStatus.NO_COMMON_CANDIDATES,
            "no TURN server provided one",
        ),
        (
            {
                "relay_only": True,
                "local_candidates": Counter(),
                "remote_candidates": Counter(),
                "turn_refusals": [TurnRefusal("turn:t", 401)],
            },
            "turn_refused",
            ExitStatus.ICE_FAILED,
            "have expired",
        ),
        (
            {"remote_candidates": Counter(), "candidate_pairs": 0},
            "no_common_candidates",
            ExitStatus.NO_COMMON_CANDIDATES,
            "offered no candidates",
        ),
        ({"candidate_pairs": 0}, "no_common_candidates", ExitStatus.NO_COMMON_CANDIDATES, "IPv4 or IPv6"),
        ({"remote_mdns": 2}, "only_mdns", ExitStatus.NO_COMMON_CANDIDATES, "All candidates of bob are mDNS names"),
        ({"remote_mdns": 2, "candidate_pairs": 0}, "only_mdns", ExitStatus.NO_COMMON_CANDIDATES, ".local"),
        (
            {"turn_refusals": [TurnRefusal("turn:t:3478", 401)]},
            "turn_refused",
            ExitStatus.ICE_FAILED,
            "turn:t:3478 answered 401: check user name and password (--turn, or",
        ),
        ({"turn_refusals": [TurnRefusal("turn:t", 486)]}, "turn_refused", ExitStatus.ICE_FAILED, "answered 486"),
        (
            {"silent_stun": ["stun:s:3478"]},
            "stun_silent",
            ExitStatus.ICE_FAILED,
            "STUN server stun:s:3478 does not answer",
        ),
        ({}, "ice_failed", ExitStatus.ICE_FAILED, "2 pairs tried"),
        ({"remote_mdns": 1}, "ice_failed", ExitStatus.ICE_FAILED, "No pair of candidates worked"),
        (
            {"silent_stun": ["stun:s"], "local_candidates": Counter(host=1, srflx=1)},
            "ice_failed",
            ExitStatus.ICE_FAILED,
            "No pair",
        ),
        (
            {"reached_at": ICE_DONE, "fingerprint_mismatch": True, "dtls_error": "x"},
            "fingerprint_mismatch",
            ExitStatus.DTLS_FAILED,
            "does not match the fingerprint",
        ),
        (
            {"reached_at": ICE_DONE, "dtls_error": "no shared cipher"},
            "dtls_failed",
            ExitStatus.DTLS_FAILED,
            "no shared cipher",
        ),
        ({"reached_at": ICE_DONE}, "dtls_failed", ExitStatus.DTLS_FAILED, "did not end within 5.0 s"),
        (
            {"reached_at": UP, "vanished": True, "last_received": 2.0},
            "peer_silent",
            ExitStatus.CHANNEL_LOST,
            "silent for 3.0 s",
        ),
        ({"reached_at": UP}, "channel_closed", ExitStatus.CHANNEL_LOST, "the peer closed it"),
    ],
)
def test_a_failure_has_a_code_a_status_and_a_remedy(
    changed: dict[str, Any], code: str, status: ExitStatus, words: str
) -> None:
    diagnosis = diagnose(replace(NEGOTIATED, **changed), 5.0)
    assert (diagnosis.code, diagnosis.ending.status) == (code, status)
    assert words in diagnosis.sentence


@pytest.mark.parametrize("initiator", [True, False])
def test_a_missing_turn_server_precedes_a_missing_answer(initiator: bool) -> None:
    """Without a relayed candidate after gathering, a missing answer or a departed peer is not the cause."""
    relay_only = replace(
        NEGOTIATED, is_initiator=initiator, relay_only=True, local_candidates=Counter(), description_received=False
    )
    ended = replace(relay_only, gathered=True)
    assert diagnose(relay_only, 5.0).code == ("no_answer" if initiator else "no_offer")
    assert diagnose_departure(relay_only, "left").code == "pairing_lost"
    assert diagnose(ended, 5.0).code == diagnose_departure(ended, "left").code == "no_turn"
    refused = diagnose(replace(ended, turn_refusals=[TurnRefusal("turn:t", 401)]), 5.0)
    assert (refused.code, refused.may_pass) == ("turn_refused", False)


@pytest.mark.parametrize(
    ("changed", "code"), [({"description_received": False}, "pairing_lost"), ({"reached_at": UP}, "channel_closed")]
)
def test_a_departure_loses_the_pairing_or_the_channel(changed: dict[str, Any], code: str) -> None:
    """Before the connection is established the pairing is lost, and the channel after it."""
    assert diagnose_departure(replace(NEGOTIATED, **changed), "closed").code == code


def test_a_departure_with_unsent_input_is_reported() -> None:
    diagnosis = diagnose_departure(replace(NEGOTIATED, reached_at=UP), "closed", unsent=True)
    assert (diagnosis.code, diagnosis.ending.status) == ("channel_closed", ExitStatus.CHANNEL_LOST)
    assert "input was left unsent" in diagnosis.sentence


def test_the_event_has_the_facts_of_the_trace() -> None:
    trace = replace(
        NEGOTIATED,
        remote_mdns=1,
        silent_stun=["stun:s"],
        turn_refusals=[TurnRefusal("turn:t", 401)],
        last_received=1.0,
        dtls_error="",
    )
    event = diagnose(trace, 5.0).event(trace, 5.0, retrying=True).shown()
    assert event["code"] == "turn_refused"
    assert event["retrying"] is True
    assert event["local_candidates"] == {"host": 1}
    assert event["remote_candidates"] == {"host": 2}
    assert event["remote_mdns"] == 1
    assert event["silent_stun"] == ["stun:s"]
    assert event["turn_refusals"] == ["turn:t 401"]
    assert (event["silent_ms"], event["after_ms"], event["dtls"]) == (4000.0, 5000.0, None)


def test_only_a_lost_path_may_pass() -> None:
    """After a wrong fingerprint or a missing answer another attempt is useless."""
    assert not diagnose(replace(NEGOTIATED, fingerprint_mismatch=True), 5.0).may_pass
    assert not diagnose(replace(NEGOTIATED, description_received=False), 5.0).may_pass
    assert diagnose(NEGOTIATED, 5.0).may_pass
    assert diagnose(replace(NEGOTIATED, reached_at=UP, vanished=True), 5.0).may_pass


def test_a_summary_has_phases_candidates_and_bytes() -> None:
    """Each phase has its own duration in milliseconds; the first message is not a phase."""
    trace = replace(
        NEGOTIATED,
        reached_at={},
        before={"dial": 0.01, "pairing": 0.02},
        local_candidate="host",
        remote_candidate="srflx",
        bytes_sent=7,
    )
    for phase, seconds in PHASES:
        assert trace.reach(phase, seconds)
        assert not trace.reach(phase, seconds + 1)
    summary = summarize(trace)
    assert summary.phases == {
        "dial": 10.0,
        "pairing": 20.0,
        "exchange": 100.0,
        "ice": 200.0,
        "dtls": 50.0,
        "channel": 50.0,
    }
    assert (summary.local_candidate, summary.remote_candidate) == ("host", "srflx")
    assert "host to srflx" in summary.message()
    assert "7 bytes sent" in summary.message()


def test_candidates_are_counted_by_type_and_mdns() -> None:
    """The case of an mDNS name does not matter."""
    trace = ConnectionTrace("bob", is_initiator=True)
    trace.add_remote("host", "0c2f.LOCAL")
    trace.add_remote("srflx", "192.0.2.1")
    trace.add_local("relay")
    assert trace.remote_candidates == {"host": 1, "srflx": 1}
    assert trace.remote_mdns == 1
    assert trace.local_candidates == {"relay": 1}


@given(
    received=st.booleans(),
    initiator=st.booleans(),
    pairs=st.none() | st.integers(0, 3),
    remote=st.integers(0, 3),
    local=st.integers(0, 2),
    mdns=st.integers(0, 3),
    reached=st.sampled_from([{}, EXCHANGED, ICE_DONE, UP]),
    vanished=st.booleans(),
    now=st.floats(0, 1e6),
)
def test_any_trace_has_a_diagnosis(
    received: bool,
    initiator: bool,
    pairs: int | None,
    remote: int,
    local: int,
    mdns: int,
    reached: dict[Phase, float],
    vanished: bool,
    now: float,
) -> None:
    trace = ConnectionTrace(
        "bob",
        initiator,
        description_received=received,
        candidate_pairs=pairs,
        remote_candidates=Counter(host=remote),
        local_candidates=Counter(host=local),
        remote_mdns=min(mdns, remote),
        reached_at=dict(reached),
        vanished=vanished,
    )
    diagnosis = diagnose(trace, now)
    assert diagnosis.ending.status >= ExitStatus.NO_CONNECTION
    assert "bob" in diagnosis.sentence or diagnosis.code == "no_network"
    assert diagnosis.event(trace, now, retrying=False).message() == diagnosis.sentence
