"""HTTP responses: pages and errors. Pure.

Every response closes its connection. The body of an error is JSON, `{"code", "message"}` (protocol.md: error codes).
"""

from http import HTTPStatus
from typing import Final

import msgspec
from msgspec import Struct

JSON: Final = "application/json"


class HttpResponse(Struct, frozen=True):
    """A page."""

    status: int
    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()

    def render(self, *, head_only: bool = False, date: str = "") -> bytes:
        """Return the response as bytes (RFC 9112), without the body for a HEAD request; `date` as in RFC 9110, 6.6.1."""
        headers = [("Date", date)] if date else []
        headers += [("Content-Type", self.content_type), ("Content-Length", str(len(self.body))), *self.headers]
        if not any(name == "Connection" for name, _ in headers):
            headers.append(("Connection", "close"))
        head = f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in headers) + "\r\n"
        return head.encode("ascii") + (b"" if head_only else self.body)


class HttpError(Struct, frozen=True):
    """The refusal of a connection. `client_id`, where it is known, is for the log only."""

    status: int
    code: str
    message: str
    headers: tuple[tuple[str, str], ...] = ()
    client_id: str | None = None

    def render(self, *, head_only: bool = False, date: str = "") -> bytes:
        """Return the response as bytes, as `HttpResponse.render` does."""
        body = msgspec.json.encode({"code": self.code, "message": self.message}) + b"\n"
        return HttpResponse(self.status, JSON, body, self.headers).render(head_only=head_only, date=date)


FULL: Final = HttpError(
    503, "full", "The relay has reached its maximum number of clients; try again later", (("Retry-After", "30"),)
)
CROWDED: Final = HttpError(429, "too_many_connections", "Too many connections from your address")
TIMEOUT: Final = HttpError(408, "timeout", "The request did not arrive before the handshake timeout")
TLS_REQUIRED: Final = HttpError(400, "bad_request", "This port requires TLS: use wss:// or https://")
ENGINE_UNAVAILABLE: Final = HttpError(
    503, "engine_unavailable", "The relay cannot reach its cluster; try again soon", (("Retry-After", "1"),)
)
STOPPING: Final = HttpError(503, "shutting_down", "The relay is stopping; try again soon", (("Retry-After", "5"),))


def id_taken(client_id: str, resume_window: float) -> HttpError:
    """Return the refusal of an ID that another client has, or had until it was cut off, at most `resume_window` seconds ago."""
    kept = f", or its program was killed or cut off less than {resume_window:g} s ago" if resume_window else ""
    message = f"The ID '{client_id}' is in use{kept}; ask for another ID or none{', or try again then' if kept else ''}"
    return HttpError(409, "id_taken", message, client_id=client_id)
