"""The foreign client on GStreamer's webrtcbin: the scenes of client.mjs, for the system's Python and its GLib bindings.

`gstreamer.py STAGE` plays scenes; without an argument it says on stderr what is missing, if anything is. Everything but
webrtcbin's own signals happens in GLib's main loop; these come from its thread and are handed over.
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

from soup import Worker  # type: ignore[import-not-found, unused-ignore]

DEADLINE = 40_000
OPEN = 2  # GstWebRTCDataChannelState and SoupWebsocketState number it alike, by luck: connecting, open
MEDIA = (
    "application/x-rtp,media=audio,encoding-name=OPUS,payload=96,clock-rate=48000",
    "application/x-rtp,media=video,encoding-name=VP8,payload=97,clock-rate=90000",
)


def later(function: Callable[..., None]) -> Callable[..., None]:
    """Return a signal handler that calls `function` in the main loop, without the object that the signal came from."""

    def handler(_source: Any, *arguments: Any) -> None:
        def call() -> bool:
            function(*arguments)
            return False

        GLib.idle_add(call)

    return handler


def parsed(sdp: str) -> Any:
    """Return a session description as GStreamer has it."""
    _, message = GstSdp.SDPMessage.new_from_text(sdp)
    return message


class Play:
    """One scene."""

    def __init__(self, scene: dict[str, Any], http: Any, report: Callable[..., None]) -> None:
        self.scene = scene
        self.report = report
        self.peer = ""
        self.pipeline: Any = None
        self.pc: Any = None
        self.channel: Any = None
        self.waiting: list[dict[str, Any]] = []
        self.held: list[tuple[int, str] | None] = []
        self.described = self.remote_set = self.gathered = self.over = False
        self.mids: list[str] = []
        self.whole: Callable[[], None] | None = None
        self.socket: Any = None
        GLib.timeout_add(DEADLINE, self.late)
        message = Soup.Message.new("GET", scene["relay"])
        http.websocket_connect_async(message, None, [], GLib.PRIORITY_DEFAULT, None, self.dialled)

    def late(self) -> bool:
        if not self.over:
            self.fail(f"not over in {DEADLINE} ms")
        return False

    def fail(self, reason: str) -> None:
        self.report("failed", reason=reason)
        self.end()

    def end(self) -> None:
        if not self.over:
            self.over = True
            self.disconnect()
            if self.socket is not None:
                self.socket.close(1000, None)
            self.report("over")

    # ---- the relay ------------------------------------------------------------------------------------------------

    def dialled(self, http: Any, result: Any) -> None:
        try:
            self.socket = http.websocket_connect_finish(result)
        except GLib.Error as error:
            self.fail(str(error))
            return
        self.socket.connect("message", self.heard)
        self.socket.connect("closed", lambda _socket: None if self.over else self.fail("the relay closed"))

    def tell(self, **frame: Any) -> None:
        if self.socket.get_state() == Soup.WebsocketState.OPEN:
            self.socket.send_text(json.dumps(frame))

    def heard(self, _socket: Any, _kind: Any, data: Any) -> None:
        frame = json.loads(data.get_data())
        handler = getattr(self, f"on_{frame['type']}", None)
        if handler is None or self.over:
            return
        try:
            handler(frame)
        except Exception:  # noqa: BLE001  whatever it is, the test has to hear of it
            self.fail(traceback.format_exc())

    def on_your_id(self, frame: dict[str, Any]) -> None:
        self.report("id", id=frame["id"])
        if self.scene["target"]:
            self.tell(type="pair_request", target_id=self.scene["target"])

    def on_error(self, frame: dict[str, Any]) -> None:
        self.fail(json.dumps(frame))

    def on_peer_disconnected(self, frame: dict[str, Any]) -> None:
        self.report("peer_disconnected", reason=frame["reason"])
        self.end()

    def on_paired(self, frame: dict[str, Any]) -> None:
        self.peer = frame["peer_id"]
        self.connect()
        if frame["is_initiator"]:
            for caps in MEDIA if self.scene["media"] else ():
                direction = GstWebRTC.WebRTCRTPTransceiverDirection.RECVONLY
                self.pc.emit("add-transceiver", direction, Gst.Caps.from_string(caps))
            self.use(self.pc.emit("create-data-channel", "robot", None))
            self.describe("offer")

    def on_offer(self, frame: dict[str, Any]) -> None:
        self.report("offer", sdp=frame["sdp"])
        if self.remote_set:
            self.connect()  # a further offer starts afresh
        self.set_remote("offer", frame["sdp"], lambda: self.describe("answer"))

    def on_answer(self, frame: dict[str, Any]) -> None:
        self.report("answer", sdp=frame["sdp"])
        self.set_remote("answer", frame["sdp"], lambda: None)

    def on_candidate(self, frame: dict[str, Any]) -> None:
        if self.remote_set:
            self.add(frame["candidate"])
        else:
            self.waiting.append(frame["candidate"])

    # ---- the connection -------------------------------------------------------------------------------------------

    def connect(self) -> None:
        self.disconnect()
        self.described = self.remote_set = self.gathered = False
        self.waiting, self.held, self.whole = [], [], None
        self.pipeline = Gst.Pipeline.new(None)
        self.pc = pc = Gst.ElementFactory.make("webrtcbin")
        pc.set_property("bundle-policy", GstWebRTC.WebRTCBundlePolicy.MAX_BUNDLE)
        self.pipeline.add(pc)
        pc.connect(
            "on-ice-candidate", later(lambda index, text: self.trickle((index, text)) if self.pc is pc else None)
        )
        pc.connect("notify::ice-gathering-state", later(lambda _: self.gathering(pc)))
        pc.connect("notify::connection-state", later(lambda _: self.report("connection", state=state(pc))))
        pc.connect("on-data-channel", later(self.use))
        self.pipeline.set_state(Gst.State.PLAYING)

    def disconnect(self) -> None:
        if self.pipeline is not None:
            self.pipeline.set_state(Gst.State.NULL)
            self.pipeline = self.pc = self.channel = None

    def gathering(self, pc: Any) -> None:
        complete = GstWebRTC.WebRTCICEGatheringState.COMPLETE
        if pc is not self.pc or self.gathered or pc.get_property("ice-gathering-state") != complete:
            return
        self.gathered = True
        if self.scene["trickle"]:
            self.trickle(None)
        if self.whole is not None:
            self.whole()

    def trickle(self, candidate: tuple[int, str] | None) -> None:
        if not self.scene["trickle"] or (candidate and not candidate[1]):
            return
        if self.described or self.scene["early"]:
            self.tell_candidate(candidate)
        else:
            self.held.append(candidate)

    def tell_candidate(self, candidate: tuple[int, str] | None) -> None:
        if candidate is not None or self.scene["end"] != "none":
            init = self.dressed(candidate)
            self.report("told", candidate=init)
            self.tell(type="candidate", candidate=init, peer_id=self.peer)

    def dressed(self, candidate: tuple[int, str] | None) -> dict[str, Any] | None:
        if candidate is None and self.scene["end"] == "null":
            return None
        index, text = candidate or (0, "")
        init: dict[str, Any] = {"candidate": text.removeprefix("candidate:") if self.scene["bare"] else text}
        if self.scene["name"] != "sdpMLineIndex":
            init["sdpMid"] = self.mids[index]
        if self.scene["name"] != "sdpMid":
            init["sdpMLineIndex"] = index
        return init

    def describe(self, kind: str) -> None:
        pc = self.pc

        def created(promise: Any) -> None:
            promise.wait()
            reply = promise.get_reply()  # what is taken out of it lives only as long as it does
            description = reply.get_value(kind)
            self.mids = re.findall(r"a=mid:(\S+)", description.sdp.as_text())
            pc.emit("set-local-description", description, Gst.Promise.new_with_change_func(later(told)))

        def told() -> None:
            if (self.scene["trickle"] and not self.scene["early"]) or self.gathered:
                self.tell_description(kind)
            else:
                self.whole = lambda: self.tell_description(kind)

        pc.emit(f"create-{kind}", None, Gst.Promise.new_with_change_func(created))

    def tell_description(self, kind: str) -> None:
        description = self.pc.get_property("local-description")
        sdp = description.sdp.as_text()
        if self.scene["trickle"]:
            sdp = re.sub(r"a=(candidate|end-of-candidates).*\r\n", "", sdp)
        self.report("told", sdp=sdp)
        self.tell(type=kind, sdp=sdp, peer_id=self.peer)
        self.described = True
        held, self.held = self.held, []
        for candidate in held:
            self.tell_candidate(candidate)

    def set_remote(self, kind: str, sdp: str, then: Callable[[], None]) -> None:
        sort = getattr(GstWebRTC.WebRTCSDPType, kind.upper())
        description = GstWebRTC.WebRTCSessionDescription.new(sort, parsed(sdp))

        def done() -> None:
            self.remote_set = True
            for candidate in self.waiting:
                self.add(candidate)
            then()

        self.pc.emit("set-remote-description", description, Gst.Promise.new_with_change_func(later(done)))

    def add(self, init: dict[str, Any] | None) -> None:
        self.report("candidate", candidate=init)
        if init and init.get("candidate"):
            self.pc.emit("add-ice-candidate", init.get("sdpMLineIndex") or 0, init["candidate"])

    # ---- the talk -------------------------------------------------------------------------------------------------

    def use(self, channel: Any) -> None:
        self.channel = channel
        channel.connect("on-message-string", later(self.message))
        channel.connect("on-close", later(lambda: self.report("closed")))
        hailed = itertools.count()

        def hail() -> None:
            if next(hailed) == 0:
                self.report("open", label=channel.get_property("label"))
                channel.emit("send-string", "hello from the other stack")
                channel.emit("send-data", GLib.Bytes.new(bytes([0, 1, 2, 255])))

        channel.connect("on-open", later(hail))
        if channel.get_property("ready-state") == GstWebRTC.WebRTCDataChannelState.OPEN:
            hail()

    def message(self, text: str) -> None:
        if text == "close":
            self.channel.emit("close")
        elif text == "hail":
            return  # it has, at the opening
        elif text == "leave":
            self.disconnect()
        else:
            self.channel.emit("send-string", f"echo {text}")


def state(pc: Any) -> str:
    """Return a connection's state by its name in the field."""
    return str(pc.get_property("connection-state").value_nick)


def main() -> None:
    """Play the scenes of the stage that is named; say what is missing where none is."""
    Gst.init(None)
    for name, package in (("webrtcbin", "gstreamer1.0-plugins-bad"), ("nicesink", "gstreamer1.0-nice")):
        if Gst.ElementFactory.find(name) is None:
            sys.exit(f"GStreamer has no {name} ({package})")
    if len(sys.argv) > 1:
        Worker(sys.argv[1], Play).run()


main()
