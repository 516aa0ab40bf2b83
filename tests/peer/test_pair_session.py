"""A pairing: negotiation, candidates, messages and its ends, with real RTCPeerConnections (tests/harness/pairing.py)."""

import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from sdpx.ice_servers import IceServer, choose, parse_server
from sdpx.peer import pair_session
from sdpx.peer.negotiation.confirmation import WINDOW, Message
from sdpx.peer.negotiation.sdp import has_end_of_candidates
from sdpx.peer.webrtc import aioice_ext, versions
from sdpx.peer.webrtc.peer_connection import PeerConnection
from sdpx.protocol.messages import Candidate, CandidateInit, Description
from tests.harness.pairing import NOWHERE, Frame, Side, Tamper, both_open, nothing, pairing
from tests.harness.stun import stun_server


async def test_two_peers_connect_and_log_a_summary() -> None:
    """Each phase is reached once, in order; the summary has the types of the selected candidates."""
    async with pairing() as (a, b):
        await both_open(a, b)
        assert a.phases == b.phases == ["exchange", "ice", "connected", "channel"]
        for side in (a, b):
            side.pairing._scope.cancel()
            summary = await side.wait_for("connection_summary")
            assert list(summary["phases"]) == ["dial", "exchange", "ice", "dtls", "channel"]
            assert summary["local_candidate"] == "host"
            assert summary["remote_candidate"] in ("host", "prflx")
            assert side.events.index("connection_summary") < side.events.index("closing")


async def test_frames_have_peer_id_and_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every frame has `peer_id`, and offer and answer have `agent`; the end of candidates is the last frame."""
    monkeypatch.setattr(aioice_ext, "SERVER_SECONDS", 0.1)
    async with pairing(servers=(IceServer("stun", "127.0.0.1", 9),)) as (a, b):
        for side, target in ((a, "bob"), (b, "alice")):
            await side.wait_for("candidate_sent", end_of_candidates=True)
            assert {frame.peer_id for frame in side.sent} == {target}
            first = side.sent[0]
            assert isinstance(first, Description)
            assert str(first.agent).startswith("sdpx/")
            assert side.sent[-1] == Candidate(CandidateInit("", "0", 0), peer_id=target)  # W3C WebRTC, 4.4.2


async def test_without_servers_only_the_description_is_sent() -> None:
    """The description contains the end of candidates."""
    async with pairing() as (a, b):
        await both_open(a, b)
        for side in (a, b):
            (description,) = side.sent
            assert isinstance(description, Description)
            assert has_end_of_candidates(description.sdp)


async def test_a_description_is_logged_as_sent_when_it_is_written() -> None:
    """While the relay is away nothing is logged as sent, and the receiver's exchange is not complete."""
    async with pairing() as (a, b):
        b.unwritten = []
        await b.wait_for("answer_created")
        await wait_all_tasks_blocked(0.05)
        assert a.events.index("offer_created") < a.events.index("offer_sent")
        assert not {"answer_sent", "exchange_complete"} & set(b.events)
        assert (b.phases, b.pairing.trace.description_sent) == ([], False)
        (on_written,) = b.unwritten
        on_written()
        assert b.events[-2:] == ["answer_sent", "exchange_complete"]
        assert (b.phases, b.pairing.trace.description_sent) == (["exchange"], True)


async def test_a_candidate_is_logged_as_sent_when_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aioice_ext, "SERVER_SECONDS", 0.1)
    async with pairing(servers=(IceServer("stun", "127.0.0.1", 9),)) as (a, _):
        a.unwritten = []
        await a.wait_for("ice_server_failed")
        while len(a.sent) < 2:
            await trio.sleep(0.01)
        assert not {"offer_sent", "candidate_sent"} & set(a.events)
        for on_written in a.unwritten:
            on_written()
        assert [event for event in a.events if event.endswith("_sent")] == [
            "offer_sent",
            "candidate_sent",
        ]


@pytest.mark.parametrize("relay_only", [(True, False), (False, True)])
async def test_relay_only_without_a_relayed_candidate_fails_at_once(relay_only: tuple[bool, bool]) -> None:
    """In either role the diagnosis waits neither for the other side nor for the timeout."""
    async with pairing(relay_only=relay_only, servers=(IceServer("stun", "127.0.0.1", 9),)) as sides:
        side = sides[relay_only.index(True)]
        diagnosis = await side.wait_for("diagnosis")
        assert (diagnosis["code"], diagnosis["retrying"]) == ("no_turn", False)
        await side.wait_for("ended")
        assert side.failure is not None


