"""The directory in Redis or Valkey (6.0 or newer, one primary), by coredis, without its pool, retries and pubsub.

- Two connections: one for calls, pipelined and answered in order, and one that reads the node's channel, a stream. A call or an
  entry that a lost connection may have cost is made or read again: calls are numbered, and the channel is read from the last
  entry on.
- Renewing the lease is the watchdog: an answer that does not come within `PATIENCE` of the lease ends both connections. They
  are opened again every `RETRY_SECONDS`.
- The block that opens the connections closes them; it ends when one of them does.
"""

import logging
import os
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from importlib.resources import files
from typing import Any, Final, NamedTuple
from urllib.parse import unquote, urlsplit

import trio
from coredis.connection import TCPConnection, TCPLocation
from coredis.exceptions import RedisError

from sdpx.client_tls import tls_reason
from sdpx.concurrency import RepeatedEvent, leaf_exceptions, map_exceptions
from sdpx.errors import Ending, describe_os_error
from sdpx.relay.cluster.directory import Directory, Entry, Handler, Value
from sdpx.relay.core.limits import Limits
from sdpx.urls import mask_secrets

logging.getLogger("coredis").setLevel(logging.CRITICAL + 1)  # its errors are raised as well

BUFFERS: Final = tuple(
    f"_{name}_buffer_{end}" for name in ("push_message", "streamed_message", "write") for end in ("in", "out")
)
CONNECT_SECONDS: Final = 1.0
RETRY_SECONDS: Final = 0.1
PATIENCE: Final = 0.75  # of the lease
BEATS: Final = 4  # in a lease
MARGIN: Final = 0.02  # seconds after the end of another node's lease
BLOCK_MS: Final = 500
READ_ENTRIES: Final = 256
UNANSWERED_CALLS: Final = 64
UNFENCED: Final = ("join", "beat")
SCRIPTS: Final = (
    *("join", "beat", "leave", "register", "unregister", "pair", "unpair", "send", "notify"),
    *("ask", "refer", "freeze", "park", "restore", "confirm"),
)
NO_ANSWER: Final = "no answer in time"
REMEDIES: Final = {
    "Connection refused": "Connection refused; is the engine running at this address?",
    "EndOfStream": "the connection was closed; is this the port of a Redis or Valkey?",
    "HELLO must be called": "the engine wants a password: --cluster-password-file",
    "No matching script": "the engine has lost the scripts",
    "fenced": "the engine does not know this node any more",
    "lost": "the engine has lost the last calls of this node",
}
FAILURES: Final = (RedisError, OSError, ssl.SSLError, trio.TooSlowError, trio.BrokenResourceError, TimeoutError)


class EngineAddress(NamedTuple):
    """The address of the engine, and the credentials for it."""

    host: str
    port: int
    db: int
    username: str | None
    password: str | None
    tls: bool
    shown: str

    @classmethod
    def parse(cls, url: str, password: str | None = None) -> "EngineAddress":
        """Read a URL that `validate_cluster_url` accepts; `password` replaces the one in it."""
        parts = urlsplit(url)
        return cls(
            parts.hostname or "localhost",
            parts.port or 6379,
            int(parts.path.strip("/") or 0),
            unquote(parts.username) if parts.username else None,
            password or (unquote(parts.password) if parts.password else None),
            parts.scheme == "rediss",
            mask_secrets(url),
        )


@cache
def script_text(name: str) -> str:
    """Return the text of a script, behind the parts that precede it."""
    folder = files("sdpx.relay.cluster") / "scripts"
    parts = ("common", name) if name in UNFENCED else ("common", "fence", name)
    return "\n".join((folder / f"{part}.lua").read_text() for part in parts)


