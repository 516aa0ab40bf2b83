"""An HTTP server for the authentication webhook: it records requests and answers as a test decides."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import h11
import trio

Answer = Callable[["WebhookServer"], Awaitable[tuple[int, bytes]]]


def answer_json(status: int = 200, **body: Any) -> Answer:
    return answer_bytes(json.dumps(body).encode(), status)


def answer_bytes(body: bytes, status: int = 200) -> Answer:
    async def answer(_: "WebhookServer") -> tuple[int, bytes]:
        return status, body

    return answer


@dataclass
class WebhookServer:
    """The recorded requests, and the answer to the next ones."""

    answer: Answer
    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    concurrent: int = 0
    most_concurrent: int = 0

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
        self.requests.append(json.loads(body))
        self.concurrent += 1
        self.most_concurrent = max(self.most_concurrent, self.concurrent)
        try:
            status, answer = await self.answer(self)
        finally:
            self.concurrent -= 1
        headers = [("Content-Length", str(len(answer))), ("Location", "/elsewhere")]
        data = connection.send(h11.Response(status_code=status, headers=headers))
        data += connection.send(h11.Data(data=answer)) + connection.send(h11.EndOfMessage())
        await stream.send_all(data)
        connection.start_next_cycle()


@asynccontextmanager
async def webhook_server(answer: Answer) -> AsyncIterator[WebhookServer]:
    service = WebhookServer(answer)
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    service.url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}/auth"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, service.serve, [listener])
        yield service
        nursery.cancel_scope.cancel()