def dtls_role(side: Side) -> str:
    assert side.pairing._attempt is not None
    sctp = side.pairing._attempt.pc._pc.sctp
    assert sctp is not None
    return sctp.transport._role


async def test_answerer_is_the_dtls_server() -> None:
    async with pairing() as (a, b):
        await both_open(a, b)
        answer = b.sent[0]
        assert isinstance(answer, Description)
        assert "a=setup:passive" in answer.sdp
        assert [dtls_role(side) for side in (a, b)] == ["client", "server"]


async def test_messages_go_over_the_channel_with_their_label() -> None:
    """Either side opens the second channel; both use both, in either direction."""
    async with pairing() as (a, b):
        await both_open(a, b)
        for opener, other in ((a, b), (b, a)):
            assert opener.pairing._attempt is not None
            create = partial(opener.pairing._attempt.pc.channels.create, f"of {opener.pairing.peer_id}")
            await opener.pairing._runtime.run_and_wait(create)
            label = (await other.wait_for("channel_open", label=f"of {opener.pairing.peer_id}"))["label"]
            for sender, receiver in ((a, b), (b, a)):
                sender.source.put(Message(f"{label} by label", label))
                sender.source.put(Message(f"{label} by default"))
                assert (await receiver.wait_for("channel_message", text=f"{label} by label"))["channel"] == label
                assert "channel" not in await receiver.wait_for("channel_message", text=f"{label} by default")


async def test_both_sides_create_a_negotiated_channel() -> None:
    """Without a message of DCEP; the channel has the stream identifier of the option."""
    async with pairing(channel="negotiated:7", once=True) as (a, b):
        for side in (a, b):
            assert (await side.wait_for("channel_open"))["id"] == 7
        for sender, receiver in ((b, a), (a, b)):
            sender.source.put(Message(f"to {sender.pairing.peer_id}"))
            await receiver.wait_for("channel_message", text=f"to {sender.pairing.peer_id}")
        a.source.end()
        await a.wait_for("ended")
        assert (a.failure, a.pairing.delivery.in_doubt) == (None, (0, 0))
        assert [line["label"] for line in b.of("channel_open")] == [line["label"] for line in b.of("channel_closed")]


