"""The keys that verify the signatures of tokens. PyJWT is slow to load: import this late.

Each key is for one algorithm, which the key decides and not the token: a shared secret for HS256, an RSA key for RS256, a
P-256 key for ES256, an Ed25519 key for EdDSA (RFC 8725, 3.1 and 3.2).
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import jwt
import msgspec
from jwt.algorithms import HMACAlgorithm
from msgspec import Struct

from sdpx.protocol.codec import UNREADABLE
from sdpx.relay.auth.files import BadFile, read_bytes, read_secret
from sdpx.relay.auth.tokens import BadToken

HS256: Final = "HS256"
_ALGORITHMS: Final = {("RSA", None): "RS256", ("EC", "P-256"): "ES256", ("OKP", "Ed25519"): "EdDSA"}
_MIN_SECRET_BYTES: Final = 32  # RFC 7518, 3.2: at least the size of the hash
_MIN_RSA_BITS: Final = 2048
_MAX_KEYS: Final = 100
_MAX_REASONS: Final = 3
_PRIVATE_PARAMETERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


class Key(Struct, frozen=True):
    """A key, its algorithm, and its key ID, if it has one."""

    algorithm: str
    key: Any
    kid: str | None = None

    def verify(self, token: str) -> bytes | None:
        """Return the payload of a token; None if this key has not signed it."""
        with warnings.catch_warnings(action="ignore"):  # a weak secret is logged at the start
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
        """Return the claims of a token that one of the keys has signed; raises `BadToken`."""
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            raise BadToken("The token is not a JSON Web Token that this relay understands") from None
        if "crit" in header:
            raise BadToken("The token's header has a 'crit' that this relay does not understand")
        keys = [key for key in self._keys if key.algorithm == header.get("alg")]
        if not keys:
            known = ", ".join(sorted({key.algorithm for key in self._keys}))
            raise BadToken(f"The token's algorithm is not accepted; accepted: {known}")
        kid = header.get("kid")
        for key in keys:
            if kid is None or key.kid in (None, kid):
                payload = key.verify(token)
                if payload is not None:
                    return _parse_payload(payload)
        raise BadToken("The token's signature does not match a key of this relay")


def _parse_payload(payload: bytes) -> Any:
    try:
        return msgspec.json.decode(payload)
    except UNREADABLE:
        raise BadToken("The token's payload is not valid JSON") from None


def secret_key(path: Path) -> Key:
    """Return the shared secret in a file, for HS256; raises `BadFile`."""
    secret = read_secret(path)
    try:
        with warnings.catch_warnings(action="ignore"):
            HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(secret)
    except jwt.InvalidKeyError:
        raise BadFile(path, "contains a certificate or an asymmetric key, not a shared secret") from None
    return Key(HS256, secret)


def is_weak(secret: Key) -> bool:
    """Return whether a shared secret is shorter than it should be (RFC 7518, 3.2)."""
    return len(secret.key) < _MIN_SECRET_BYTES


def sign(claims: Mapping[str, object], key: Key) -> str:
    """Return a token with these claims, signed with a shared secret."""
    with warnings.catch_warnings(action="ignore"):
        return jwt.encode(dict(claims), key.key, key.algorithm)


def public_keys(path: Path, ignored: Callable[[int, str], None] = lambda _number, _reason: None) -> list[Key]:
    """Return the usable keys of a JWK set in a file; raises `BadFile`, also if there is none.

    `ignored` is called with the number of every other key and the reason (RFC 7517, 5).
    """
    try:
        jwk_set = msgspec.json.decode(read_bytes(path), type=dict[str, Any])
    except UNREADABLE:
        raise BadFile(path, 'is not a JSON object; a JWK set looks like {"keys": [...]}') from None
    jwks = jwk_set.get("keys")
    if not isinstance(jwks, list):
        raise BadFile(path, 'has no list of keys; a JWK set looks like {"keys": [...]}')
    if len(jwks) > _MAX_KEYS:
        raise BadFile(path, f"has more than {_MAX_KEYS} keys")
    keys: dict[object, Key] = {}
    reasons: list[str] = []
    for number, jwk in enumerate(jwks, 1):
        try:
            key = _public_key(jwk)
            name = (key.algorithm, key.kid) if key.kid is not None else number
            reason = "has the 'kid' of an earlier key" if keys.setdefault(name, key) is not key else ""
        except _UnusableKeyError as error:
            reason = str(error)
        if reason:
            reasons.append(f"key {number} {reason}")
            ignored(number, reason)
    if not keys:
        raise BadFile(path, "; ".join(["has no usable key for signatures", *reasons[:_MAX_REASONS]]))
    return list(keys.values())


class _UnusableKeyError(ValueError):
    """The message is a predicate whose subject is the key."""


def _public_key(jwk: Any) -> Key:
    """Return the key of a JWK (RFC 7517, 4); raises `_UnusableKeyError`."""
    if not isinstance(jwk, dict):
        raise _UnusableKeyError("is not a JSON object")
    jwk = {name: value for name, value in jwk.items() if value is not None}
    uses, operations = jwk.get("use", "sig"), jwk.get("key_ops", ["verify"])
    if uses != "sig" or not isinstance(operations, list) or "verify" not in operations:
        raise _UnusableKeyError("is not for the verification of signatures ('use', 'key_ops')")
    if not _PRIVATE_PARAMETERS.isdisjoint(jwk):
        kind = "a shared secret; use --auth-secret-file" if "k" in jwk else "a private key; use its public part"
        raise _UnusableKeyError(f"is {kind}")
    algorithm = _ALGORITHMS.get((str(jwk.get("kty")), None if jwk.get("kty") == "RSA" else str(jwk.get("crv"))))
    if algorithm is None or jwk.get("alg", algorithm) != algorithm:
        raise _UnusableKeyError("is not for RS256, ES256 (P-256) or EdDSA (Ed25519)")
    try:
        key = jwt.PyJWK(jwk, algorithm).key
    except (jwt.PyJWTError, ValueError, TypeError, KeyError, AttributeError):
        raise _UnusableKeyError("is not valid") from None
    if algorithm == "RS256" and getattr(key, "key_size", _MIN_RSA_BITS) < _MIN_RSA_BITS:
        raise _UnusableKeyError(f"is an RSA key of less than {_MIN_RSA_BITS} bits")
    kid = jwk.get("kid")
    return Key(algorithm, key, kid if isinstance(kid, str) else None)
