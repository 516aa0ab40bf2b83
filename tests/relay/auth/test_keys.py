"""Whose signature a token has, and that nothing but a signature by the right key and algorithm will do."""

import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from sdpx.relay.auth.files import BadFile
from sdpx.relay.auth.keys import Key, Keys, public_keys, secret_key, sign
from sdpx.relay.auth.tokens import BadToken
from tests.harness.credentials import (
    KEYS,
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
    """The secret, and a public key of each kind, named by its algorithm."""
    jwks = jwks_file(tmp_path, *[public_jwk(key, kid=name) for name, key in KEYS.items()])
    return Keys([secret_key(secret_file(tmp_path)), *public_keys(jwks)])


@pytest.mark.parametrize("algorithm", ["HS256", *KEYS])
@pytest.mark.parametrize("kid", [None, "own"])
def test_a_token_of_each_kind_is_taken(keys: Keys, algorithm: str, kid: str | None) -> None:
    """With the key's name in its header, or without one."""
    headers = {"kid": algorithm} if kid and algorithm != "HS256" else None
    assert keys.claims(token(KEYS.get(algorithm, SECRET), algorithm, headers, sub="bob")) == {"sub": "bob"}


@pytest.mark.parametrize("algorithm", list(KEYS))
def test_a_key_that_is_not_ours_signs_nothing(keys: Keys, algorithm: str) -> None:
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
def test_a_public_key_is_no_shared_secret(tmp_path: Path, algorithm: str) -> None:
    """The oldest confusion: a token signed by HS256 with the text of a public key, which everybody has."""
    jwk = public_jwk(KEYS[algorithm])
    keys = Keys(public_keys(jwks_file(tmp_path, jwk)))
    for secret in (pem(KEYS[algorithm]), json.dumps(jwk).encode(), b""):
        with pytest.raises(BadToken, match=f"accepted: {algorithm}"):
            keys.claims(signed_by_hand({"alg": "HS256", "typ": "JWT"}, secret))
        with pytest.raises(BadToken):
            keys.claims(signed_by_hand({"alg": algorithm}, secret))


@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE", "", None, "HS384", "RS384", "PS256", "ES512", 1, []])
@pytest.mark.parametrize("signature", ["", "AA"])
def test_no_algorithm_but_the_four_is_taken(keys: Keys, name: object, signature: str) -> None:
    with pytest.raises(BadToken) as caught:
        keys.claims(f"{part({'alg': name})}.{part({'sub': 'bob'})}.{signature}")
    assert "sub" not in str(caught.value)


def test_a_token_cannot_bring_its_own_key(keys: Keys) -> None:
    """RFC 7515, 4.1.2 to 4.1.5: headers that name a key, or bring one, count for nothing."""
    own = rsa.generate_private_key(65537, 2048)
    headers = {"jwk": public_jwk(own), "jku": "https://evil.test/jwks", "x5u": "https://evil.test/x"}
    with pytest.raises(BadToken, match="signature"):
        keys.claims(token(own, "RS256", headers, sub="bob"))


def test_the_name_of_another_key_is_none_of_this_one(keys: Keys) -> None:
    with pytest.raises(BadToken, match="signature"):
        keys.claims(token(KEYS["RS256"], "RS256", {"kid": "ES256"}, sub="bob"))


@pytest.mark.parametrize("header", [{"crit": ["exp"], "exp": 1}, {"crit": ["b64"], "b64": False}, {"crit": []}])
def test_what_has_to_be_understood_and_is_not_is_refused(keys: Keys, header: dict[str, Any]) -> None:
    """RFC 7515, 4.1.11."""
    with pytest.raises(BadToken, match="understand"):
        keys.claims(signed_by_hand({"alg": "HS256"} | header, SECRET.encode()))


@pytest.mark.parametrize("where", [0, 1, 2])
def test_a_token_that_was_altered_is_none(keys: Keys, where: int) -> None:
    parts = token(sub="bob").split(".")
    parts[where] = parts[where][:-2] + ("AA" if not parts[where].endswith("AA") else "BB")
    with pytest.raises(BadToken):
        keys.claims(".".join(parts))


@given(st.text() | st.text(alphabet="eyJhbGciOiJIUzI1NiJ9.=-_").map(lambda text: f"eyJhbGciOiJIUzI1NiJ9.{text}"))
def test_no_text_is_taken_or_quoted(text: str) -> None:
    with pytest.raises(BadToken) as caught:
        Keys([Key("HS256", SECRET.encode())]).claims(text)
    assert len(text) < 12 or text not in str(caught.value)


@pytest.mark.parametrize("payload", [b"", b"{", b"\xff", b"[" * 100_000, b'{"sub": NaN}'])
def test_a_payload_that_is_no_json_is_named(keys: Keys, payload: bytes) -> None:
    body = f"{part({'alg': 'HS256'})}.{part(payload)}"
    signature = part(hmac.digest(SECRET.encode(), body.encode(), hashlib.sha256))
    with pytest.raises(BadToken, match="not valid JSON"):
        keys.claims(f"{body}.{signature}")


def test_what_is_signed_here_is_taken_here(tmp_path: Path) -> None:
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
def test_a_secret_that_cannot_be_used_is_named(tmp_path: Path, text: str | bytes, word: str) -> None:
    path = write(tmp_path / "secret", text)
    with pytest.raises(BadFile, match=word) as caught:
        secret_key(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "word"),
    [
        ([], "no key for signatures"),
        ([{"kty": "oct", "k": "c2VjcmV0"}], "key 1 is a shared secret"),
        ([public_jwk(ED), private_jwk(ED)], "key 2 is a private key"),
        ([public_jwk(KEYS["RS256"], alg="RS512")], "not for RS256"),
        ([public_jwk(KEYS["RS256"], alg="HS256")], "not for RS256"),
        ([public_jwk(ec.generate_private_key(ec.SECP384R1()))], "not for RS256"),
        ([public_jwk(rsa.generate_private_key(65537, 1024))], "less than 2048 bits"),
        ([{"kty": "RSA"}], "is not valid"),
        ([{"kty": "RSA", "n": 1, "e": 2}], "is not valid"),
        ([{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}], "is not valid"),
        ([{"kty": "OKP", "crv": "Ed25519", "x": "!"}], "is not valid"),
        ([{}], "not for RS256"),
        ([public_jwk(ED, use="enc")], "no key for signatures"),
        ([public_jwk(ED)] * 101, "more than 100"),
    ],
)
def test_a_jwk_set_that_cannot_be_used_is_named(tmp_path: Path, keys: list[dict[str, Any]], word: str) -> None:
    with pytest.raises(BadFile, match=word):
        public_keys(jwks_file(tmp_path, *keys))


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"keys": {}}', '{"keys": [1]}', "[" * 100_000, b"\xff"])
def test_a_file_that_is_no_jwk_set_is_named(tmp_path: Path, text: str | bytes) -> None:
    with pytest.raises(BadFile, match="JWK set"):
        public_keys(write(tmp_path / "jwks.json", text))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    for read in (secret_key, public_keys):
        with pytest.raises(BadFile, match="No such file"):
            read(tmp_path / "nowhere")
        with pytest.raises(BadFile, match="directory"):
            read(tmp_path)
