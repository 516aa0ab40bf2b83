"""The connection to one relay, across lost sockets; the only module that dials.

- The first dial decides: if it fails, the client stops, unless the relay is unavailable for now and `--wait` lasts. A
  connection that is lost later is dialled again, with exponential backoff, until `--no-reconnect` or an error that another
  dial cannot change stops the client.
- Without `--no-reconnect` the session is resumable (PROTOCOL: Resume). The first dial after a loss is immediate, and a
  resumed session raises no event. `Disconnected` is raised if the relay has lost the session, or after `RESUME_SECONDS`.
- A dial requests the previous ID. The relay answers 409 as long as it considers the old socket open: an ID that the user
  chose is requested until it is free, one that the relay assigned is given up after `ID_TRIES`.
- `events` yields `Connected`, the relay's messages, then `Disconnected`, as often as there is a session; the last is `Stopped`.
"""

import math
import ssl
from collections.abc import Callable
from typing import Any, Final

import msgspec
import trio
from msgspec import Struct

from sdpx.concurrency import RepeatedEvent, leaf_exceptions
from sdpx.errors import Ending, ExitStatus
from sdpx.events import peer
from sdpx.log import Log
from sdpx.peer.options import PeerOptions
from sdpx.peer.signaling.backoff import Backoff
from sdpx.peer.signaling.connection import CLOSE_SECONDS, SignalingConnection, dial
from sdpx.peer.signaling.reliable_channel import ProtocolViolation, ReliableChannel
from sdpx.peer.signaling.resume import ResumeResult, ResumeState
from sdpx.protocol.messages import IceServers, ServerMessage

# Close codes (RFC 6455, 7.4; PROTOCOL).
NORMAL: Final = 1000
GOING_AWAY: Final = 1001
PROTOCOL_ERROR: Final = 1002
ABNORMAL: Final = 1006
RESTARTING: Final = 1012
SUPERSEDED: Final = 4001

FIRST_DELAY: Final = 0.5
LONGEST_DELAY: Final = 30.0
LONGEST_RESUME_DELAY: Final = 5.0
RESUME_SECONDS: Final = 30.0  # the relay's usual resume window
STABLE_SECONDS: Final = 10.0  # a connection that lasted so long resets the backoff
RESTART_SECONDS: Final = 0.5  # ... or so long, if it was closed because the node restarts
ID_TRIES: Final = 4
# The proxy before the relay answers, or the relay itself cannot take a client now (HTTP 502, 503, 504).
_TEMPORARY: Final = ("relay_unavailable", "full", "shutting_down", "auth_unavailable", "engine_unavailable")
_FINAL: Final = ("taken_over", "unauthorized", "forbidden", "bad_id", "bad_request", "not_found", "upgrade_required")


class Connected(Struct, frozen=True):
    """A session at the relay is open: its ID, the relay's ICE servers, how long the dial took, and the channel to send on."""

    client_id: str
    ice_servers: Any
    seconds: float
    channel: ReliableChannel


class Disconnected(Struct, frozen=True):
    """The session is over, and with it its pairing at the relay."""


class Stopped(Struct, frozen=True):
    """The client does not dial any more, for this reason."""

    ending: Ending


SignalingEvent = Connected | Disconnected | Stopped | ServerMessage