class Engine:
    """The two connections to the engine, open, with the scripts loaded."""

    def __init__(self, prefix: str, calls: Any, channel: Any) -> None:
        self._prefix = prefix
        self._calls = calls
        self._channel = channel
        self._digests: dict[str, bytes] = {}

    async def load_scripts(self) -> None:
        """Load the scripts; raises one of `FAILURES`."""
        requests = {name: self._calls.create_request(b"SCRIPT LOAD", script_text(name)) for name in SCRIPTS}
        self._digests = {name: await request for name, request in requests.items()}

    def call(self, script: str, node: str, number: int, *values: Value) -> Any:
        """Run a script; returns the awaitable of its answer."""
        return self._calls.create_request(b"EVALSHA", self._digests[script], 0, self._prefix, node, number, *values)

    async def read(self, node: str, last: bytes, done: list[bytes]) -> list[tuple[bytes, Entry]]:
        """Return the entries after `last` with their numbers, once there are some or after a while; forget those of `done`."""
        key = f"{self._prefix}in:{node}"
        if done:
            forgotten = self._channel.create_request(b"XDEL", key, *done)
        reply = self._channel.create_request(
            b"XREAD", b"COUNT", READ_ENTRIES, b"BLOCK", BLOCK_MS, b"STREAMS", key, last
        )
        with trio.fail_after(BLOCK_MS / 1000 + CONNECT_SECONDS):
            if done:
                await forgotten
            found = await reply
        if not found:
            return []
        entries = next(iter(found.values())) if isinstance(found, dict) else found[0][1]
        return [
            (number, Entry(kind.decode(), client.decode(), data)) for number, (_, kind, _, client, _, data) in entries
        ]


@asynccontextmanager
async def open_engine(address: EngineAddress, prefix: str) -> AsyncIterator[Engine]:
    """Connect to the engine; raises one of `FAILURES`, alone or in a group."""
    context = ssl.create_default_context() if address.tls else None
    place = TCPLocation(address.host, address.port)
    login = {"username": address.username, "password": address.password, "db": address.db, "ssl_context": context}
    connections = [TCPConnection(place, connect_timeout=CONNECT_SECONDS, **login) for _ in range(2)]  # type: ignore[arg-type]
    try:
        async with trio.open_nursery() as nursery:
            yield await _start(nursery, prefix, connections)
            nursery.cancel_scope.cancel()
    finally:
        for connection in connections:
            for name in BUFFERS:  # coredis leaves them open if the connection could not be established
                getattr(connection, name).close()


async def _start(nursery: trio.Nursery, prefix: str, connections: list[TCPConnection]) -> Engine:
    """Run the connections and load the scripts, within a deadline."""
    try:
        with trio.fail_after(2 * CONNECT_SECONDS) as deadline:
            for connection in connections:
                await nursery.start(connection.run)
            engine = Engine(prefix, *connections)
            await engine.load_scripts()
    except RedisError:
        if deadline.cancel_called:  # coredis raises this in place of the cancellation
            raise trio.TooSlowError from None
        raise
    return engine


def _describe(group: BaseExceptionGroup[Any], address: EngineAddress) -> str:
    """Return the URL and the first cause of a failed connection, with the remedy or in the engine's or the system's words."""
    reason = _cause(group)
    if reason == NO_ANSWER and address.tls:
        reason += "; does the engine serve TLS on this port?"
    remedy = next((remedy for start, remedy in REMEDIES.items() if reason.startswith(start)), reason)
    return f"{address.shown}: {remedy}"


def _cause(group: BaseExceptionGroup[Any]) -> str:
    error: BaseException = leaf_exceptions(group)[0]
    while (cause := error.__cause__) is not None:
        error = leaf_exceptions(cause)[0] if isinstance(cause, BaseExceptionGroup) else cause
    if isinstance(error, trio.TooSlowError | TimeoutError):
        return NO_ANSWER
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({tls_reason(error)})"
    if isinstance(error, OSError) and (error.errno or 0) > 0:
        return os.strerror(error.errno or 0)
    return describe_os_error(error)  # the name of its type, if it has no text


