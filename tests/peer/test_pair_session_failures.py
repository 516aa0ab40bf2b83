"""A pairing that fails: each failure with its diagnosis, in time (tests/harness/pairing.py)."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aioice.ice
import pytest
import trio
from aiortc import RTCCertificate
from aiortc.rtcdtlstransport import RTCDtlsFingerprint, RTCDtlsTransport
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from OpenSSL import crypto

from sdpx.ice_servers import IceServer
from sdpx.peer.webrtc import aioice_ext, dtls_patch
from sdpx.protocol.messages import Candidate, CandidateInit, Description
from tests.harness.coturn import coturn
from tests.harness.pairing import NOWHERE, Frame, Side, Tamper, both_open, in_sdp, nothing, pairing, without_line


async def test_changed_fingerprint_is_diagnosed_without_a_retry() -> None:
    """The description may be intercepted again."""

    def change(frame: Frame) -> list[Frame]:
        if isinstance(frame, Description):
            at = frame.sdp.index("a=fingerprint:sha-256 ") + len("a=fingerprint:sha-256 ")
            forged = "11" if frame.sdp[at : at + 2] != "11" else "22"
            return [Description(frame.type, frame.sdp[:at] + forged + frame.sdp[at + 2 :], frame.peer_id, frame.agent)]
        return [frame]

    async with pairing(b=change) as (a, _):
        diagnosis = await a.wait_for("diagnosis")
        await a.wait_for("ended")
        assert diagnosis["code"] == "fingerprint_mismatch"
        assert a.failure is not None
        assert a.failure.code == "fingerprint_mismatch"
        assert "connection_retry" not in a.events


async def test_missing_fingerprint_is_bad_sdp() -> None:
    async with pairing(retries=0, b=without_line("a=fingerprint:")) as (a, _):
        error = await a.wait_for("negotiation_error", type="answer", code="bad_sdp")
        assert "a=fingerprint" in error["message"]
        assert (await a.reach_deadline())["code"] == "bad_description"


async def test_two_dtls_servers_fail_at_the_deadline() -> None:
    """Each waits for the first message of the other."""
    async with pairing(retries=0, b=in_sdp("a=setup:passive", "a=setup:active")) as (a, b):
        for side in (a, b):
            await side.wait_for("ice_connection_state", state="completed")
        for side in (a, b):
            diagnosis = await side.reach_deadline("exchange_complete")
            assert diagnosis["code"] == "dtls_failed"
            assert "exchange" in side.phases
            assert "connected" not in side.phases


async def test_missing_answer_is_diagnosed() -> None:
    async with pairing(b=nothing) as (a, _):
        assert (await a.reach_deadline("offer_sent"))["code"] == "no_answer"


async def test_missing_offer_is_diagnosed() -> None:
    async with pairing(a=nothing) as (_, b):
        assert (await b.reach_deadline("webrtc_started"))["code"] == "no_offer"


def only(candidate: CandidateInit, *, ends: bool) -> Tamper:
    """Offer a single candidate and nothing else."""

    def tamper(frame: Frame) -> list[Frame]:
        if isinstance(frame, Candidate):
            return []  # neither the later candidates nor their end
        lines = frame.sdp.splitlines()
        kept = [line for line in lines if not line.startswith(("a=candidate:", "a=end-of-candidates"))]
        description = Description(frame.type, "\r\n".join(kept) + "\r\n", frame.peer_id, frame.agent)
        return [description, Candidate(candidate), *[Candidate(None)] * ends]

    return tamper


HOLE = CandidateInit("candidate:1 1 udp 2122260223 192.0.2.1 9999 typ host", "0", 0)


async def test_missing_path_is_diagnosed_without_the_end_of_candidates() -> None:
    """aiortc alone stays in `connecting`."""
    async with pairing(retries=0, a=only(HOLE, ends=False), b=only(HOLE, ends=False)) as (a, b):
        for side in (a, b):
            await side.wait_for("candidate_received")
            while not (side.pairing._attempt and side.pairing._attempt.pc.pair_count):
                await trio.sleep(0.01)
        for side in (a, b):
            assert (await side.reach_deadline("exchange_complete"))["code"] == "ice_failed"
            assert side.pairing.trace.candidate_pairs


async def test_mdns_candidates_alone_are_diagnosed() -> None:
    async with pairing(retries=0, a=only(NOWHERE, ends=True), b=only(NOWHERE, ends=True)) as (a, b):
        for side in (a, b):
            await side.wait_for("candidate_received")
        for side in (a, b):
            diagnosis = await side.reach_deadline("exchange_complete")
            assert diagnosis["remote_mdns"] == 1
            assert diagnosis["code"] in ("only_mdns", "no_common_candidates")


async def test_unusable_candidates_are_diagnosed_before_the_deadline() -> None:
    """The end of candidates came, and there is no pair to check."""
    tcp = CandidateInit("candidate:1 1 tcp 1518280447 192.0.2.1 9 typ host tcptype active", "0", 0)
    async with pairing(timeout=30.0, a=only(tcp, ends=True), b=only(tcp, ends=True)) as (a, b):
        for side in (a, b):
            diagnosis = await side.wait_for("diagnosis")
            assert diagnosis["code"] == "no_common_candidates"
            assert diagnosis["after_ms"] < 20_000


class RsaCertificate(RTCCertificate):
    """The RSA certificate of GStreamer and of old stacks; as a server with the suites for it, which aiortc lacks."""

    def __init__(self) -> None:
        key = rsa.generate_private_key(65537, 2048)
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "rsa")])
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        builder = (
            builder.serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        )
        super().__init__(key, builder.sign(key, hashes.SHA256()))  # type: ignore[arg-type]


def certificate_of_peer(side: Side) -> crypto.X509:
    attempt = side.pairing._attempt
    assert attempt is not None
    sctp: Any = attempt.pc._pc.sctp
    certificate: crypto.X509 = sctp.transport._ssl.get_peer_certificate()
    return certificate


async def test_dtls_client_accepts_an_rsa_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    """aiortc by itself offers suites for ECDSA only."""
    monkeypatch.setattr(RTCCertificate, "generateCertificate", RsaCertificate)
    async with pairing() as (a, b):
        await both_open(a, b)
        assert [certificate_of_peer(side).get_pubkey().type() for side in (a, b)] == [crypto.TYPE_RSA] * 2


async def test_missing_common_cipher_suite_is_diagnosed(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the side that noticed it, and by the other one, which received the alert."""
    monkeypatch.setattr(RTCCertificate, "generateCertificate", RsaCertificate)
    monkeypatch.setattr(dtls_patch, "CIPHERS", b"ECDHE-ECDSA-AES128-GCM-SHA256")
    async with pairing() as (a, b):
        diagnoses = [await side.wait_for("diagnosis") for side in (a, b)]
        assert [each["code"] for each in diagnoses] == ["dtls_failed", "dtls_failed"]
        noticed, received = sorted((each["dtls"] for each in diagnoses), key=lambda reason: "alert" in reason)
        assert noticed == "the handshake failed: no shared cipher"
        assert "alert handshake failure" in received


