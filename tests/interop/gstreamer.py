"""The client of client.mjs on GStreamer's webrtcbin, for the system's Python and its GLib bindings.

`gstreamer.py URL` runs the scenarios of the control server at URL; without one it prints the parts that are not installed.
Everything runs in GLib's main loop; the signals of webrtcbin come from its own thread and are handed over.
"""

import itertools
import json
import re
import sys
import traceback
from collections.abc import Callable
from typing import Any

try:
    import gi  # type: ignore[import-not-found, unused-ignore]

    for library, version in (("Gst", "1.0"), ("GstSdp", "1.0"), ("GstWebRTC", "1.0"), ("Soup", "3.0")):
        gi.require_version(library, version)
    from gi.repository import GLib, Gst, GstSdp, GstWebRTC, Soup  # type: ignore[import-not-found, unused-ignore]
except (ImportError, ValueError) as error:
    sys.exit(f"{error}")

from long_poll import LongPollClient  # type: ignore[import-not-found, unused-ignore]

DEADLINE = 40_000
OPEN = 2  # in GstWebRTCDataChannelState and in SoupWebsocketState
MEDIA = (
    "application/x-rtp,media=audio,encoding-name=OPUS,payload=96,clock-rate=48000",
    "application/x-rtp,media=video,encoding-name=VP8,payload=97,clock-rate=90000",
)


def in_main_loop(function: Callable[..., None]) -> Callable[..., None]:
    """Return a signal handler that calls `function` in the main loop, without the object that the signal came from."""

    def handler(_source: Any, *arguments: Any) -> None:
        def call() -> bool:
            function(*arguments)
            return False

        GLib.idle_add(call)

    return handler


def parse_sdp(sdp: str) -> Any:
    """Return a session description as an object of GStreamer."""
    _, message = GstSdp.SDPMessage.new_from_text(sdp)
    return message


