"""Secrets, keys and the certificate: read from files at the start, and again on SIGHUP."""

import signal
import ssl
from collections.abc import Callable
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


class Credentials:
    """The contents of the files that the options name. `clock` returns seconds since the epoch."""

    def __init__(self, options: AuthOptions, clock: Callable[[], float]) -> None:
        self._options = options
        self._clock = clock
        files = {
            "--auth-secret-file": options.auth_secret_file,
            "--auth-jwks": options.auth_jwks,
            "--tls-cert": options.tls_cert,
            "--turn-secret-file": options.turn_secret_file,
        }
        self._files = {option: Path(file) for option, file in files.items() if file is not None}
        self._loaded: dict[str, Any] = {}
        self.ignored_keys: list[serve.KeyIgnored] = []  # of the JWK set that was read last

    def load(self) -> None:
        """Read all files; raises `BadOption`."""
        for option, file in self._files.items():
            try:
                self._loaded[option] = self._load(option, file)
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
        done, failed = await trio.to_thread.run_sync(self._reload, abandon_on_cancel=True)
        for option, reason in failed:
            log(serve.ReloadFailed(option, reason))
        for event in self.ignored_keys:
            log(event)
        if done or not failed:
            log(serve.Reloaded(", ".join(done)))

    def _reload(self) -> tuple[list[str], list[tuple[str, str]]]:
        """Read all files again; returns the options whose files are in force now, and the others with the reason."""
        done: list[str] = []
        failed: list[tuple[str, str]] = []
        for option, file in self._files.items():
            try:
                self._loaded[option] = self._load(option, file)
                done.append(option)
            except BadFile as error:
                failed.append((option, str(error)))
            except Exception as fault:  # noqa: BLE001  a library's error for a file must not end the relay
                failed.append((option, f"its file cannot be used ({type(fault).__name__})"))
        return done, failed

    def _load(self, option: str, file: Path) -> Any:
        """Return the contents of an option's file; raises `BadFile`. The imports are late because they are slow."""
        match option:
            case "--auth-secret-file":
                from sdpx.relay.auth.keys import secret_key  # noqa: PLC0415

                return secret_key(file)
            case "--auth-jwks":
                from sdpx.relay.auth.keys import public_keys  # noqa: PLC0415

                self.ignored_keys = []
                return public_keys(file, lambda *key: self.ignored_keys.append(serve.KeyIgnored(str(file), *key)))
            case "--tls-cert":
                from sdpx.relay.auth.tls import load_context  # noqa: PLC0415

                assert self._options.tls_key is not None
                return load_context(file, Path(self._options.tls_key), self._clock())
        return read_secret(file)

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
        secret = self._loaded.get("--auth-secret-file")
        if secret is None:
            return False
        from sdpx.relay.auth.keys import is_weak  # noqa: PLC0415  slow to load

        return is_weak(secret)
