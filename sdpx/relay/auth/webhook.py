"""The authentication webhook: an HTTP service of the operator that allows or denies each request.

Only a valid answer allows a request: an error, a timeout, a status other than 200, an answer that is too long or has another
form all raise `Unavailable`. The client is h11 on a Trio stream: httpx leaves its generators open when an answer is abandoned
before its end, as an endless one has to be.
"""

import ssl
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

import h11
import msgspec
import trio

from sdpx.client_tls import open_stream
from sdpx.concurrency import FairSlots, fail_after, leaf_exceptions
from sdpx.ice_servers import RtcIceServer
from sdpx.protocol.codec import UNREADABLE
from sdpx.urls import basic_authorization, endpoint

MAX_REQUESTS: Final = 64  # at the same time
MAX_ANSWER_BYTES: Final = 64 * 1024
MAX_REASON: Final = 200
LONGEST_HOLD: Final = 3


class WebhookRequest(msgspec.Struct, frozen=True):
    """The request to the service; `id` is the ID that the client asks for or that its token is for."""

    id: str | None
    remote: str
    origin: str | None
    token: str | None
    path: str


class WebhookAnswer(msgspec.Struct, frozen=True):
    """The answer of the service: whether the client may connect, the reason if not, and its ICE servers if so."""

    allowed: bool
    reason: str | None = None
    ice_servers: list[RtcIceServer] | None = None

    def denial(self, token: str | None) -> str:
        """Return the reason of a denial for the client: one line, truncated, without the token and invisible characters."""
        reason = self.reason or ""
        if token:
            reason = reason.replace(token, "...")
        printable = "".join(character if character.isprintable() else " " for character in reason)
        return " ".join(printable.split())[:MAX_REASON] or "Connection not authorized"


class Unavailable(Exception):
    """The service gave no usable answer. The message has the reason, and quotes nothing of the answer."""


class _Call:
    """A call of the service, and its outcome once `done` is set: the body of the answer, or the reason that there is none."""

    def __init__(self, request: WebhookRequest) -> None:
        self.body = msgspec.json.encode(request)
        self.has_slot = False
        self.done = trio.Event()
        self.outcome: bytes | Unavailable = Unavailable("it did not answer")


class Webhook:
    """One service. `seconds` bounds the time of a client, including the wait for one of `MAX_REQUESTS` slots.

    The addresses of clients take turns in waiting for a slot.

    A call keeps its slot until the service has answered or closed the connection, even if its client no longer waits, but
    for `LONGEST_HOLD` times as long at most: the service works on it. The tasks of calls run in `nursery`. After a suspension
    (`resumed_at`, see `SuspensionDetector`) all times begin again, and a call that was cut off is made again.
    """

    def __init__(self, url: str, seconds: float, nursery: trio.Nursery, resumed_at: Callable[[float], float]) -> None:
        self._url = urlsplit(url)
        self._seconds = seconds
        self._nursery = nursery
        self._resumed_at = resumed_at
        self._slots = FairSlots(MAX_REQUESTS)
        self._tls = ssl.create_default_context() if self._url.scheme == "https" else None

    async def ask(self, request: WebhookRequest, address: str) -> WebhookAnswer:
        """Send a request of a client at this address and return the answer; raises `Unavailable`."""
        call = _Call(request)

        async def outcome() -> bytes | Unavailable:
            if not call.has_slot:
                await self._slots.acquire(address)
                call.has_slot = True
                self._nursery.start_soon(self._make, call)
            await call.done.wait()
            return call.outcome

        try:
            answer = await fail_after(self._seconds, self._resumed_at, outcome)
        except trio.TooSlowError:
            raise Unavailable(f"it did not answer within {self._seconds:g} s") from None
        if isinstance(answer, Unavailable):
            raise answer
        return _parse(answer)

    async def _make(self, call: _Call) -> None:
        """Make a call, and release its slot."""
        try:
            post = partial(self._post, call.body)
            call.outcome = await fail_after(LONGEST_HOLD * self._seconds, self._resumed_at, post)
        except trio.TooSlowError:
            pass
        except Unavailable as unavailable:
            call.outcome = unavailable
        except Exception as error:  # noqa: BLE001  of sockets, TLS, DNS and h11; the message may quote the URL
            cause = error.__cause__ or error  # of a connection: one error for each address that was tried
            cause = leaf_exceptions(cause)[0] if isinstance(cause, ExceptionGroup) else cause
            call.outcome = Unavailable(f"the request failed ({type(cause).__name__})")
        finally:
            self._slots.release()
            call.done.set()

    async def _post(self, body: bytes) -> bytes:
        """Return the body of the answer; each call has its own connection, without surplus answers to earlier calls."""
        url, connection, answer = self._url, h11.Connection(h11.CLIENT), bytearray()
        target = f"{url.path or '/'}{'?' if url.query else ''}{url.query}"
        request = h11.Request(
            method="POST", target=target, headers=[*self._headers(), ("Content-Length", str(len(body)))]
        )
        async with await open_stream(*endpoint(url.geturl()), self._tls) as stream:
            data = connection.send(request) + connection.send(h11.Data(body)) + connection.send(h11.EndOfMessage())
            await stream.send_all(data)
            while True:
                event = connection.next_event()
                if event is h11.NEED_DATA:
                    connection.receive_data(bytes(await stream.receive_some(MAX_ANSWER_BYTES)))
                elif isinstance(event, h11.Response) and event.status_code != HTTPStatus.OK:
                    raise Unavailable(f"it answered with status {event.status_code}, not 200")
                elif isinstance(event, h11.Data):
                    answer += event.data
                    if len(answer) > MAX_ANSWER_BYTES:
                        raise Unavailable(f"its answer is longer than {MAX_ANSWER_BYTES} bytes")
                elif isinstance(event, h11.EndOfMessage):
                    return bytes(answer)

    def _headers(self) -> list[tuple[str, str]]:
        authorization = basic_authorization(self._url.geturl())
        return [
            ("Host", self._url.netloc.rpartition("@")[2]),
            *([("Authorization", authorization)] if authorization is not None else []),
            ("Accept", "application/json"),
            ("Accept-Encoding", "identity"),
            ("Content-Type", "application/json"),
            ("User-Agent", "sdpx"),
        ]


def _parse(body: bytes) -> WebhookAnswer:
    """Return the answer in a body, in which a key with null counts as absent; raises `Unavailable`."""
    try:
        return msgspec.convert(_without_nulls(msgspec.json.decode(body)), WebhookAnswer)
    except UNREADABLE:
        form = '{"allowed": true or false, "reason": "...", "ice_servers": [...]}'
        raise Unavailable(f"its answer does not have the form {form}") from None


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value
