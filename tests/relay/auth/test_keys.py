"""Verification of token signatures: only a signature by a configured key with its own algorithm is valid."""

import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from sdpx.events import Event, serve
from sdpx.relay.auth.credentials import Credentials
from sdpx.relay.auth.files import BadFile
from sdpx.relay.auth.keys import Key, Keys, public_keys, secret_key, sign
from sdpx.relay.auth.options import AuthOptions
from sdpx.relay.auth.tokens import BadToken
from tests.harness.credentials import (
    KEYS,
    NOW,
    SECRET,
    jwks_file,
    part,
    pem,
    private_jwk,
    public_jwk,
    secret_file,
    token,
    write,
)


@pytest.fixture(name="keys")
def all_keys(tmp_path: Path) -> Keys:
    """The shared secret, and a public key of each kind, with its algorithm as key ID."""
    jwks = jwks_file(tmp_path, *[public_jwk(key, kid=name) for name, key in KEYS.items()])
    return Keys([secret_key(secret_file(tmp_path)), *public_keys(jwks)])


@pytest.mark.parametrize("algorithm", ["HS256", *KEYS])
@pytest.mark.parametrize("kid", [None, "own"])
def test_token_of_each_algorithm_is_verified(keys: Keys, algorithm: str, kid: str | None) -> None:
    """With the key ID in its header, or without one."""
    headers = {"kid": algorithm} if kid and algorithm != "HS256" else None
    assert keys.claims(token(KEYS.get(algorithm, SECRET), algorithm, headers, sub="bob")) == {"sub": "bob"}


@pytest.mark.parametrize("algorithm", list(KEYS))
def test_token_of_another_key_is_refused(keys: Keys, algorithm: str) -> None:
    other = {
        "RS256": lambda: rsa.generate_private_key(65537, 2048),
        "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
        "EdDSA": ed25519.Ed25519PrivateKey.generate,
    }[algorithm]()
    with pytest.raises(BadToken, match="signature"):
        keys.claims(token(other, algorithm, sub="bob"))


def signed_by_hand(header: dict[str, Any], secret: bytes) -> str:
    body = f"{part(header)}.{part({'sub': 'bob'})}"
    return f"{body}.{part(hmac.digest(secret, body.encode(), hashlib.sha256))}"


@pytest.mark.parametrize("algorithm", list(KEYS))
def test_public_key_is_not_accepted_as_a_shared_secret(tmp_path: Path, algorithm: str) -> None:
    """Algorithm confusion: an attacker signs by HS256 with the text of the public key."""
    jwk = public_jwk(KEYS[algorithm])
    keys = Keys(public_keys(jwks_file(tmp_path, jwk)))
    for secret in (pem(KEYS[algorithm]), json.dumps(jwk).encode(), b""):
        with pytest.raises(BadToken, match=f"accepted: {algorithm}"):
            keys.claims(signed_by_hand({"alg": "HS256", "typ": "JWT"}, secret))
        with pytest.raises(BadToken):
            keys.claims(signed_by_hand({"alg": algorithm}, secret))


@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE", "", None, "HS384", "RS384", "PS256", "ES512", 1, []])
@pytest.mark.parametrize("signature", ["", "AA"])
def test_other_algorithms_are_refused(keys: Keys, name: object, signature: str) -> None:
    with pytest.raises(BadToken) as caught:
        keys.claims(f"{part({'alg': name})}.{part({'sub': 'bob'})}.{signature}")
    assert "sub" not in str(caught.value)


def test_key_in_the_token_header_is_ignored(keys: Keys) -> None:
    """RFC 7515, 4.1.2 to 4.1.5."""
    own = rsa.generate_private_key(65537, 2048)
    headers = {"jwk": public_jwk(own), "jku": "https://evil.test/jwks", "x5u": "https://evil.test/x"}
    with pytest.raises(BadToken, match="signature"):
        keys.claims(token(own, "RS256", headers, sub="bob"))


