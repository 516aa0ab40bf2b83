"""The keys that a token's signature is checked with. Imported only where tokens are asked for: PyJWT is slow to load.

A key is good for one algorithm, which follows from the key and not from the token: a shared secret for HS256, an RSA key for
RS256, a P-256 key for ES256, an Ed25519 key for EdDSA. So no token can have its signature checked by other means than its key
is for (RFC 8725, 3.1 and 3.2).
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import jwt
import msgspec
from jwt.algorithms import HMACAlgorithm

from sdpx.relay.auth.files import BadFile, read_bytes, read_secret
from sdpx.relay.auth.tokens import BadToken

SHARED: Final = "HS256"
_KINDS: Final = {("RSA", None): "RS256", ("EC", "P-256"): "ES256", ("OKP", "Ed25519"): "EdDSA"}
_SECRET_BYTES: Final = 32  # RFC 7518, 3.2: at least the size of the hash
_LEAST_RSA_BITS: Final = 2048
_MOST_KEYS: Final = 100
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


@dataclass(frozen=True, slots=True)
class Key:
    """A key, the one algorithm that it is for, and its name, if it has one."""

    algorithm: str
    key: Any
    name: str | None = None

    def signed(self, token: str) -> bytes | None:
        """Return the payload of a token that this key signed."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a weak secret has been told of at the start
            try:
                payload = jwt.PyJWS([self.algorithm]).decode(token, self.key, [self.algorithm])
            except (jwt.PyJWTError, ValueError, TypeError):
                return None
        return bytes(payload)


class Keys:
    """All keys of a relay."""

    def __init__(self, keys: Sequence[Key]) -> None:
        self._keys = keys

    def claims(self, token: str) -> Any:
        """Return the claims of a token that one of the keys signed; raises `BadToken`."""
        for key in self._candidates(token):
            payload = key.signed(token)
            if payload is not None:
                return _claims(payload)
        raise BadToken("The token's signature is of no key of this relay")

    def _candidates(self, token: str) -> list[Key]:
        header = _header(token)
        if "crit" in header:
            raise BadToken("The token's header has a 'crit' that this relay does not understand")
        fitting = [key for key in self._keys if key.algorithm == header.get("alg")]
        if not fitting:
            known = ", ".join(sorted({key.algorithm for key in self._keys}))
            raise BadToken(f"The token is signed by an algorithm that is not taken here; {known} is")
        name = header.get("kid")
        return [key for key in fitting if name is None or key.name is None or key.name == name]


def secret_key(path: Path) -> Key:
    """Return the shared secret in a file, for HS256; raises `BadFile`."""
    secret = read_secret(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(secret)
    except jwt.InvalidKeyError:
        raise BadFile(path, "holds a certificate or an asymmetric key, which is no shared secret") from None
    return Key(SHARED, secret)


def public_keys(path: Path) -> list[Key]:
    """Return the keys of a JWK set (RFC 7517, 5) in a file; raises `BadFile`."""
    try:
        found = msgspec.json.decode(read_bytes(path), type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise BadFile(path, 'is no JSON object; a JWK set looks like {"keys": [...]}') from None
    listed = found.get("keys")
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
        raise BadFile(path, 'has no list of keys; a JWK set looks like {"keys": [...]}')
    if len(listed) > _MOST_KEYS:
        raise BadFile(path, f"has more than {_MOST_KEYS} keys")
    keys = [_public_key(path, number, each) for number, each in enumerate(listed, 1) if each.get("use", "sig") == "sig"]
    if not keys:
        raise BadFile(path, "has no key for signatures")
    return keys


def is_weak(secret: Key) -> bool:
    """Tell whether a shared secret is shorter than it should be (RFC 7518, 3.2)."""
    return len(secret.key) < _SECRET_BYTES


def sign(claims: Mapping[str, object], key: Key) -> str:
    """Return a token with these claims, signed with a shared secret."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return jwt.encode(dict(claims), key.key, key.algorithm)


def _public_key(path: Path, number: int, jwk: dict[str, Any]) -> Key:
    if not _PRIVATE.isdisjoint(jwk):
        kind = "a shared secret; give it by --auth-secret-file" if "k" in jwk else "a private one; give the public part"
        raise BadFile(path, f"has a key, number {number}, that is {kind}")
    algorithm = _KINDS.get((str(jwk.get("kty")), None if jwk.get("kty") == "RSA" else str(jwk.get("crv"))))
    if algorithm is None or jwk.get("alg", algorithm) != algorithm:
        raise BadFile(path, f"has a key, number {number}, that is for none of RS256, ES256 (P-256) and EdDSA (Ed25519)")
    try:
        key = jwt.PyJWK(jwk, algorithm).key
    except (jwt.PyJWTError, ValueError, TypeError, KeyError, AttributeError):
        raise BadFile(path, f"has a key, number {number}, that is broken") from None
    if getattr(key, "key_size", _LEAST_RSA_BITS) < _LEAST_RSA_BITS and algorithm == "RS256":
        raise BadFile(path, f"has an RSA key, number {number}, of less than {_LEAST_RSA_BITS} bits")
    name = jwk.get("kid")
    return Key(algorithm, key, name if isinstance(name, str) else None)


def _header(token: str) -> dict[str, Any]:
    try:
        return jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        raise BadToken("The token is no JSON Web Token that this relay understands") from None


def _claims(payload: bytes) -> Any:
    try:
        return msgspec.json.decode(payload)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise BadToken("The token's payload is no JSON") from None
