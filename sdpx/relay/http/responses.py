"""What plain HTTP is answered with: a refusal, or a page. Pure.

Every response closes its connection. A refusal's body is JSON, `{"code", "message"}` (PROTOCOL: error codes).
"""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import msgspec

JSON: Final = "application/json"


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """What was asked for."""

    status: int
    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()

    def render(self, *, head_only: bool = False) -> bytes:
        """Return the response on the wire (RFC 9112)."""
        headers = [("Content-Type", self.content_type), ("Content-Length", str(len(self.body))), *self.headers]
        if not any(name == "Connection" for name, _ in headers):
            headers.append(("Connection", "close"))
        head = f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in headers) + "\r\n"
        return head.encode("ascii") + (b"" if head_only else self.body)


@dataclass(frozen=True, slots=True)
class HttpError:
    """Why a connection is refused. `client_id` says who is, for the log only, where that is known."""

    status: int
    code: str
    message: str
    headers: tuple[tuple[str, str], ...] = ()
    client_id: str | None = None

    def render(self, *, head_only: bool = False) -> bytes:
        """Return the response on the wire."""
        body = msgspec.json.encode({"code": self.code, "message": self.message}) + b"\n"
        return HttpResponse(self.status, JSON, body, self.headers).render(head_only=head_only)


FULL: Final = HttpError(
    503, "full", "The relay has as many clients as it may have; try again later", (("Retry-After", "30"),)
)
CROWDED: Final = HttpError(429, "too_many_connections", "There are too many connections from your address")
STOPPING: Final = HttpError(503, "shutting_down", "The relay is stopping; try again soon", (("Retry-After", "5"),))


def id_taken(client_id: str) -> HttpError:
    """Return the refusal of an ID that another client has."""
    message = f"The ID '{client_id}' is taken; ask for another, or for none"
    return HttpError(409, "id_taken", message, client_id=client_id)
