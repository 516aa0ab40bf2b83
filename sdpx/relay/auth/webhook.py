"""The authentication webhook: an HTTP service of the operator that allows or denies each request. httpx is slow to load.

Only a valid answer allows a request: an error, a timeout, a status other than 200, an answer that is too long or has another
form all raise `Unavailable`.
"""

import re
import ssl
from typing import Final

import httpx
import msgspec
import trio

from sdpx.ice_servers import RtcIceServer

MAX_REQUESTS: Final = 64  # at the same time
MAX_ANSWER_BYTES: Final = 64 * 1024
MAX_REASON: Final = 200
_NOT_PRINTABLE: Final = re.compile(r"[^ -~\u00a0-\ud7ff\ue000-\uffff]+")


class WebhookRequest(msgspec.Struct, frozen=True):
    """The question to the service; `id` is the ID that the client asks for or that its token is for."""

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
        """Return the reason of a denial for the client: one line, truncated, without the token."""
        reason = self.reason or ""
        if token:
            reason = reason.replace(token, "...")
        return _NOT_PRINTABLE.sub(" ", reason).strip()[:MAX_REASON] or "Connection not authorized"


class Unavailable(Exception):
    """The service gave no usable answer. The message says why, and quotes nothing of the answer."""


class Webhook:
    """One service. `seconds` bounds the whole request, including the wait for one of `MAX_REQUESTS` slots."""

    def __init__(self, url: str, seconds: float) -> None:
        self._url = url
        self._seconds = seconds
        self._slots = trio.CapacityLimiter(MAX_REQUESTS)
        self._client = httpx.AsyncClient(
            verify=ssl.create_default_context(),
            trust_env=False,
            follow_redirects=False,
            timeout=seconds,
            # One connection for each request: a reused one may be closing, or hold a second answer to an earlier request.
            limits=httpx.Limits(max_connections=MAX_REQUESTS, max_keepalive_connections=0),
            headers={
                "Accept": "application/json",
                "Accept-Encoding": "identity",
                "Content-Type": "application/json",
                "User-Agent": "sdpx",
            },
        )

    async def ask(self, request: WebhookRequest) -> WebhookAnswer:
        """Send a request and return the answer; raises `Unavailable`."""
        with trio.move_on_after(self._seconds):
            async with self._slots:
                body = await self._post(msgspec.json.encode(request))
            try:
                return msgspec.json.decode(body, type=WebhookAnswer)
            except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
                form = '{"allowed": true or false, "reason": "...", "ice_servers": [...]}'
                raise Unavailable(f"its answer does not have the form {form}") from None
        raise Unavailable(f"it did not answer within {self._seconds:g} s")

    async def aclose(self) -> None:
        """Close the connections to the service."""
        await self._client.aclose()

    async def _post(self, body: bytes) -> bytes:
        answer = bytearray()
        try:
            async with self._client.stream("POST", self._url, content=body) as response:
                if response.status_code != httpx.codes.OK:
                    raise Unavailable(f"it answered with status {response.status_code}, not 200")
                async for chunk in response.aiter_raw():  # read to its end: httpx leaks a stream that is left earlier
                    answer += chunk if len(answer) <= MAX_ANSWER_BYTES else b""
        except (
            httpx.HTTPError,
            httpx.InvalidURL,
            ValueError,
        ) as error:  # the message may quote the URL with a password
            raise Unavailable(f"the request failed ({type(error).__name__})") from None
        if len(answer) > MAX_ANSWER_BYTES:
            raise Unavailable(f"its answer is longer than {MAX_ANSWER_BYTES} bytes")
        return bytes(answer)
