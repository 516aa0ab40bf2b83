"""TLS: certificates, and connections to a port with TLS."""

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio
import trustme
from cryptography.hazmat.primitives import serialization
from trio.testing import MockClock

from sdpx.relay.auth.files import BadFile
from sdpx.relay.auth.options import AuthOptions
from sdpx.relay.auth.tls import load_context
from sdpx.relay.core.limits import Limits
from sdpx.relay.websocket.tls_stream import TlsStream
from tests.harness.auth_relay import AuthRelayHarness, auth_relay
from tests.harness.credentials import KEYS, secret_file, token, write
from tests.harness.frames import upgrade_request
from tests.harness.relay import RawClient
from tests.harness.tls import CA, trusting_context

CERT = CA.issue_cert("relay.test")
OTHER = CA.issue_cert("relay.test")
NOW = datetime.now(UTC).timestamp()


def chain(cert: trustme.LeafCert = CERT) -> bytes:
    return b"".join(blob.bytes() for blob in cert.cert_chain_pems)


def key(cert: trustme.LeafCert = CERT) -> bytes:
    return cert.private_key_pem.bytes()


def rsa_key() -> bytes:
    return KEYS["RS256"].private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def encrypted_key() -> bytes:
    return KEYS["ES256"].private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"passphrase"),
    )


def invalid_version(pem: bytes) -> bytes:
    """Return the certificate with a version that does not exist (RFC 5280, 4.1.2.1)."""
    der = bytearray(ssl.PEM_cert_to_DER_cert(pem.decode().partition("-----END")[0] + "-----END CERTIFICATE-----"))
    der[der.index(b"\xa0\x03\x02\x01") + 4] = 28
    return ssl.DER_cert_to_PEM_cert(bytes(der)).encode()


def valid_between(begins: int, ends: int) -> Callable[[], trustme.LeafCert]:
    """Return a factory of a certificate that is valid between these days from now."""
    day, now = timedelta(days=1), datetime.now(UTC)
    return lambda: CA.issue_cert("relay.test", not_before=now + begins * day, not_after=now + ends * day)


def files(tmp_path: Path, cert: bytes, private: bytes) -> tuple[Path, Path]:
    return write(tmp_path / "cert.pem", cert), write(tmp_path / "key.pem", private)


