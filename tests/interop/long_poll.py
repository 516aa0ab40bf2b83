"""A long-poll client of the control server on libsoup, for gstreamer.py and the system's Python."""

import json
from collections.abc import Callable
from typing import Any

from gi.repository import GLib, Soup  # type: ignore[import-not-found, unused-ignore]


class LongPollClient:
    """Fetches scenarios from the control server at this URL; `start(scenario, http, report)` runs one."""

    def __init__(self, control: str, start: Callable[..., object]) -> None:
        self.control = control
        self.start = start
        self.http = Soup.Session(timeout=60)
        self.loop = GLib.MainLoop()
        self.running: list[object] = []  # keeps them alive

    def run(self) -> None:
        self.poll()
        self.loop.run()

    def poll(self) -> None:
        message = Soup.Message.new("GET", f"{self.control}/next")
        self.http.send_and_read_async(message, GLib.PRIORITY_DEFAULT, None, self.on_scenario, message)

    def on_scenario(self, http: Any, result: Any, message: Any) -> None:
        body = http.send_and_read_finish(result).get_data()
        if message.get_status() == Soup.Status.GONE:
            self.loop.quit()
            return
        if message.get_status() == Soup.Status.OK:
            scenario = json.loads(body)
            self.running.append(
                self.start(scenario, self.http, Reporter(self.http, f"{self.control}/report/{scenario['number']}"))
            )
        self.poll()


class Reporter:
    """Posts events to the control server, one after the other."""

    def __init__(self, http: Any, url: str) -> None:
        self.http = http
        self.url = url
        self.queue: list[dict[str, Any]] = []
        self.busy = False

    def __call__(self, event: str, **more: Any) -> None:
        self.queue.append({"event": event, **more})
        if not self.busy:
            self.post()

    def post(self) -> None:
        self.busy = bool(self.queue)
        if self.busy:
            message = Soup.Message.new("POST", self.url)
            body = GLib.Bytes.new(json.dumps(self.queue.pop(0)).encode())
            message.set_request_body_from_bytes("application/json", body)
            self.http.send_and_read_async(message, GLib.PRIORITY_DEFAULT, None, self.on_posted)

    def on_posted(self, http: Any, result: Any) -> None:
        http.send_and_read_finish(result)
        self.post()