@pytest.mark.parametrize("address", ["224.0.0.251", "255.255.255.255", "240.0.0.1", "[ff02::1]"])
async def test_servers_of_the_relay_on_group_addresses_are_not_asked(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Multicast, broadcast and reserved addresses get no packet; the connection is established without them."""

    async def query(*_: object) -> None:
        pytest.fail("a server on a group address was asked")

    monkeypatch.setattr(aioice_ext.ServerQuery, "run", query)
    urls = [f"stun:{address}:3478", f"turn:{address}:3478"]
    offered = [{"urls": urls, "username": "u", "credential": "p"}]
    async with pairing(servers=choose(None, offered, no_stun=False)) as (a, b):
        await both_open(a, b)
        for side in (a, b):
            await side.wait_for("candidate_sent", end_of_candidates=True)
            reasons = [line["message"] for line in side.of("ice_server_failed")]
            assert len(reasons) == 2
            assert all("multicast, broadcast or reserved" in reason for reason in reasons)


async def test_a_silent_stun_server_delays_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """The channel opens while the server is silent, and no end of candidates is sent before its answer."""
    monkeypatch.setattr(aioice_ext, "SERVER_SECONDS", 3600.0)
    answers = threading.Event()
    with stun_server(answers) as url:
        async with pairing(servers=(parse_server(url),)) as (a, b):
            await both_open(a, b)
            for side in (a, b):
                assert "candidate_sent" not in side.events
                description = side.sent[0]
                assert isinstance(description, Description)
                assert "a=end-of-candidates" not in description.sdp
                assert "a=ice-options:trickle" in description.sdp
            answers.set()
            for side in (a, b):
                await side.wait_for("candidate_sent", end_of_candidates=True)


async def test_a_pair_connects_with_untested_library_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the private parts there is no trickle ICE and no diagnosis of DTLS; the rest works."""
    monkeypatch.setattr(versions, "TESTED", {"aiortc": (0, 0), "aioice": (0, 0)})
    async with pairing(servers=(IceServer("stun", "127.0.0.1", 9),)) as (a, b):
        await both_open(a, b)
        for side in (a, b):
            assert "candidate_sent" not in side.events
            assert has_end_of_candidates(side.sent[0].sdp)  # type: ignore[union-attr]
            assert side.pairing.trace.candidate_pairs is None


async def test_sender_waits_while_its_messages_are_not_written() -> None:
    """A receiver with an output that is not read holds the sender back; nothing is lost, and all is confirmed in the end."""
    async with pairing(once=True) as (a, b):
        b.on_written = None
        await both_open(a, b)
        messages = [f"{number} " + "x" * 60_000 for number in range(30)]
        for message in messages:
            a.source.put(Message(message))
        a.source.end()
        held = WINDOW // 60_000 + 1
        while b.program_log.undelivered < held:
            await b.changed.wait()
        await trio.sleep(0.3)
        assert a.pairing.delivery.in_doubt[0] == b.program_log.undelivered == held
        b.on_written = b.program_log.note_written
        b.on_written(held)
        await a.wait_for("ended")
        assert (a.failure, a.pairing.delivery.in_doubt) == (None, (0, 0))
        assert [line["text"] for line in b.of("channel_message")] == messages


async def test_unconfirmed_messages_are_a_failure_after_the_timeout() -> None:
    async with pairing(once=True) as (a, b):
        b.on_written = None
        await both_open(a, b)
        a.pairing._options = replace(a.pairing._options, timeout=0.5)
        a.source.put(Message("x" * 1000))
        a.source.end()
        event = await a.wait_for("messages_unconfirmed")
        await a.wait_for("ended")
        assert (event["messages"], event["bytes"]) == (1, 1000)
        assert a.failure is not None
        assert (a.failure.code, a.failure.ending.status) == ("unconfirmed", 12)


def silence(pc: PeerConnection) -> None:
    """Let nothing leave any more, the end of the connection included."""

    async def drop(*_: object) -> None: ...

    sctp: Any = pc._pc.sctp
    sctp.path = None
    vars(sctp.transport).update(_send_data=drop, _write_ssl=drop)


async def test_messages_in_a_lost_connection_are_sent_again_once() -> None:
    """The next connection begins with the messages that the receiver did not get, and repeats nothing."""
    async with pairing(once=True, retries=3) as (a, b):
        await both_open(a, b)
        texts = [f"{number} " + "x" * 20_000 for number in range(60)]
        for text in texts:
            a.source.put(Message(text))
        await b.wait_for("channel_message")
        first = a.pairing._attempt
        assert first is not None
        silence(first.pc)
        first.trace.vanished = True  # as if the heartbeat had been missing
        a.pairing._post.send_nowait(first)
        await a.wait_for("connection_retry")
        a.source.end()
        await a.wait_for("ended")
        assert a.failure is None
        assert [line["text"] for line in b.of("channel_message")] == texts


async def test_acknowledgement_of_sctp_is_enough_where_the_peer_confirms_nothing() -> None:
    """Another stack, or an sdpx without counts in its heartbeats; nothing of it is written yet."""

    def strip(frame: Frame) -> list[Frame]:
        return [Description(frame.type, frame.sdp, frame.peer_id)] if isinstance(frame, Description) else [frame]

    async with pairing(a=strip, b=strip, once=True) as (a, b):
        b.on_written = None
        await both_open(a, b)
        for number in range(30):
            a.source.put(Message(f"{number} " + "x" * 20_000))
        a.source.end()
        await a.wait_for("ended")
        assert (a.failure, a.pairing.delivery.in_doubt) == (None, (0, 0))
        await b.wait_for("ended")
        assert len(b.of("channel_message")) == 30


async def test_two_sdpx_have_a_heartbeat() -> None:
    """Its channel is negotiated out of band: another stack never sees it."""
    async with pairing() as (a, b):
        await both_open(a, b)
        assert all(each.pairing._attempt and each.pairing._attempt.transport.has_heartbeat for each in (a, b))
        assert a.events.count("channel_open") == b.events.count("channel_open") == 1


@pytest.mark.parametrize("agent", [msgspec.UNSET, "", "other/1", "Sdpx"])
async def test_other_agents_have_no_heartbeat(agent: Any) -> None:
    def strip(frame: Frame) -> list[Frame]:
        return [Description(frame.type, frame.sdp, frame.peer_id, agent)] if isinstance(frame, Description) else [frame]

    async with pairing(b=strip) as (a, b):
        await both_open(a, b)
        assert a.pairing._attempt is not None
        assert not a.pairing._attempt.transport.has_heartbeat


def early(*candidates: CandidateInit | None) -> Tamper:
    """Send candidates in front of the description."""

    def tamper(frame: Frame) -> list[Frame]:
        if isinstance(frame, Description):
            return [*(Candidate(each) for each in candidates), frame]
        return [frame]

    return tamper


def trickled(change: Callable[[CandidateInit], CandidateInit], *, end_first: bool = False) -> Tamper:
    """Take the candidates out of the description and send them behind it, changed."""

    def tamper(frame: Frame) -> list[Frame]:
        if isinstance(frame, Candidate):
            return [frame]
        lines = frame.sdp.splitlines()
        found = [CandidateInit(line[2:], "0", 0) for line in lines if line.startswith("a=candidate:")]
        kept = [line for line in lines if not line.startswith(("a=candidate:", "a=end-of-candidates"))]
        description = Description(frame.type, "\r\n".join(kept) + "\r\n", frame.peer_id, frame.agent)
        end = [Candidate(None)] if end_first else []
        return [*end, description, *end, *(Candidate(change(each)) for each in found)]

    return tamper


@pytest.mark.parametrize(
    "tamper",
    [
        early(None),
        early(CandidateInit("")),
        early(NOWHERE, NOWHERE, None),
        trickled(lambda each: each),
        trickled(lambda each: each, end_first=True),
        trickled(lambda each: CandidateInit(each.candidate, sdpMid="0")),
        trickled(lambda each: CandidateInit(each.candidate, sdpMLineIndex=0)),
        trickled(lambda each: CandidateInit(each.candidate)),
        trickled(lambda each: CandidateInit(f"a={each.candidate}\r\n", "0", 0)),
        trickled(lambda each: CandidateInit(each.candidate.removeprefix("candidate:"), "0", 0)),
    ],
)
async def test_channel_opens_in_whatever_form_candidates_come(tamper: Tamper) -> None:
    """Before the description, after the end of candidates, with half of their keys, with unknown names."""
    async with pairing(a=tamper, b=tamper) as (a, b):
        await both_open(a, b)
        assert "negotiation_error" not in a.events + b.events


@pytest.mark.parametrize(
    "bad",
    [
        CandidateInit("garbage", "0", 0),
        CandidateInit("candidate:1 1 udp 1 a.example 9 typ host", "0", 0),
        CandidateInit("candidate:1 1 udp 1 192.0.2.1 9 typ host", "nowhere"),
        CandidateInit("candidate:1 1 udp 1 192.0.2.1 9 typ host", None, 7),
        CandidateInit("candidate:1 1 udp 1 192.0.2.1 9 typ host", "0", 0, "stale"),
    ],
)
async def test_bad_candidate_is_an_error_and_the_channel_opens(bad: CandidateInit) -> None:
    async with pairing(a=early(bad), b=early(bad)) as (a, b):
        await both_open(a, b)
        for side in (a, b):
            error = await side.wait_for("negotiation_error")
            assert (error["type"], error["code"]) == ("candidate", "bad_candidate")


# The result of createOffer if nothing was added to the RTCPeerConnection.
WITHOUT_MEDIA = "v=0\r\no=- 3 3 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE\r\na=msid-semantic:WMS *\r\n"


async def test_an_offer_without_media_is_answered_and_has_no_deadline() -> None:
    """A client that follows the original design to the letter: ICE never starts, and that is no failure."""

    def replace(frame: Frame) -> list[Frame]:
        return [Description("offer", WITHOUT_MEDIA)] if isinstance(frame, Description) else []

    async with pairing(a=replace, b=nothing) as (_, b):
        await b.wait_for("exchange_complete")
        (answer,) = b.sent
        assert isinstance(answer, Description)
        assert "m=" not in answer.sdp
        attempt = b.pairing._attempt
        assert attempt is not None
        attempt._deadline = trio.current_time()
        await attempt._watch_deadline()
        await wait_all_tasks_blocked(0.05)
        assert "negotiation_error" not in b.events
        assert "ended" not in b.events


async def test_bad_descriptions_leave_the_pairing_usable() -> None:
    """Each is an event, and a good offer behind them connects."""
    bad: list[Frame] = [
        Description("offer", sdp) for sdp in ("", "garbage", "v=0\r\no=-\r\ns=-\r\nt=0 0\r\nm=application\r\n")
    ]

    def precede(frame: Frame) -> list[Frame]:
        return [*bad, Description("answer", "v=0"), frame] if isinstance(frame, Description) else [frame]

    async with pairing(a=precede) as (a, b):
        await both_open(a, b)
        errors = [(line["type"], line["code"]) for line in b.of("negotiation_error")]
        assert errors == [("offer", "bad_sdp")] * 3 + [("answer", "wrong_state")]


async def test_a_connection_closed_before_the_message_fails_the_expectation(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other side closes the whole connection, and offers no other in time."""
    monkeypatch.setattr(pair_session, "RETURN_SECONDS", 0.2)
    async with pairing(expect="message") as (a, b):
        await both_open(a, b)
        a.pairing._scope.cancel()
        assert (await b.wait_for("diagnosis"))["code"] == "channel_closed"
        await b.wait_for("ended")
        assert b.failure is not None
