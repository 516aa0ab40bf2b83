"""Secrets, keys and the certificate: read from files at the start, and again on SIGHUP."""

import signal
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import trio

from sdpx.events import Event, serve
from sdpx.options import BadOption
from sdpx.relay.auth.files import BadFile, read_secret
from sdpx.relay.auth.options import AuthOptions

if TYPE_CHECKING:
    from sdpx.relay.auth.keys import Keys

RELOAD_SIGNAL: Final = signal.SIGHUP


@dataclass(frozen=True, slots=True)
class Reloaded:
    """The result of a reload: options whose files are in force now, and those whose old contents stay, with the reason."""

    done: list[str]
    failed: list[tuple[str, str]]


class Credentials:
    """The contents of the files that the options name. `clock` returns seconds since the epoch."""

    def __init__(self, options: AuthOptions, clock: Callable[[], float]) -> None:
        self._options = options
        self._clock = clock
        self._loaded: dict[str, Any] = {}
        self._loaders: dict[str, Callable[[], Any]] = {
            option: load
            for option, file, load in (
                ("--auth-secret-file", options.auth_secret_file, self._load_secret),
                ("--auth-jwks", options.auth_jwks, self._load_jwks),
                ("--tls-cert", options.tls_cert, self._load_tls),
                ("--turn-secret-file", options.turn_secret_file, self._load_turn_secret),
            )
            if file is not None
        }

    def load(self) -> None:
        """Read all files; raises `BadOption`."""
        for option, load in self._loaders.items():
            try:
                self._loaded[option] = load()
            except BadFile as error:
                raise BadOption(option, str(error)) from None

    async def reload_on_sighup(
        self, log: Callable[[Event], None], task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Reload at each SIGHUP, for ever; it has started when the signal no longer ends the process."""
        with trio.open_signal_receiver(RELOAD_SIGNAL) as signals:
            task_status.started()
            async for _ in signals:
                await self.reload(log)

    async def reload(self, log: Callable[[Event], None]) -> None:
        """Read all files again, for new connections. Where a file cannot be used its old contents stay in force."""
        result = await trio.to_thread.run_sync(self._reload, abandon_on_cancel=True)
        for option, reason in result.failed:
            log(serve.ReloadFailed(option, reason))
        if result.done or not result.failed:
            log(serve.Reloaded(", ".join(result.done) or "no option: none has one"))

    def _reload(self) -> Reloaded:
        result = Reloaded([], [])
        for option, load in self._loaders.items():
            try:
                self._loaded[option] = load()
                result.done.append(option)
            except BadFile as error:
                result.failed.append((option, str(error)))
            except Exception as fault:  # noqa: BLE001  a library's error for a file must not end the relay
                result.failed.append((option, f"its file cannot be used ({type(fault).__name__})"))
        return result

    @property
    def keys(self) -> "Keys":
        """The keys that verify tokens."""
        from sdpx.relay.auth.keys import Keys  # noqa: PLC0415  slow to load

        secret = self._loaded.get("--auth-secret-file")
        return Keys([*([secret] if secret else []), *self._loaded.get("--auth-jwks", ())])

    @property
    def tls(self) -> ssl.SSLContext | None:
        """The TLS context of new connections; None without `--tls-cert`."""
        context: ssl.SSLContext | None = self._loaded.get("--tls-cert")
        return context

    @property
    def turn_secret(self) -> bytes:
        """The secret that the relay shares with the TURN server."""
        secret: bytes = self._loaded["--turn-secret-file"]
        return secret

    @property
    def has_weak_secret(self) -> bool:
        """Whether the secret for tokens is shorter than it should be."""
        from sdpx.relay.auth.keys import is_weak  # noqa: PLC0415  slow to load

        secret = self._loaded.get("--auth-secret-file")
        return secret is not None and is_weak(secret)

    def _load_secret(self) -> Any:
        from sdpx.relay.auth.keys import secret_key  # noqa: PLC0415  slow to load

        assert self._options.auth_secret_file is not None
        return secret_key(Path(self._options.auth_secret_file))

    def _load_jwks(self) -> Any:
        from sdpx.relay.auth.keys import public_keys  # noqa: PLC0415  slow to load

        assert self._options.auth_jwks is not None
        return public_keys(Path(self._options.auth_jwks))

    def _load_tls(self) -> ssl.SSLContext:
        from sdpx.relay.auth.tls import load_context  # noqa: PLC0415  slow to load

        assert self._options.tls_cert is not None
        assert self._options.tls_key is not None
        return load_context(Path(self._options.tls_cert), Path(self._options.tls_key), self._clock())

    def _load_turn_secret(self) -> bytes:
        assert self._options.turn_secret_file is not None
        return read_secret(Path(self._options.turn_secret_file))