def test_context_requires_tls_1_2(tmp_path: Path) -> None:
    context = load_context(*files(tmp_path, chain(), key()), NOW)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize(
    ("cert", "private", "word"),
    [
        (chain(), key(OTHER), "does not belong to the certificate"),
        (chain(), rsa_key(), "does not belong to the certificate"),
        (b"", key(), "contains no PEM certificate"),
        (key(), key(), "contains no PEM certificate"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", key(), "contains no PEM certificate"),
        (invalid_version(chain()), key(), "contains no PEM certificate"),
        (chain(), b"", "contains no PEM private key"),
        (chain(), chain(), "contains no PEM private key"),
        (chain(), b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "cannot be used"),
        (chain(), encrypted_key(), "is encrypted"),
        (chain(valid_between(-10, -1)()), key(), "that expired on"),
        (chain(valid_between(1, 10)()), key(), "not valid before"),
    ],
)
def test_unusable_certificate_or_key_is_named(tmp_path: Path, cert: bytes, private: bytes, word: str) -> None:
    with pytest.raises(BadFile, match=word) as caught:
        load_context(*files(tmp_path, cert, private), NOW)
    assert "-----BEGIN" not in str(caught.value).replace("('-----BEGIN", "")
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("missing", [0, 1])
def test_missing_file_is_named(tmp_path: Path, missing: int) -> None:
    both = files(tmp_path, chain(), key())
    both[missing].unlink()
    with pytest.raises(BadFile, match="No such file"):
        load_context(*both, NOW)


# ---- connections --------------------------------------------------------------------------------------------------


@asynccontextmanager
async def tls_relay(
    tmp_path: Path, limits: Limits | None = None, secret: Path | None = None
) -> AsyncIterator[AuthRelayHarness]:
    cert, private = files(tmp_path, chain(), key())
    options = AuthOptions(tls_cert=str(cert), tls_key=str(private), auth_secret_file=str(secret) if secret else None)
    async with auth_relay(options, limits, now=NOW) as relay:
        yield relay


def tls_context(relay: AuthRelayHarness) -> ssl.SSLContext:
    assert relay.credentials.tls is not None
    return relay.credentials.tls


def dial(relay: AuthRelayHarness, room: int | None = None) -> trio.abc.Stream:
    """Open a TCP connection to a port with TLS."""
    client, server = relay.socket_pair(room)
    relay.serve(TlsStream(server, tls_context(relay)))
    return client


def client_context(version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    context = trusting_context()
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.maximum_version = version
    return context


def over_tls(stream: trio.abc.Stream, context: ssl.SSLContext | None = None) -> "trio.SSLStream[trio.abc.Stream]":
    return trio.SSLStream(stream, context or client_context(), server_hostname="relay.test", https_compatible=True)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_websocket_over_tls_is_paired_with_one_without(
    tmp_path: Path, autojump_clock: MockClock, version: ssl.TLSVersion
) -> None:
    async with tls_relay(tmp_path) as relay:
        a = RawClient(over_tls(dial(relay), client_context(version)))
        assert await a.open("/?id=a") == {"type": "your_id", "id": "a"}
        b = await relay.client("/?id=b")  # without TLS, as behind a proxy that terminates it
        await b.pair(a)
        await b.send(type="offer", sdp="v=0" + "x" * 60_000)
        assert len((await a.receive())["sdp"]) == 60_003
        relay.acceptor.stop()
        assert await a.close_code() == 1001
        assert [record["remote"] for record in relay.log.of("client_connected")] == ["client:0"] * 2


async def test_old_tls_version_is_refused(tmp_path: Path, autojump_clock: MockClock) -> None:
    """The event names the reason."""
    context = client_context()
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    async with tls_relay(tmp_path) as relay:
        with pytest.raises(trio.BrokenResourceError):
            await over_tls(dial(relay), context).do_handshake()
        await trio.sleep(1)
        [line] = relay.log.of("tls_handshake_failed")
        assert line["reason"] == "UNSUPPORTED_PROTOCOL"


async def test_client_that_refuses_the_certificate_does_not_connect(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with tls_relay(tmp_path) as relay:
        with pytest.raises(trio.BrokenResourceError):
            await over_tls(dial(relay), ssl.create_default_context()).do_handshake()
        await trio.sleep(1)
        assert not relay.log.of("client_connected")


@pytest.mark.parametrize("start", [upgrade_request(), b"GET / HTTP/1.1\r\n\r\n", b"hello\r\n"])
async def test_plain_request_to_a_tls_port_gets_an_error_only(
    tmp_path: Path, autojump_clock: MockClock, start: bytes
) -> None:
    async with tls_relay(tmp_path) as relay:
        client = RawClient(dial(relay))
        await client.send(start)
        status, _, body = await client.response()
        assert status == 400
        assert b"wss://" in body
        assert relay.log.of("connection_refused")[0]["status"] == 400
        await client.send(upgrade_request())
        assert await client.rest() == b""
        assert not relay.log.of("client_connected")


async def test_pages_and_refusals_are_sent_over_tls(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with tls_relay(tmp_path, secret=secret_file(tmp_path)) as relay:
        for target, expected in (("/healthz", 200), ("/", 426)):
            client = RawClient(over_tls(dial(relay)))
            await client.send(f"GET {target} HTTP/1.1\r\nHost: relay.test\r\n\r\n".encode())
            assert (await client.response())[0] == expected
        client = RawClient(over_tls(dial(relay)))
        await client.send(upgrade_request())
        assert (await client.response())[0] == 401
        client = RawClient(over_tls(dial(relay)))
        assert (await client.open(f"/?token={token(sub='bob')}"))["id"] == "bob"


@pytest.mark.parametrize("start", [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01"])
async def test_tls_handshake_has_the_handshake_timeout(tmp_path: Path, autojump_clock: MockClock, start: bytes) -> None:
    async with tls_relay(tmp_path, Limits(handshake_timeout=3)) as relay:
        client = RawClient(dial(relay))
        if start:
            await client.send(start)
        began = trio.current_time()
        await client.rest()
        assert trio.current_time() - began == pytest.approx(3, abs=1.5)
        assert relay.log.of("connection_refused")[0]["reason"] == "no_request"


async def test_pending_tls_handshakes_are_bounded(tmp_path: Path, autojump_clock: MockClock) -> None:
    """The relay closes the oldest."""
    async with tls_relay(tmp_path, Limits(pending=3)) as relay:
        silent = [RawClient(dial(relay)) for _ in range(3)]
        await trio.sleep(0.1)
        assert (await RawClient(over_tls(dial(relay))).open())["type"] == "your_id"
        assert await silent[0].rest() == b""
        assert relay.log.of("connection_refused")[0]["reason"] == "too_many_connections"


async def test_invalid_handshake_is_refused(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with tls_relay(tmp_path) as relay:
        client = RawClient(dial(relay))
        await client.send(b"\x16" + bytes(200))
        await client.rest()
        assert len(relay.log.of("tls_handshake_failed")) == 1
        assert not relay.log.of("internal_error")


async def test_client_that_stops_reading_over_tls_is_disconnected(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Its peer gets `peer_disconnected`; TLS does not prolong the close."""
    cert, private = files(tmp_path, chain(), key())
    options = AuthOptions(tls_cert=str(cert), tls_key=str(private))
    async with auth_relay(options, Limits(send_queue_frames=20), now=NOW) as relay:
        a = RawClient(over_tls(dial(relay, 20_000)))
        await a.open("/?id=a")
        b = await relay.client("/?id=b")
        await b.send(type="pair_request", target_id="a")
        assert (await b.receive())["type"] == "paired"
        for _ in range(40):
            await b.send(type="offer", sdp="x" * 5000)
        while (found := await b.receive())["type"] == "error":
            pass
        assert (found["type"], found["reason"]) == ("peer_disconnected", "slow")
        await trio.sleep(10)
        assert relay.relay.clients == 1


async def test_unexpected_error_of_a_reload_keeps_the_old_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is logged."""

    def fail(*_: object) -> None:
        raise RuntimeError("unexpected")

    async with tls_relay(tmp_path) as relay:
        monkeypatch.setattr("sdpx.relay.auth.tls.load_context", fail)
        await relay.credentials.reload(relay.relay.log_event)
        [failed] = relay.log.of("reload_failed")
        assert (failed["option"], "RuntimeError" in failed["reason"]) == ("--tls-cert", True)
        await over_tls(dial(relay)).do_handshake()


async def test_reloaded_certificate_is_used_for_new_connections(tmp_path: Path) -> None:
    """Existing connections stay; an unusable certificate is not used."""
    async with tls_relay(tmp_path) as relay:
        a = RawClient(over_tls(dial(relay)))
        await a.open("/?id=a")
        (tmp_path / "key.pem").write_bytes(key(OTHER))
        await relay.credentials.reload(relay.relay.log_event)
        [failed] = relay.log.of("reload_failed")
        assert failed["option"] == "--tls-cert"
        assert "does not belong to the certificate" in failed["reason"]
        assert not relay.log.of("reloaded")
        await over_tls(dial(relay)).do_handshake()
        (tmp_path / "cert.pem").write_bytes(chain(OTHER))
        await relay.credentials.reload(relay.relay.log_event)
        assert len(relay.log.of("reloaded")) == 1
        tls = over_tls(dial(relay))
        await tls.do_handshake()
        theirs = tls.getpeercert(binary_form=True)
        assert theirs == ssl.PEM_cert_to_DER_cert(OTHER.cert_chain_pems[0].bytes().decode())
        b = await relay.client("/?id=b")
        await b.send(type="pair_request", target_id="a")
        assert (await a.receive())["peer_id"] == "b"