def test_kid_of_another_key_is_refused(keys: Keys) -> None:
    with pytest.raises(BadToken, match="signature"):
        keys.claims(token(KEYS["RS256"], "RS256", {"kid": "ES256"}, sub="bob"))


@pytest.mark.parametrize("header", [{"crit": ["exp"], "exp": 1}, {"crit": ["b64"], "b64": False}, {"crit": []}])
def test_critical_header_is_refused(keys: Keys, header: dict[str, Any]) -> None:
    """RFC 7515, 4.1.11."""
    with pytest.raises(BadToken, match="understand"):
        keys.claims(signed_by_hand({"alg": "HS256"} | header, SECRET.encode()))


@pytest.mark.parametrize("where", [0, 1, 2])
def test_altered_token_is_refused(keys: Keys, where: int) -> None:
    parts = token(sub="bob").split(".")
    parts[where] = parts[where][:-2] + ("AA" if not parts[where].endswith("AA") else "BB")
    with pytest.raises(BadToken):
        keys.claims(".".join(parts))


@given(st.text() | st.text(alphabet="eyJhbGciOiJIUzI1NiJ9.=-_").map(lambda text: f"eyJhbGciOiJIUzI1NiJ9.{text}"))
def test_arbitrary_text_is_refused_without_being_quoted(text: str) -> None:
    with pytest.raises(BadToken) as caught:
        Keys([Key("HS256", SECRET.encode())]).claims(text)
    assert len(text) < 12 or text not in str(caught.value)


@pytest.mark.parametrize("payload", [b"", b"{", b"\xff", b"[" * 100_000, b'{"sub": NaN}'])
def test_payload_must_be_json(keys: Keys, payload: bytes) -> None:
    body = f"{part({'alg': 'HS256'})}.{part(payload)}"
    signature = part(hmac.digest(SECRET.encode(), body.encode(), hashlib.sha256))
    with pytest.raises(BadToken, match="not valid JSON"):
        keys.claims(f"{body}.{signature}")


def test_signed_token_is_verified_by_the_same_secret(tmp_path: Path) -> None:
    path = secret_file(tmp_path)
    assert Keys([secret_key(path)]).claims(sign({"sub": "bob"}, secret_key(path))) == {"sub": "bob"}


# ---- files --------------------------------------------------------------------------------------------------------

ED: Any = KEYS["EdDSA"]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        (pem(KEYS["RS256"]), "asymmetric key"),
        (b"x" * (1 << 21), "larger"),
    ],
)
def test_unusable_secret_file_is_named(tmp_path: Path, text: str | bytes, word: str) -> None:
    path = write(tmp_path / "secret", text)
    with pytest.raises(BadFile, match=word) as caught:
        secret_key(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "word"),
    [
        ([], "no usable key for signatures"),
        ([{"kty": "oct", "k": "c2VjcmV0"}], "key 1 is a shared secret"),
        ([{}, private_jwk(ED)], "key 2 is a private key"),
        ([public_jwk(KEYS["RS256"], alg="RS512")], "not for RS256"),
        ([public_jwk(KEYS["RS256"], alg="HS256")], "not for RS256"),
        ([public_jwk(ec.generate_private_key(ec.SECP384R1()))], "not for RS256"),
        ([public_jwk(rsa.generate_private_key(65537, 1024))], "less than 2048 bits"),
        ([{"kty": "RSA"}], "is not valid"),
        ([{"kty": "RSA", "n": 1, "e": 2}], "is not valid"),
        ([{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}], "is not valid"),
        ([{"kty": "OKP", "crv": "Ed25519", "x": "!"}], "is not valid"),
        ([{}], "not for RS256"),
        ([public_jwk(ED, use="enc")], "key 1 is not for the verification of signatures"),
        ([1], "key 1 is not a JSON object"),
        ([public_jwk(ED)] * 101, "more than 100"),
    ],
)
def test_unusable_jwk_set_is_named(tmp_path: Path, keys: list[dict[str, Any]], word: str) -> None:
    with pytest.raises(BadFile, match=word):
        public_keys(jwks_file(tmp_path, *keys))


