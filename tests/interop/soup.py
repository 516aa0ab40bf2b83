"""The stage, seen from GLib's main loop: fetch scenes, play them, report. For gstreamer.py and the system's Python."""

import json
from collections.abc import Callable
from typing import Any

from gi.repository import GLib, Soup  # type: ignore[import-not-found, unused-ignore]


class Worker:
    """Fetch scenes from the stage at this URL; `play(scene, http, report)` plays one."""

    def __init__(self, stage: str, play: Callable[..., object]) -> None:
        self.stage = stage
        self.play = play
        self.http = Soup.Session(timeout=60)
        self.loop = GLib.MainLoop()
        self.plays: list[object] = []  # nobody else holds them

    def run(self) -> None:
        self.ask()
        self.loop.run()

    def ask(self) -> None:
        message = Soup.Message.new("GET", f"{self.stage}/next")
        self.http.send_and_read_async(message, GLib.PRIORITY_DEFAULT, None, self.answered, message)

    def answered(self, http: Any, result: Any, message: Any) -> None:
        body = http.send_and_read_finish(result).get_data()
        if message.get_status() == Soup.Status.CONNECTION_LOST:
            self.loop.quit()
            return
        if message.get_status() == Soup.Status.OK:
            scene = json.loads(body)
            self.plays.append(self.play(scene, self.http, Reports(self.http, f"{self.stage}/report/{scene['number']}")))
        self.ask()


class Reports:
    """Tell the stage what happens, one thing after the other."""

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
            self.http.send_and_read_async(message, GLib.PRIORITY_DEFAULT, None, self.posted)

    def posted(self, http: Any, result: Any) -> None:
        http.send_and_read_finish(result)
        self.post()