class RedisDirectory(Directory):
    """A node's side of the directory in an engine."""

    def __init__(
        self, limits: Limits, lease: float, make_name: Callable[[], str], address: EngineAddress, prefix: str
    ) -> None:
        super().__init__(limits, lease, make_name)
        self._address = address
        self._prefix = prefix
        self._last_entry = b"0"
        self._done: list[bytes] = []
        self._first_expiry = lease  # seconds until the first lease of all is over
        self._changed = RepeatedEvent()

    async def check(self) -> None:
        """Raise an `Ending` that names the URL and the reason if the engine cannot be used."""
        with map_exceptions(FAILURES, lambda group: Ending("engine_unavailable", _describe(group, self._address))):
            async with open_engine(self._address, self._prefix):
                pass

    async def run(self, handler: Handler) -> None:
        """Enter the cluster and stay until `leave`. Raises an `Ending` if the engine cannot be used at first."""
        while True:
            refused = ""
            try:
                async with open_engine(self._address, self._prefix) as engine:
                    await self._stay(engine, handler)
            except* FAILURES as group:
                reason = _describe(group, self._address)
                if self.status == "joining":
                    refused = reason
                else:
                    self._degrade(handler, reason)
            if refused:
                raise Ending("engine_unavailable", f"Cannot join the cluster: {refused}")
            if self.status == "left":
                return
            await trio.sleep(RETRY_SECONDS)

    async def _stay(self, engine: Engine, handler: Handler) -> None:
        """Use open connections until they fail."""
        if self.status == "joining":
            await self._join(engine)
            self._enter(handler, await self._beat(engine, handler))
        else:
            await self._come_back(engine, handler)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._make_calls, engine)
            nursery.start_soon(self._take_entries, engine, handler)
            nursery.start_soon(self._renew, engine, handler)

    async def _come_back(self, engine: Engine, handler: Handler) -> None:
        began = trio.current_time()
        with trio.fail_after(self._patience):
            epoch, flag, *_ = await engine.call("beat", self.node, 0, *self._beat_values())
        is_lost = not isinstance(flag, int)
        verdict = self._verdict(epoch.decode(), flag.decode() if is_lost else "")
        if verdict.is_new:
            self._degrade(handler, verdict.reason)
            await self._join(engine)
        else:
            self._renewed(began)
        self._restore(handler, verdict, self.nodes if is_lost else flag)

    async def _join(self, engine: Engine) -> None:
        began, values = trio.current_time(), (self._lease_ms, self._make_name(), self._epoch)
        self._epoch = (await engine.call("join", self.node, self._last_number, *values)).decode()
        self._renewed(began)
        self._last_answered, self._last_entry, self._done = self._last_number, b"0", []

    # ---- the lease

    @property
    def _lease_ms(self) -> int:
        return round(self._lease * 1000)

    @property
    def _patience(self) -> float:
        return self._lease * PATIENCE

    def _beat_values(self) -> tuple[int, int]:
        return self._lease_ms, self._last_answered

    async def _renew(self, engine: Engine, handler: Handler) -> None:
        while self.status != "left":
            await trio.sleep(min(self._lease / BEATS, self._first_expiry))
            self.nodes = await self._beat(engine, handler)

    async def _beat(self, engine: Engine, handler: Handler) -> int:
        """Renew the lease; returns the number of nodes. Raises an `OSError` if the node has to come back."""
        began = trio.current_time()
        with trio.fail_after(self._patience):
            _, nodes, *rest = await engine.call("beat", self.node, 0, *self._beat_values())
        self.engine_seconds(trio.current_time() - began)
        if not isinstance(nodes, int):
            raise OSError(nodes.decode())
        self._renewed(began)
        self._first_expiry = max(rest[0], 0) / 1000 + MARGIN
        for node, clients in zip(rest[1::2], rest[2::2], strict=True):
            handler.node_lost(node.decode(), int(clients))
        return nodes

    # ---- calls and entries

    async def _make_calls(self, engine: Engine) -> None:
        while True:
            calls = [*self._begin(UNANSWERED_CALLS)]
            if not calls:
                await self._changed.wait()
                continue
            began = trio.current_time()
            requests = [engine.call(call.script, self.node, call.number, *call.values()) for call in calls]
            for call, request in zip(calls, requests, strict=True):
                if await request == b"fenced":
                    raise OSError("fenced")
                self._answered(call)
            self.engine_seconds(trio.current_time() - began)

    async def _take_entries(self, engine: Engine, handler: Handler) -> None:
        while True:
            entries = await engine.read(self.node, self._last_entry, self._done)
            self._done = [number for number, _ in entries]
            if entries:
                self._last_entry = self._done[-1]
                handler.receive([entry for _, entry in entries])

    def _wake(self) -> None:
        self._changed.set()
