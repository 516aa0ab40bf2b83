"""A relay with authentication, TLS and TURN as its options say, and requests to it by hand."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import trio

from sdpx.log import Log
from sdpx.relay.acceptor import Acceptor
from sdpx.relay.admission import Admission
from sdpx.relay.auth.authenticator import open_authenticator
from sdpx.relay.auth.credentials import Credentials
from sdpx.relay.auth.options import AuthOptions
from sdpx.relay.auth.turn import IceServerIssuer
from sdpx.relay.core.limits import Limits
from sdpx.relay.relay import Relay
from sdpx.relay.websocket.epoll_engine import EpollEngine
from tests.harness.credentials import NOW
from tests.harness.frames import upgrade_request
from tests.harness.log import LogRecorder
from tests.harness.relay import RawClient, RelayHarness, closing


@dataclass
class AuthRelayHarness(RelayHarness):
    """Sets the time of day, and answers requests with headers of one's own."""

    credentials: Credentials = field(kw_only=True)
    issuer: IceServerIssuer = field(kw_only=True)
    now: float = NOW

    async def ask(self, target: str = "/", *headers: str, host: str = "192.0.2.1") -> tuple[int, Any]:
        """Request a WebSocket; returns the status, and the body, or the relay's first frame."""
        status, _, body, client = await self._ask(target, *headers, host=host)
        return status, json.loads(body) if status != 101 else await client.receive()

    async def headers(self, target: str = "/", *headers: str) -> dict[str, str]:
        return (await self._ask(target, *headers, host="192.0.2.1"))[1]

    async def enter(self, target: str = "/", *headers: str, host: str = "192.0.2.1") -> RawClient:
        """Request a WebSocket that is to open, and read `your_id`."""
        status, _, _, client = await self._ask(target, *headers, host=host)
        assert status == 101
        await client.receive()
        return client

    async def _ask(self, target: str, *headers: str, host: str) -> tuple[int, dict[str, str], bytes, RawClient]:
        client = self.raw(remote=f"{host}:4711")
        head = upgrade_request(target)
        await client.send(head[:-2] + "".join(f"{line}\r\n" for line in headers).encode() + b"\r\n")
        return *await client.response(), client


@asynccontextmanager
async def auth_relay(
    options: AuthOptions, limits: Limits | None = None, *, now: float = NOW
) -> AsyncIterator[AuthRelayHarness]:
    """Open a relay with these options, its files read; it is torn down at the end."""
    recorder = LogRecorder()
    log = Log(recorder.put, trio.current_time, level="debug")
    opened: list[AuthRelayHarness] = []

    def clock() -> float:
        return opened[0].now if opened else now

    credentials = Credentials(options, clock)
    credentials.load()
    issuer = IceServerIssuer(clock, (), options.turn_url, options.turn_ttl, lambda: credentials.turn_secret)
    limits = limits or Limits()
    relay = Relay(limits, log, ice=issuer)
    async with (
        open_authenticator(options, credentials, clock, log.emit, relay.handler.resumed_at) as authenticator,
        trio.open_nursery() as background,
        trio.open_nursery() as nursery,
    ):
        engine = EpollEngine(nursery, log.begin_batch, log.end_batch)
        acceptor = Acceptor(limits, relay, engine=engine, admission=Admission(relay, authenticator))
        background.start_soon(engine.run)
        harness = AuthRelayHarness(
            relay, acceptor, recorder, nursery, engine, credentials=credentials, issuer=issuer, now=now
        )
        opened.append(harness)
        with closing(harness, background):
            yield harness