@pytest.mark.parametrize(
    ("other", "word"),
    [
        (1, "not a JSON object"),
        ({"kty": "AKP", "alg": "ML-DSA-44", "pub": "AA"}, "not for RS256"),
        ({"kty": "EC", "crv": "secp256k1", "alg": "ES256K", "x": "AA", "y": "AA"}, "not for RS256"),
        (public_jwk(ec.generate_private_key(ec.SECP384R1()), alg="ES384"), "not for RS256"),
        (public_jwk(KEYS["RS256"], alg="RSA-OAEP"), "not for RS256"),
        (public_jwk(KEYS["RS256"], use="enc"), "not for the verification"),
        (public_jwk(KEYS["RS256"]) | {"key_ops": ["encrypt"]}, "not for the verification"),
        (private_jwk(ED), "private key"),
        ({"kty": "RSA", "e": "AQAB", "alg": "RS256"}, "is not valid"),
        (public_jwk(KEYS["RS256"], kid="main"), "'kid' of an earlier key"),
    ],
)
def test_other_keys_of_a_jwk_set_are_ignored(tmp_path: Path, other: Any, word: str) -> None:
    """RFC 7517, 5: keys of unknown kinds, broken keys, and a second key of one algorithm with one 'kid'."""
    ignored: list[tuple[int, str]] = []
    jwks = jwks_file(tmp_path, public_jwk(KEYS["RS256"], kid="main"), other)
    [key] = public_keys(jwks, lambda number, reason: ignored.append((number, reason)))
    assert key.kid == "main"
    [(number, reason)] = ignored
    assert number == 2
    assert word in reason


def test_keys_of_different_algorithms_may_have_one_kid(tmp_path: Path) -> None:
    """RFC 7517, 4.5."""
    jwks = jwks_file(tmp_path, *[public_jwk(key, kid="main") for key in KEYS.values()])
    assert [key.algorithm for key in public_keys(jwks)] == list(KEYS)


@pytest.mark.parametrize("text", [f"\ufeff{SECRET}\r\n".encode(), f"{SECRET}\r\n".encode("utf-16")])
def test_byte_order_mark_is_not_part_of_a_secret(tmp_path: Path, text: bytes) -> None:
    """Windows programs write one in front of UTF-8 and UTF-16."""
    assert secret_key(write(tmp_path / "secret", text)).key == SECRET.encode()


def test_random_bytes_that_look_like_a_byte_order_mark_are_kept(tmp_path: Path) -> None:
    secret = b"\xff\xfe" + bytes(range(128, 160))
    assert secret_key(write(tmp_path / "secret", secret)).key == secret


def test_jwk_set_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    jwks = jwks_file(tmp_path, public_jwk(ED))
    assert public_keys(write(jwks, b"\xef\xbb\xbf" + jwks.read_bytes()))


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"keys": {}}', "[" * 100_000, b"\xff"])
def test_file_without_a_jwk_set_is_named(tmp_path: Path, text: str | bytes) -> None:
    with pytest.raises(BadFile, match="JWK set"):
        public_keys(write(tmp_path / "jwks.json", text))


def test_missing_file_is_named(tmp_path: Path) -> None:
    for read in (secret_key, public_keys):
        with pytest.raises(BadFile, match="No such file"):
            read(tmp_path / "nowhere")
        with pytest.raises(BadFile, match="directory"):
            read(tmp_path)


async def test_ignored_keys_are_logged_at_each_reload(tmp_path: Path) -> None:
    """And known from the start on."""
    jwks = jwks_file(tmp_path, public_jwk(ED), {"kty": "AKP"})
    credentials = Credentials(AuthOptions(auth_jwks=str(jwks)), lambda: NOW)
    credentials.load()
    [ignored] = credentials.ignored_keys
    assert (ignored.path, ignored.number) == (str(jwks), 2)
    for _ in range(2):
        events: list[Event] = []
        await credentials.reload(events.append)
        assert events == [ignored, serve.Reloaded("--auth-jwks")]
