"""The stage: an HTTP server, in a thread, from which foreign clients fetch scenes and to which they report.

A client long-polls `/next` for a scene (client.mjs says what is in one) and posts what happens to `/report/NUMBER`. That
works alike for a page in a browser and for a program, and a client process can play any number of scenes.
"""

import json
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import trio

HERE: Final = Path(__file__).parent
POLL_SECONDS: Final = 15.0
EXAMPLE: Final = HERE.parent.parent / "sdpx" / "docs" / "examples" / "peer.html"


def _read(name: str) -> bytes:
    return (HERE / name).read_bytes()


FILES: Final[dict[str, tuple[str, Callable[[], bytes]]]] = {
    "/": ("text/html", lambda: _read("page.html")),
    "/client.mjs": ("text/javascript", lambda: _read("client.mjs")),
    "/page.mjs": ("text/javascript", lambda: _read("page.mjs")),
    "/peer.html": ("text/html", EXAMPLE.read_bytes),
}

Report = dict[str, Any]


class Scene:
    """What one foreign client is to do, and what it has reported so far."""

    def __init__(self, number: int, script: dict[str, Any]) -> None:
        self.script = script | {"number": number}
        self.reports: list[Report] = []
        self._token = trio.lowlevel.current_trio_token()
        self._news = trio.Event()

    def put(self, report: Report) -> None:
        """Take a report, from any thread; one that comes after the test is of no use to anybody."""
        try:
            self._token.run_sync_soon(self._take, report)
        except trio.RunFinishedError:
            return

    def _take(self, report: Report) -> None:
        self.reports.append(report)
        self._news.set()
        self._news = trio.Event()

    async def heard(self, event: str, **keys: object) -> Report:
        """Wait for such a report and return the first; a client that failed fails the test."""
        while True:
            for report in self.reports:
                assert report["event"] != "failed", report["reason"]
                if report["event"] == event and keys.items() <= report.items():
                    return report
            await self._news.wait()


class Stage:
    """Scenes waiting for a client, and those that are being played."""

    def __init__(self) -> None:
        self.url = ""
        self.joined = threading.Event()
        self.dead: str | None = None
        self.scenes: dict[int, Scene] = {}
        self._waiting: queue.SimpleQueue[Scene | None] = queue.SimpleQueue()

    def play(self, **script: object) -> Scene:
        """Let the client play a scene; call it from Trio."""
        scene = Scene(len(self.scenes), script)
        self.scenes[len(self.scenes)] = scene
        self._waiting.put(scene)
        if self.dead is not None:
            self.bury(self.dead)
        return scene

    def bury(self, reason: str) -> None:
        """Let every scene fail, from any thread: the client's process has ended."""
        self.dead = reason
        self.joined.set()
        for scene in list(self.scenes.values()):
            scene.put({"event": "failed", "reason": reason})

    def dismiss(self) -> None:
        """Tell the client that there will be no more scenes."""
        self._waiting.put(None)

    def next(self) -> tuple[HTTPStatus, bytes]:
        """Answer a client that asks for its next scene."""
        self.joined.set()
        try:
            scene = self._waiting.get(timeout=POLL_SECONDS)
        except queue.Empty:
            return HTTPStatus.NO_CONTENT, b""
        return (HTTPStatus.OK, json.dumps(scene.script).encode()) if scene else (HTTPStatus.GONE, b"")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    stage: Stage

    def do_GET(self) -> None:
        if self.path == "/next":
            self._answer(*self.stage.next(), "application/json")
        elif (path := self.path.partition("?")[0]) in FILES:
            kind, read = FILES[path]
            self._answer(HTTPStatus.OK, read(), kind)
        else:
            self._answer(HTTPStatus.NOT_FOUND, b"", "text/plain")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.stage.scenes[int(self.path.rpartition("/")[2])].put(json.loads(body))
        self._answer(HTTPStatus.OK, b"", "text/plain")

    def _answer(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if status != HTTPStatus.NO_CONTENT:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the library's name
        """Say nothing: stderr belongs to the tests."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a browser that is killed breaks its connections."""


@contextmanager
def stage() -> Iterator[Stage]:
    """Serve a stage on a free port of 127.0.0.1."""
    made = Stage()
    with _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"stage": made})) as server:
        made.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield made
        finally:
            made.dismiss()
            server.shutdown()
            thread.join()
