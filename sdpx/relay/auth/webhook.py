"""The operator's own say in who comes in: an HTTP service that is asked about each request. Imported only where there is one.

Whatever keeps it from saying yes is a no: that it is not there, is slow, answers with another status than 200, too much, or
anything but what is asked for.
"""

import re
import ssl
from typing import Final

import httpx
import msgspec
import trio

from sdpx.ice_servers import RtcIceServer

IN_FLIGHT: Final = 64
LARGEST_ANSWER: Final = 64 * 1024
LARGEST_REASON: Final = 200
_UNSHOWN: Final = re.compile(r"[^ -~\u00a0-\ud7ff\ue000-\uffff]+")


class Question(msgspec.Struct, frozen=True):
    """What the service is asked: the ID that the client wants or is bound to, where it is, and what it brings."""

    id: str | None
    remote: str
    origin: str | None
    token: str | None
    path: str


class Reply(msgspec.Struct, frozen=True):
    """What the service answers: whether the client may come in, why not, and what ICE servers it gets if it may."""

    allowed: bool
    reason: str | None = None
    ice_servers: list[RtcIceServer] | None = None


class Unavailable(Exception):
    """There is no answer that can be used; the sentence says why, and quotes nothing."""


class Webhook:
    """One service. `seconds` is how long an answer may take, with the wait for one of the `IN_FLIGHT` places."""

    def __init__(self, url: str, seconds: float) -> None:
        self._url = url
        self._seconds = seconds
        self._places = trio.CapacityLimiter(IN_FLIGHT)
        self._client = httpx.AsyncClient(
            verify=ssl.create_default_context(),
            trust_env=False,
            follow_redirects=False,
            timeout=seconds,
            # A connection for each: one that is used again may be about to end, or hold an answer to somebody else's question.
            limits=httpx.Limits(max_connections=IN_FLIGHT, max_keepalive_connections=0),
            headers={
                "Accept": "application/json",
                "Accept-Encoding": "identity",
                "Content-Type": "application/json",
                "User-Agent": "sdpx",
            },
        )

    async def ask(self, question: Question) -> Reply:
        """Ask, and return the answer; raises `Unavailable`."""
        with trio.move_on_after(self._seconds):
            async with self._places:
                return _reply(await self._post(msgspec.json.encode(question)))
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
                async for (
                    chunk
                ) in response.aiter_raw():  # to its end, in the time that there is: httpx leaks one that is left
                    answer += chunk if len(answer) <= LARGEST_ANSWER else b""
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:  # its words may quote the URL: a password
            raise Unavailable(f"it cannot be asked ({type(error).__name__})") from None
        if len(answer) > LARGEST_ANSWER:
            raise Unavailable(f"it answered with more than {LARGEST_ANSWER} bytes")
        return bytes(answer)


def shown_reason(reply: Reply, token: str | None) -> str:
    """Return the service's reason for a no, as the client may read it: one line, not too long, without the token."""
    reason = reply.reason or ""
    if token:
        reason = reason.replace(token, "...")
    reason = _UNSHOWN.sub(" ", reason).strip()[:LARGEST_REASON]
    return reason or "You may not come in"


def _reply(body: bytes) -> Reply:
    try:
        return msgspec.json.decode(body, type=Reply)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        wanted = '{"allowed": true or false, "reason": "...", "ice_servers": [...]}'
        raise Unavailable(f"its answer is not {wanted}") from None