async def test_once_fails_if_consent_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a heartbeat its consent expires (RFC 7675): the channel ends then, but the peer did not close it.

    Without a retry: the side that notices first must not send an offer to the other before that has noticed, too.
    """
    monkeypatch.setattr(aioice.ice, "CONSENT_INTERVAL", 0.1)
    monkeypatch.setattr(aioice.ice, "CONSENT_FAILURES", 10_000)  # however slow the machine is

    def strip(frame: Frame) -> list[Frame]:
        return [Description(frame.type, frame.sdp, frame.peer_id)] if isinstance(frame, Description) else [frame]

    async with pairing(a=strip, b=strip, once=True, retries=0) as (a, b):
        await both_open(a, b)
        monkeypatch.setattr(aioice.ice.StunProtocol, "send_stun", lambda *_: None)
        monkeypatch.setattr(aioice.ice, "CONSENT_FAILURES", 2)
        await b.wait_for("ended")
        assert b.failure is not None
        assert (await b.wait_for("diagnosis"))["code"] == "peer_silent"
        assert (await a.wait_for("diagnosis"))["code"] == "peer_silent"


class OddCertificate(RTCCertificate):
    """A certificate of X.509's version 2, which no library makes any more, and `cryptography` does not read."""

    def __init__(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        signing = crypto.PKey.from_cryptography_key(key)
        self.certificate = crypto.X509()
        self.certificate.set_version(1)
        self.certificate.set_serial_number(1)
        self.certificate.get_subject().CN = "odd"
        self.certificate.set_issuer(self.certificate.get_subject())
        self.certificate.gmtime_adj_notBefore(0)
        self.certificate.gmtime_adj_notAfter(3600)
        self.certificate.set_pubkey(signing)
        self.certificate.sign(signing, "sha256")
        super().__init__(key, self.certificate)  # type: ignore[arg-type]

    def getFingerprints(self) -> list[RTCDtlsFingerprint]:  # noqa: N802  aiortc's name
        return [RTCDtlsFingerprint("sha-256", self.certificate.digest("sha256").decode())]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_unparsable_certificate_is_accepted_by_its_fingerprint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """libdatachannel made such certificates for years; its Python bindings still do."""
    monkeypatch.setattr(RTCCertificate, "generateCertificate", OddCertificate)
    async with pairing() as (a, b):
        await both_open(a, b)
        assert [certificate_of_peer(side).get_version() for side in (a, b)] == [1, 1]


async def test_unknown_fingerprint_algorithm_is_refused_at_once() -> None:
    def weaken(frame: Frame) -> list[Frame]:
        if isinstance(frame, Description):
            sdp = re.sub("a=fingerprint:sha-[0-9]+ .*", "a=fingerprint:sha-1 " + ":".join(["00"] * 20), frame.sdp)
            return [Description(frame.type, sdp, frame.peer_id, frame.agent)]
        return [frame]

    async with pairing(b=weaken) as (a, _):
        error = await a.wait_for("negotiation_error", type="answer", code="bad_sdp")
        assert "is no fingerprint by sha-256, sha-384, sha-512" in error["message"]


async def test_exception_in_the_dtls_task_is_diagnosed(monkeypatch: pytest.MonkeyPatch) -> None:
    """aiortc alone stays in `connecting`."""

    def broken(_: RTCDtlsTransport) -> None:
        raise ValueError("a certificate from hell")

    monkeypatch.setattr(RTCDtlsTransport, "_setup_srtp", broken)
    async with pairing(timeout=30.0) as (a, b):
        for side in (a, b):
            assert (await side.wait_for("connection_state", state="failed")) is not None
        diagnosis = await a.wait_for("diagnosis")
        assert diagnosis["code"] == "dtls_failed"
        assert "certificate" in diagnosis["dtls"]
        assert diagnosis["after_ms"] < 20_000


@pytest.mark.e2e
async def test_turn_server_with_401_is_diagnosed(tmp_path: Path) -> None:
    """Without a path to the peer, the password is the most likely cause."""
    async with coturn(tmp_path) as port:
        server = IceServer("turn", "127.0.0.1", port, "udp", "ann", "wrong")
        unreachable = only(HOLE, ends=False)
        async with pairing(servers=(server,), a=unreachable, b=unreachable) as (a, _):
            failed = await a.wait_for("ice_server_failed")
            assert (failed["url"], failed["code"]) == (server.url, 401)
            diagnosis = await a.reach_deadline("exchange_complete")
            assert diagnosis["code"] == "turn_refused"
            assert diagnosis["turn_refusals"] == [f"{server.url} 401"]


async def test_a_silent_stun_server_is_the_diagnosis_without_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aioice_ext, "SERVER_SECONDS", 0.1)
    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as unread:
        await unread.bind(("127.0.0.1", 0))
        server = IceServer("stun", "127.0.0.1", unread.getsockname()[1])
        tamper = only(HOLE, ends=False)
        async with pairing(servers=(server,), a=tamper, b=tamper) as (a, _):
            assert (await a.wait_for("ice_server_failed"))["code"] is None
            diagnosis = await a.reach_deadline("exchange_complete")
            assert diagnosis["code"] == "stun_silent"
            assert diagnosis["silent_stun"] == [server.url]
