"""The control server: an HTTP server in a thread that gives scenarios to clients of other stacks, and collects their reports.

A client long-polls `/next` for a scenario (see client.mjs) and posts its events to `/report/NUMBER`. This works for a page in a
browser and for a program, and one client process can run any number of scenarios.
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

from sdpx.concurrency import RepeatedEvent

HERE: Final = Path(__file__).parent
POLL_SECONDS: Final = 15.0
PEER_PAGE: Final = HERE / "peer.html"


def _read(name: str) -> bytes:
    return (HERE / name).read_bytes()


FILES: Final[dict[str, tuple[str, Callable[[], bytes]]]] = {
    "/": ("text/html", lambda: _read("page.html")),
    "/client.mjs": ("text/javascript", lambda: _read("client.mjs")),
    "/perfect.mjs": ("text/javascript", lambda: _read("perfect.mjs")),
    "/page.mjs": ("text/javascript", lambda: _read("page.mjs")),
    "/peer.html": ("text/html", PEER_PAGE.read_bytes),
}

Report = dict[str, Any]


class Scenario:
    """The parameters of one run of a client, and its reports so far."""

    def __init__(self, number: int, script: dict[str, Any]) -> None:
        self.script = script | {"number": number}
        self.reports: list[Report] = []
        self._token = trio.lowlevel.current_trio_token()
        self._changed = RepeatedEvent()

    def add_report(self, report: Report) -> None:
        """Add a report, from any thread; a report after the end of the test is dropped."""
        try:
            self._token.run_sync_soon(self._add, report)
        except trio.RunFinishedError:
            return

    def _add(self, report: Report) -> None:
        self.reports.append(report)
        self._changed.set()

    async def change(self) -> None:
        """Wait for the next report."""
        await self._changed.wait()

    async def wait_for(self, event: str, **keys: object) -> Report:
        """Wait for a report with these keys and return the first; a `failed` report fails the test."""
        while True:
            for report in self.reports:
                assert report["event"] != "failed", report["reason"]
                if report["event"] == event and keys.items() <= report.items():
                    return report
            await self._changed.wait()


class ControlServer:
    """The scenarios that wait for a client, and those that run."""

    def __init__(self) -> None:
        self.url = ""
        self.connected = threading.Event()
        self.failure: str | None = None
        self.scenarios: dict[int, Scenario] = {}
        self._waiting: queue.SimpleQueue[Scenario | None] = queue.SimpleQueue()

    def start(self, **script: object) -> Scenario:
        """Let the client run a scenario; to be called from Trio."""
        scenario = Scenario(len(self.scenarios), script)
        self.scenarios[len(self.scenarios)] = scenario
        self._waiting.put(scenario)
        if self.failure is not None:
            self.fail_all(self.failure)
        return scenario

    def fail_all(self, reason: str) -> None:
        """Fail every scenario, from any thread: the process of the client has ended."""
        self.failure = reason
        self.connected.set()
        for scenario in list(self.scenarios.values()):
            scenario.add_report({"event": "failed", "reason": reason})

    def close(self) -> None:
        """Notify the client that no more scenarios follow."""
        self._waiting.put(None)

    def next(self) -> tuple[HTTPStatus, bytes]:
        """Answer a request for the next scenario."""
        self.connected.set()
        try:
            scenario = self._waiting.get(timeout=POLL_SECONDS)
        except queue.Empty:
            return HTTPStatus.NO_CONTENT, b""
        return (HTTPStatus.OK, json.dumps(scenario.script).encode()) if scenario else (HTTPStatus.GONE, b"")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    control: ControlServer

    def do_GET(self) -> None:
        if self.path == "/next":
            self._answer(*self.control.next(), "application/json")
        elif (path := self.path.partition("?")[0]) in FILES:
            kind, read = FILES[path]
            self._answer(HTTPStatus.OK, read(), kind)
        else:
            self._answer(HTTPStatus.NOT_FOUND, b"", "text/plain")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.control.scenarios[int(self.path.rpartition("/")[2])].add_report(json.loads(body))
        self._answer(HTTPStatus.OK, b"", "text/plain")

    def _answer(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if status != HTTPStatus.NO_CONTENT:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the library's name
        """Write nothing: stderr belongs to the tests."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # connections of a browser, which opens several at once, that wait for a thread
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """Write nothing: a killed browser breaks its connections."""


@contextmanager
def control_server() -> Iterator[ControlServer]:
    """Run a control server on a free port of 127.0.0.1."""
    control = ControlServer()
    with _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"control": control})) as server:
        control.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield control
        finally:
            control.close()
            server.shutdown()
            thread.join()
