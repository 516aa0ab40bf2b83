"""An HTTP service that says who may come in, on a real socket: it keeps what it was asked, and answers what the test wants."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import h11
import trio

HttpError = Callable[["Hook"], Awaitable[tuple[int, bytes]]]


def says(status: int = 200, **body: Any) -> HttpError:
    return says_bytes(json.dumps(body).encode(), status)


def says_bytes(body: bytes, status: int = 200) -> HttpError:
    async def answer(_: "Hook") -> tuple[int, bytes]:
        return status, body

    return answer


@dataclass
class Hook:
    """What the service was asked so far, and how it answers."""

    answer: HttpError
    url: str = ""
    questions: list[dict[str, Any]] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0

    async def serve(self, stream: trio.SocketStream) -> None:
        connection = h11.Connection(h11.SERVER)
        body = b""
        try:
            async with stream:
                while True:
                    event = connection.next_event()
                    if event is h11.NEED_DATA:
                        connection.receive_data(await stream.receive_some())
                    elif isinstance(event, h11.Data):
                        body += bytes(event.data)
                    elif isinstance(event, h11.EndOfMessage):
                        await self._reply(stream, connection, body)
                        body = b""
                    elif isinstance(event, h11.ConnectionClosed):
                        return
        except (trio.BrokenResourceError, h11.RemoteProtocolError):
            return

    async def _reply(self, stream: trio.SocketStream, connection: h11.Connection, body: bytes) -> None:
        self.questions.append(json.loads(body))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            status, answer = await self.answer(self)
        finally:
            self.at_once -= 1
        headers = [("Content-Length", str(len(answer))), ("Location", "/elsewhere")]
        data = connection.send(h11.Response(status_code=status, headers=headers))
        data += connection.send(h11.Data(data=answer)) + connection.send(h11.EndOfMessage())
        await stream.send_all(data)
        connection.start_next_cycle()


@asynccontextmanager
async def hook(answer: HttpError) -> AsyncIterator[Hook]:
    service = Hook(answer)
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    service.url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}/auth"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, service.serve, [listener])
        yield service
        nursery.cancel_scope.cancel()
