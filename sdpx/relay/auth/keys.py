"""The keys that verify the signatures of tokens. PyJWT is slow to load: import this late.

Each key is for one algorithm, which the key decides and not the token: a shared secret for HS256, an RSA key for RS256, a
P-256 key for ES256, an Ed25519 key for EdDSA (RFC 8725, 3.1 and 3.2).
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

HS256: Final = "HS256"
_ALGORITHMS: Final = {("RSA", None): "RS256", ("EC", "P-256"): "ES256", ("OKP", "Ed25519"): "EdDSA"}
_MIN_SECRET_BYTES: Final = 32  # RFC 7518, 3.2: at least the size of the hash
_MIN_RSA_BITS: Final = 2048
_MAX_KEYS: Final = 100
_PRIVATE_PARAMETERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_PARSE_ERRORS: Final = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)


@dataclass(frozen=True, slots=True)
class Key:
    """A key, its algorithm, and its key ID, if it has one."""

    algorithm: str
    key: Any
    kid: str | None = None

    def verify(self, token: str) -> bytes | None:
        """Return the payload of a token; None if this key has not signed it."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a weak secret is logged at the start
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
    except _PARSE_ERRORS:
        raise BadToken("The token's payload is not valid JSON") from None


def secret_key(path: Path) -> Key:
    """Return the shared secret in a file, for HS256; raises `BadFile`."""
    secret = read_secret(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(secret)
    except jwt.InvalidKeyError:
        raise BadFile(path, "contains a certificate or an asymmetric key, not a shared secret") from None
    return Key(HS256, secret)


def is_weak(secret: Key) -> bool:
    """Return whether a shared secret is shorter than it should be (RFC 7518, 3.2)."""
    return len(secret.key) < _MIN_SECRET_BYTES


def sign(claims: Mapping[str, object], key: Key) -> str:
    """Return a token with these claims, signed with a shared secret."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return jwt.encode(dict(claims), key.key, key.algorithm)


def public_keys(path: Path) -> list[Key]:
    """Return the keys of a JWK set (RFC 7517, 5) in a file; raises `BadFile`.

    Unlike `jwt.PyJWKSet` it refuses a set with an unusable key, a private key, or a key that is too short.
    """
    try:
        jwk_set = msgspec.json.decode(read_bytes(path), type=dict[str, Any])
    except _PARSE_ERRORS:
        raise BadFile(path, 'is not a JSON object; a JWK set looks like {"keys": [...]}') from None
    jwks = jwk_set.get("keys")
    if not isinstance(jwks, list) or not all(isinstance(each, dict) for each in jwks):
        raise BadFile(path, 'has no list of keys; a JWK set looks like {"keys": [...]}')
    if len(jwks) > _MAX_KEYS:
        raise BadFile(path, f"has more than {_MAX_KEYS} keys")
    keys = [_public_key(path, number, jwk) for number, jwk in enumerate(jwks, 1) if jwk.get("use", "sig") == "sig"]
    if not keys:
        raise BadFile(path, "has no key for signatures")
    return keys


def _public_key(path: Path, number: int, jwk: dict[str, Any]) -> Key:
    if not _PRIVATE_PARAMETERS.isdisjoint(jwk):
        kind = "a shared secret; use --auth-secret-file" if "k" in jwk else "a private key; use its public part"
        raise BadFile(path, f"cannot be used: key {number} is {kind}")
    algorithm = _ALGORITHMS.get((str(jwk.get("kty")), None if jwk.get("kty") == "RSA" else str(jwk.get("crv"))))
    if algorithm is None or jwk.get("alg", algorithm) != algorithm:
        raise BadFile(path, f"cannot be used: key {number} is not for RS256, ES256 (P-256) or EdDSA (Ed25519)")
    try:
        key = jwt.PyJWK(jwk, algorithm).key
    except (jwt.PyJWTError, ValueError, TypeError, KeyError, AttributeError):
        raise BadFile(path, f"cannot be used: key {number} is not valid") from None
    if algorithm == "RS256" and getattr(key, "key_size", _MIN_RSA_BITS) < _MIN_RSA_BITS:
        raise BadFile(path, f"cannot be used: key {number} is an RSA key of less than {_MIN_RSA_BITS} bits")
    kid = jwk.get("kid")
    return Key(algorithm, key, kid if isinstance(kid, str) else None)