class GStreamerPeer:
    """One scenario."""

    def __init__(self, scenario: dict[str, Any], http: Any, report: Callable[..., None]) -> None:
        self.scenario = scenario
        self.report = report
        self.peer = ""
        self.pipeline: Any = None
        self.pc: Any = None
        self.channel: Any = None
        self.early: list[dict[str, Any]] = []
        self.pending: list[tuple[int, str] | None] = []
        self.described = self.remote_set = self.gathered = self.ended = False
        self.mids: list[str] = []
        self.whole: Callable[[], None] | None = None
        self.socket: Any = None
        GLib.timeout_add(DEADLINE, self.on_deadline)
        message = Soup.Message.new("GET", scenario["relay"])
        http.websocket_connect_async(message, None, [], GLib.PRIORITY_DEFAULT, None, self.on_open)

    def on_deadline(self) -> bool:
        if not self.ended:
            self.fail(f"not ended in {DEADLINE} ms")
        return False

    def fail(self, reason: str) -> None:
        self.report("failed", reason=reason)
        self.end()

    def end(self) -> None:
        if not self.ended:
            self.ended = True
            self.disconnect()
            if self.socket is not None:
                self.socket.close(1000, None)
            self.report("ended")

    # ---- the relay ------------------------------------------------------------------------------------------------

    def on_open(self, http: Any, result: Any) -> None:
        try:
            self.socket = http.websocket_connect_finish(result)
        except GLib.Error as error:
            self.fail(str(error))
            return
        self.socket.connect("message", self.on_message)
        self.socket.connect("closed", lambda _socket: None if self.ended else self.fail("the relay closed"))

    def send(self, **frame: Any) -> None:
        if self.socket.get_state() == Soup.WebsocketState.OPEN:
            self.socket.send_text(json.dumps(frame))

    def on_message(self, _socket: Any, _kind: Any, data: Any) -> None:
        frame = json.loads(data.get_data())
        handler = getattr(self, f"on_{frame['type']}", None)
        if handler is None or self.ended:
            return
        try:
            handler(frame)
        except Exception:  # noqa: BLE001  every failure is reported to the test
            self.fail(traceback.format_exc())

    def on_your_id(self, frame: dict[str, Any]) -> None:
        self.report("id", id=frame["id"])
        if self.scenario["target"]:
            self.send(type="pair_request", target_id=self.scenario["target"])

    def on_error(self, frame: dict[str, Any]) -> None:
        self.fail(json.dumps(frame))

    def on_peer_disconnected(self, frame: dict[str, Any]) -> None:
        self.report("peer_disconnected", reason=frame["reason"])
        self.end()

    def on_paired(self, frame: dict[str, Any]) -> None:
        self.peer = frame["peer_id"]
        self.connect()
        if frame["is_initiator"]:
            for caps in MEDIA if self.scenario["media"] else ():
                direction = GstWebRTC.WebRTCRTPTransceiverDirection.RECVONLY
                self.pc.emit("add-transceiver", direction, Gst.Caps.from_string(caps))
            self.use_channel(self.pc.emit("create-data-channel", "robot", None))
            self.describe("offer")

    def on_offer(self, frame: dict[str, Any]) -> None:
        self.report("offer", sdp=frame["sdp"])
        if self.remote_set:
            self.connect()  # a further offer is for a new connection
        self.set_remote("offer", frame["sdp"], lambda: self.describe("answer"))

    def on_answer(self, frame: dict[str, Any]) -> None:
        self.report("answer", sdp=frame["sdp"])
        self.set_remote("answer", frame["sdp"], lambda: None)

    def on_candidate(self, frame: dict[str, Any]) -> None:
        if self.remote_set:
            self.add(frame["candidate"])
        else:
            self.early.append(frame["candidate"])

    # ---- the connection -------------------------------------------------------------------------------------------

    def connect(self) -> None:
        self.disconnect()
        self.described = self.remote_set = self.gathered = False
        self.early, self.pending, self.whole = [], [], None
        self.pipeline = Gst.Pipeline.new(None)
        self.pc = pc = Gst.ElementFactory.make("webrtcbin")
        pc.set_property("bundle-policy", GstWebRTC.WebRTCBundlePolicy.MAX_BUNDLE)
        self.pipeline.add(pc)
        pc.connect(
            "on-ice-candidate", in_main_loop(lambda index, text: self.trickle((index, text)) if self.pc is pc else None)
        )
        pc.connect("notify::ice-gathering-state", in_main_loop(lambda _: self.on_gathering_state(pc)))
        pc.connect("notify::connection-state", in_main_loop(lambda _: self.report("connection", state=state(pc))))
        pc.connect("on-data-channel", in_main_loop(self.use_channel))
        self.pipeline.set_state(Gst.State.PLAYING)

    def disconnect(self) -> None:
        if self.pipeline is not None:
            self.pipeline.set_state(Gst.State.NULL)
            self.pipeline = self.pc = self.channel = None

    def on_gathering_state(self, pc: Any) -> None:
        complete = GstWebRTC.WebRTCICEGatheringState.COMPLETE
        if pc is not self.pc or self.gathered or pc.get_property("ice-gathering-state") != complete:
            return
        self.gathered = True
        if self.scenario["trickle"]:
            self.trickle(None)
        if self.whole is not None:
            self.whole()

    def trickle(self, candidate: tuple[int, str] | None) -> None:
        if not self.scenario["trickle"] or (candidate and not candidate[1]):
            return
        if self.described or self.scenario["early"]:
            self.send_candidate(candidate)
        else:
            self.pending.append(candidate)

    def send_candidate(self, candidate: tuple[int, str] | None) -> None:
        if candidate is not None or self.scenario["end"] != "none":
            init = self.candidate_init(candidate)
            self.report("sent", candidate=init)
            self.send(type="candidate", candidate=init, peer_id=self.peer)

    def candidate_init(self, candidate: tuple[int, str] | None) -> dict[str, Any] | None:
        if candidate is None and self.scenario["end"] == "null":
            return None
        index, text = candidate or (0, "")
        init: dict[str, Any] = {"candidate": text.removeprefix("candidate:") if self.scenario["no_prefix"] else text}
        if self.scenario["name"] != "sdpMLineIndex":
            init["sdpMid"] = self.mids[index]
        if self.scenario["name"] != "sdpMid":
            init["sdpMLineIndex"] = index
        return init

    def describe(self, kind: str) -> None:
        pc = self.pc

        def created(promise: Any) -> None:
            promise.wait()
            reply = promise.get_reply()  # its values live only as long as the reply
            description = reply.get_value(kind)
            self.mids = re.findall(r"a=mid:(\S+)", description.sdp.as_text())
            pc.emit("set-local-description", description, Gst.Promise.new_with_change_func(in_main_loop(sent)))

        def sent() -> None:
            if (self.scenario["trickle"] and not self.scenario["early"]) or self.gathered:
                self.send_description(kind)
            else:
                self.whole = lambda: self.send_description(kind)

        pc.emit(f"create-{kind}", None, Gst.Promise.new_with_change_func(created))

    def send_description(self, kind: str) -> None:
        description = self.pc.get_property("local-description")
        sdp = description.sdp.as_text()
        if self.scenario["trickle"]:
            sdp = re.sub(r"a=(candidate|end-of-candidates).*\r\n", "", sdp)
        self.report("sent", sdp=sdp)
        self.send(type=kind, sdp=sdp, peer_id=self.peer)
        self.described = True
        pending, self.pending = self.pending, []
        for candidate in pending:
            self.send_candidate(candidate)

    def set_remote(self, kind: str, sdp: str, then: Callable[[], None]) -> None:
        sort = getattr(GstWebRTC.WebRTCSDPType, kind.upper())
        description = GstWebRTC.WebRTCSessionDescription.new(sort, parse_sdp(sdp))

        def done() -> None:
            self.remote_set = True
            for candidate in self.early:
                self.add(candidate)
            then()

        self.pc.emit("set-remote-description", description, Gst.Promise.new_with_change_func(in_main_loop(done)))

    def add(self, init: dict[str, Any] | None) -> None:
        self.report("candidate", candidate=init, end=not (init and init.get("candidate")))
        if init and init.get("candidate"):
            self.pc.emit("add-ice-candidate", init.get("sdpMLineIndex") or 0, init["candidate"])

    # ---- messages -----------------------------------------------------------------------------------------------

    def use_channel(self, channel: Any) -> None:
        self.channel = channel
        channel.connect("on-message-string", in_main_loop(self.message))
        channel.connect("on-close", in_main_loop(lambda: self.report("closed")))
        greeted = itertools.count()

        def greet() -> None:
            if next(greeted) == 0:
                self.report("open", label=channel.get_property("label"))
                channel.emit("send-string", "hello from the other stack")
                channel.emit("send-data", GLib.Bytes.new(bytes([0, 1, 2, 255])))

        channel.connect("on-open", in_main_loop(greet))
        if channel.get_property("ready-state") == GstWebRTC.WebRTCDataChannelState.OPEN:
            greet()

    def message(self, text: str) -> None:
        if text == "close":
            self.channel.emit("close")
        elif text == "greet":
            return  # sent when the channel opened
        elif text == "disconnect":
            self.disconnect()
        else:
            self.channel.emit("send-string", f"echo {text}")


def state(pc: Any) -> str:
    """Return the state of a connection by its W3C name."""
    return str(pc.get_property("connection-state").value_nick)


def main() -> None:
    """Run the scenarios of the control server at the given URL; without one, print the parts that are not installed."""
    Gst.init(None)
    for name, package in (("webrtcbin", "gstreamer1.0-plugins-bad"), ("nicesink", "gstreamer1.0-nice")):
        if Gst.ElementFactory.find(name) is None:
            sys.exit(f"GStreamer has no {name} ({package})")
    if len(sys.argv) > 1:
        LongPollClient(sys.argv[1], GStreamerPeer).run()


main()
