"""What was read from files and can be read again while the relay runs: secrets, keys, the certificate."""

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdpx.options import BadOption
from sdpx.relay.auth.files import BadFile, read_secret
from sdpx.relay.auth.options import AuthOptions

if TYPE_CHECKING:
    from sdpx.relay.auth.keys import Keys


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What came of reading all files again: the options whose files are in force now, and whose old ones stay, and why."""

    done: list[str]
    failed: list[tuple[str, str]]


class Credentials:
    """The files that the options name. `clock` returns seconds since the epoch. A relay with none of them holds nothing."""

    def __init__(self, options: AuthOptions, clock: Callable[[], float]) -> None:
        self._options = options
        self._clock = clock
        self._held: dict[str, Any] = {}
        self._load: dict[str, Callable[[], Any]] = {
            option: load
            for option, given, load in (
                ("--auth-secret-file", options.auth_secret_file, self._secret),
                ("--auth-jwks", options.auth_jwks, self._jwks),
                ("--tls-cert", options.tls_cert, self._context),
                ("--turn-secret-file", options.turn_secret_file, self._turn_secret),
            )
            if given is not None
        }

    def open(self) -> None:
        """Read all files for the first time; raises `BadOption`."""
        for option, load in self._load.items():
            try:
                self._held[option] = load()
            except BadFile as error:
                raise BadOption(option, str(error)) from None

    def reopen(self) -> Reloaded:
        """Read all files again, each for itself: what was read before stays in force where the new is bad.

        May be called in a thread.
        """
        result = Reloaded([], [])
        for option, load in self._load.items():
            try:
                self._held[option] = load()
                result.done.append(option)
            except BadFile as error:
                result.failed.append((option, str(error)))
            except Exception as fault:  # noqa: BLE001  whatever a library makes of a file, the relay goes on
                result.failed.append((option, f"its file cannot be used ({type(fault).__name__})"))
        return result

    @property
    def keys(self) -> "Keys":
        """The keys that tokens are checked with."""
        from sdpx.relay.auth.keys import Keys  # noqa: PLC0415  slow to load

        secret = self._held.get("--auth-secret-file")
        return Keys([*([secret] if secret else []), *self._held.get("--auth-jwks", ())])

    @property
    def tls(self) -> ssl.SSLContext | None:
        """The TLS of new connections, if there is one."""
        context: ssl.SSLContext | None = self._held.get("--tls-cert")
        return context

    @property
    def turn_secret(self) -> bytes:
        """The secret that is shared with the TURN server."""
        secret: bytes = self._held["--turn-secret-file"]
        return secret

    @property
    def has_weak_secret(self) -> bool:
        """Whether the secret for tokens is shorter than it should be."""
        secret = self._held.get("--auth-secret-file")
        if secret is None:
            return False
        from sdpx.relay.auth.keys import is_weak  # noqa: PLC0415

        return is_weak(secret)

    def _secret(self) -> Any:
        from sdpx.relay.auth.keys import secret_key  # noqa: PLC0415

        assert self._options.auth_secret_file is not None
        return secret_key(Path(self._options.auth_secret_file))

    def _jwks(self) -> Any:
        from sdpx.relay.auth.keys import public_keys  # noqa: PLC0415

        assert self._options.auth_jwks is not None
        return public_keys(Path(self._options.auth_jwks))

    def _context(self) -> ssl.SSLContext:
        from sdpx.relay.auth.tls import load_context  # noqa: PLC0415

        assert self._options.tls_cert is not None
        assert self._options.tls_key is not None
        return load_context(Path(self._options.tls_cert), Path(self._options.tls_key), self._clock())

    def _turn_secret(self) -> bytes:
        assert self._options.turn_secret_file is not None
        return read_secret(Path(self._options.turn_secret_file))