class SignalingClient:
    """A client of the relay in `options`; `tls` is for wss:// URLs, `chance` supplies the jitter: uniform in [0, 1).

    An ID that is in use is requested for `id_wait` seconds at the first dial: its former process may have been killed.
    """

    def __init__(
        self,
        options: PeerOptions,
        tls: ssl.SSLContext | None,
        log: Log,
        chance: Callable[[], float],
        id_wait: float = 0.0,
    ) -> None:
        self._id_wait = id_wait
        self._options = options
        self._tls = tls
        self._log = log
        self._chance = chance
        self._backoff = Backoff(FIRST_DELAY, LONGEST_DELAY)
        self._client_id = options.client_id
        self._id_refusals = 0
        self._ever_connected = False
        self._wait_until = 0.0
        self._state = ResumeState()
        self._channel: ReliableChannel | None = None  # of the present session
        self._connection: SignalingConnection | None = None
        self.connected_since: float | None = None  # when the present connection was opened
        self._lost_at = 0.0
        self._resume_timeout = trio.CancelScope()
        self._serving = trio.CancelScope()
        self._closed = trio.Event()
        self._changed = RepeatedEvent()
        self._send_event, self.events = trio.open_memory_channel[SignalingEvent](0)

    async def run(self) -> None:
        """Dial until no further dial is allowed; the last event is `Stopped`."""
        self._wait_until = trio.current_time() + self._options.wait
        self._id_wait += trio.current_time()
        async with trio.open_nursery() as nursery:
            ending = await self._connect(nursery)
            while await self._wait_to_dial(ending):
                ending = await self._connect(nursery)
            self._resume_timeout.cancel()
            await self._end_session()
            await self._send_event.send(Stopped(ending))

    async def close(self) -> None:
        """Write all frames and close the connection; the caller then cancels `run`.

        A session that is about to be resumed is waited for, within `CLOSE_SECONDS`: otherwise the relay would keep it for the
        whole resume window.
        """
        with trio.move_on_after(CLOSE_SECONDS):
            while self._connection is None and self._channel is not None:
                await self._changed.wait()
            if self._channel is not None:
                await self._channel.flush()
        if self._connection is not None:
            self._serving.cancel()
            await self._closed.wait()

    async def send(self, message: msgspec.Struct, on_written: Callable[[], None] | None = None) -> bool:
        """Send a message (see `ReliableChannel.send`); False without a session."""
        return self._channel is not None and await self._channel.send(message, on_written)

    async def drop(self) -> None:
        """Drop the present connection, which does not answer; the next one resumes the session."""
        if self._connection is not None:
            await self._connection.drop()

    # ---- one connection -------------------------------------------------------------------------------------------

    async def _connect(self, nursery: trio.Nursery) -> Ending:
        """Open a connection and serve it to its end; returns why it ended, or why it could not be opened."""
        self._log.emit(peer.Connecting(self._options.shown_url))
        began, progress = trio.current_time(), self._state.progress
        query = self._state.query() if self._options.reconnect else []
        url = self._options.dial_url_for(self._client_id, query)
        try:
            async with dial(url, self._options.shown_url, self._tls, self._options.dial_headers) as connection:
                with trio.CancelScope() as self._serving:  # `close` cancels this, but not the task that writes
                    self._log.emit(peer.Connected(self._options.shown_url))
                    self._connection, self.connected_since = connection, trio.current_time()
                    if (channel := await self._open_session(connection, self.connected_since - began)) is not None:
                        await self._serve(connection, channel)
                    await trio.lowlevel.checkpoint_if_cancelled()  # by `close`, while the connection was closed here
                    is_restart = connection.close_reason is not None and connection.close_reason.code == RESTARTING
                    enough = RESTART_SECONDS if is_restart else STABLE_SECONDS
                    if self._state.progress > progress or trio.current_time() - self.connected_since > enough:
                        self._backoff.reset()
                    self._connection = self.connected_since = None
                    return await self._on_connection_lost(connection, nursery)
            self._closed.set()
            await trio.sleep_forever()
        except* Ending as group:
            ending = leaf_exceptions(group)[0]
        if self._connection is not None:  # the relay broke the WebSocket protocol
            connection, self._connection, self.connected_since = self._connection, None, None
            await self._on_connection_lost(connection, nursery)
        return ending

    async def _open_session(self, connection: SignalingConnection, seconds: float) -> ReliableChannel | None:
        """Resume the session or open a new one; None if the connection is of no use and has been closed."""
        your_id = connection.your_id
        result = self._state.on_your_id(your_id)
        self._resume_timeout.cancel()
        self._ever_connected, self._id_refusals = True, 0
        channel = self._channel
        if result is ResumeResult.RESUMED and channel is not None:
            away = round((trio.current_time() - self._lost_at) * 1000, 1)
            self._log.emit(peer.RelayResumed(your_id.id, away, self._state.unconfirmed))
            channel.resume()
            connection.write_from(channel)
            self._changed.set()
            if isinstance(your_id.ice_servers, list):
                await self._send_event.send(IceServers(your_id.ice_servers))
            return channel
        await self._end_session()
        if result in (ResumeResult.RESUMED, ResumeResult.INVALID):  # `RESUMED` after `RESUME_SECONDS` is too late
            self._state.forget()
            await connection.close(PROTOCOL_ERROR if result is ResumeResult.INVALID else NORMAL)
            return None
        self._log.emit(peer.IdAssigned(your_id.id))
        self._client_id = your_id.id
        channel = self._channel = ReliableChannel(self._state)
        connection.write_from(channel)
        await self._send_event.send(Connected(your_id.id, your_id.ice_servers, seconds, channel))
        return channel

    async def _serve(self, connection: SignalingConnection, channel: ReliableChannel) -> None:
        while (text := await connection.receive()) is not None:
            received = channel.receive(text)
            if received is ProtocolViolation.GAP:
                await connection.drop()
            elif received is ProtocolViolation.BAD_ACK:
                self._state.forget()
                await connection.close(PROTOCOL_ERROR)
            elif received is not None:
                await self._send_event.send(received)

    async def _on_connection_lost(self, connection: SignalingConnection, nursery: trio.Nursery) -> Ending:
        closed = connection.close_reason
        code = closed.code if closed else ABNORMAL
        self._log.emit(peer.Disconnected(code, (closed.reason if closed else None) or ""))
        self._lost_at = trio.current_time()
        channel = self._channel
        if channel is not None and not channel.is_closed and self._state.is_resumable and code != SUPERSEDED:
            channel.suspend()
            self._resume_timeout = trio.CancelScope()
            nursery.start_soon(self._end_session_later, self._resume_timeout)
        else:
            await self._end_session()
        if code == SUPERSEDED:
            reason = "Another connection has taken over this peer's session at the relay"
            return Ending("taken_over", reason, ExitStatus.RELAY)
        reason = f"The connection to the relay at {self._options.shown_url} was lost"
        if code in {GOING_AWAY, RESTARTING}:
            reason = f"The relay at {self._options.shown_url}, or a proxy before it, is stopping"
        return Ending("relay_lost", reason, ExitStatus.RELAY)

    # ---- between two connections ----------------------------------------------------------------------------------

    async def _end_session_later(self, scope: trio.CancelScope) -> None:
        with scope:
            await trio.sleep(RESUME_SECONDS)
        if not scope.cancelled_caught:
            await self._end_session()

    async def _end_session(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()
            self._changed.set()
            await self._send_event.send(Disconnected())

    async def _wait_to_dial(self, ending: Ending) -> bool:
        """Wait for the time of the next dial; False if there is none."""
        left = math.inf
        if not self._ever_connected:
            until = self._id_wait if ending.code == "id_taken" else self._wait_until
            left = until - trio.current_time()
            if ending.code not in (*_TEMPORARY, "id_taken") or left <= 0:
                return False
        elif not self._options.reconnect or ending.code in _FINAL:
            return False
        if ending.code == "id_taken":
            self._id_refusals += 1
            if self._id_refusals >= ID_TRIES and not self._options.names_itself:
                self._client_id = None
        if self._channel is None:
            delay = self._backoff.next(self._chance())
        elif self._backoff.attempts == 0:
            delay = self._backoff.next_immediate()
        else:
            delay = self._backoff.next(self._chance(), LONGEST_RESUME_DELAY)
        delay = min(delay, left)
        self._log.emit(peer.Reconnecting(self._backoff.attempts, round(delay * 1000, 1), ending.code, ending.reason))
        await trio.sleep(delay)
        return True
