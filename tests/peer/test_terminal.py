"""The view of `sdpx peer` at a terminal."""

from typing import Any

import pyte
from msgspec import UNSET

from sdpx.demo import STATUS_LINES, DemoView
from sdpx.events import Event, peer, webrtc
from sdpx.events.demo import DemoFinished
from sdpx.peer.diagnostics.diagnosis import diagnose
from sdpx.peer.diagnostics.trace import ConnectionTrace
from sdpx.peer.options import PeerOptions
from sdpx.peer.terminal import PeerView

CLEAR = "\r\x1b[K"


class Screen:
    """A view, and the lines that it has drawn."""

    def __init__(self, *, width: int = 120, interactive: bool = True, **options: Any) -> None:
        self.view = PeerView(PeerOptions(**options), interactive=interactive, colour=False, width=width)
        self.drawn = ""

    def show(self, *events: tuple[float, Event]) -> None:
        for now, event in events:
            self.drawn += self.view.draw(self.view.show(event, now), event.severity()).decode()

    @property
    def text(self) -> str:
        """The visible text, up to the cursor."""
        screen = pyte.Screen(self.view.width, 50)
        pyte.Stream(screen).feed(self.drawn.replace("\n", "\r\n"))
        *above, last = (row.rstrip() for row in screen.display[: screen.cursor.y + 1])
        return "\n".join([*above, last.ljust(screen.cursor.x)])


SUMMARY = webrtc.ConnectionSummary("bob", True, {}, "host", "host", 5, 8)
CONVERSATION: list[tuple[float, Event]] = [
    (0.0, peer.Connecting("ws://127.0.0.1:8765")),
    (0.1, peer.IdAssigned("gr5jcudfqx22zkbr3")),
    (2.0, peer.PairRequested("bob")),
    (2.001, peer.Paired("bob", True)),
    (2.002, webrtc.OfferCreated(9)),
    (2.017, webrtc.ExchangeComplete()),
    (2.042, webrtc.PathSelected("host", "10.0.0.5", "host", "10.0.0.7")),
    (2.047, webrtc.ChannelOpen("chat")),
    (3.0, peer.ChannelMessageSent(5)),
    (4.0, peer.ChannelMessage("hi there")),
    (14.0, webrtc.ChannelClosed("chat")),
    (14.1, peer.PeerDisconnected("bob", "closed")),
    (14.1, SUMMARY),
    (14.1, webrtc.Closing()),
    (14.1, peer.Ready("bob", "closed")),
]


def test_connection_and_conversation_take_some_ten_lines() -> None:
    """IDs, phases with milliseconds, the path, the messages, the end."""
    screen = Screen()
    screen.show(*CONVERSATION)
    assert screen.text.splitlines() == [
        "Your ID: gr5jcudfqx22zkbr3   on ws://127.0.0.1:8765        Ctrl-D leaves, Ctrl-C stops",
        "From elsewhere:  sdpx peer gr5jcudfqx22zkbr3",
        "paired with bob    1 ms",
        "exchange          16 ms",
        "path  host 10.0.0.5 -> host 10.0.0.7   25 ms",
        "channel open       5 ms   (47 ms in all; -v shows every state)",
        "bob> hi there",
        "bob left (closed). Connected for 12.1 s, 5 bytes sent, 8 received.",
        "Connect to (or wait): ",
    ]


def test_lines_break_between_words() -> None:
    """At 40 columns."""
    screen = Screen(width=40)
    screen.show(*CONVERSATION)
    assert "bob left (closed). Connected for 12.1 s,\n5 bytes sent, 8 received." in screen.text


def test_a_channel_outlives_the_relay_on_the_screen() -> None:
    """The reason for which the relay connection ended is not the one for which the peer left."""
    screen = Screen()
    screen.show(*CONVERSATION[:9], (4.0, peer.PeerDisconnected("bob", "shutdown")), (5.0, SUMMARY))
    assert "Disconnected from bob. Connected for 3.0 s" in screen.text


def test_diagnosis_that_ends_the_program_is_shown_once() -> None:
    """On stderr; that of a retry, and where the program goes on, in the view."""
    trace = ConnectionTrace("bob", is_initiator=True)
    for pair, retrying, shown in (("bob", False, False), ("bob", True, True), (None, False, True)):
        screen = Screen(pair=pair)
        screen.show((1.0, diagnose(trace, 1.0).event(trace, 1.0, retrying=retrying)))
        assert ("bob" in screen.text) == shown


def test_prompt_follows_the_state() -> None:
    """The prompt asks for an ID, then for messages, and is drawn again below lines that come meanwhile."""
    screen = Screen()
    screen.show(*CONVERSATION[:2])
    assert screen.drawn.endswith("\nConnect to (or wait): ")
    screen.show(*CONVERSATION[2:8])
    assert screen.drawn.endswith("\nyou> ")
    screen.show(CONVERSATION[8])
    assert screen.drawn.endswith(f"{CLEAR}you> ")
    screen.drawn += "half a line"
    screen.show(CONVERSATION[9])
    assert screen.text.endswith("\nbob> hi there\nyou> half a line")  # a message is inserted above the text being typed
    screen.show((5.0, peer.Reconnecting(1, 500.0, "relay_lost", "reset")))
    assert screen.drawn.endswith("\nyou> ")
    assert screen.view.end().decode() == CLEAR


def test_lines_fit_80_columns() -> None:
    """The hint on the keys has a line of its own where the first line is too long for it."""
    screen = Screen(width=80)
    screen.show(*CONVERSATION)
    assert max(map(len, screen.text.splitlines())) <= 80
    assert "\nCtrl-D leaves, Ctrl-C stops\n" in screen.text


def test_messages_cannot_control_the_terminal_or_pose_as_another_speaker() -> None:
    screen = Screen(pair="bob")
    screen.show(
        *CONVERSATION[:8], (5.0, peer.ChannelMessage("\x1b[2Ja\nyou> b")), (6.0, peer.ChannelMessage(UNSET, 3, "AAAA"))
    )
    assert screen.text.splitlines()[-4:] == ["bob> \\u001b[2Ja", "bob> you> b", "bob> [3 bytes]", "you> "]


def test_view_without_a_person_has_neither_prompt_nor_control_sequences() -> None:
    """Stdin is not a terminal, or carries commands."""
    for screen in (Screen(interactive=False), Screen(stdin="json")):
        screen.show(*CONVERSATION)
        assert "\x1b" not in screen.drawn
        assert "> hi there\n" in screen.drawn
        assert "Connect to" not in screen.drawn
        assert screen.view.end() == b""


def test_warnings_are_shown_and_the_final_error_is_left_to_stderr() -> None:
    """With `--pair` its refusal is the final error: it is said once."""
    refusal = peer.ServerError("target_not_found", "bob", "pair_request", "No client 'bob' is connected")
    retries = [(1.0, peer.PairRetryScheduled("bob", "target_not_found", 500.0))] * 3
    called, asked = Screen(pair="bob", wait=30), Screen()
    called.show((0.0, refusal), *retries)
    asked.show((0.0, refusal))
    assert called.text == "'bob' is not connected; trying again in 0.5 s.\n"
    assert asked.text == "No client 'bob' is connected\n"


def test_outage_of_the_relay_takes_a_line_for_each_cause() -> None:
    """The repeated attempts have none."""
    screen = Screen(interactive=False)
    lost = (0.0, peer.Disconnected(1006, ""))
    attempts = [(1.0, peer.Reconnecting(n, 500.0, "relay_unreachable", "Cannot reach the relay")) for n in range(3)]
    screen.show(lost, (0.0, peer.Reconnecting(1, 0.0, "relay_lost", "The relay was lost")), *attempts)
    screen.show((9.0, peer.Connected("ws://h")), *attempts[:1])
    assert screen.text.splitlines() == [
        "The relay was lost. Retrying at once.",
        "Cannot reach the relay. Retrying in 0.5 s.",
        "Cannot reach the relay. Retrying in 0.5 s.",
    ]


def test_demo_shows_a_dozen_lines() -> None:
    """A line for each step, warnings, and the result; nothing else of their logs."""
    view = DemoView()
    line = {"who": "bob", "level": "info", "message": "host a -> host b", "event": "path_selected"}
    assert view.show_forwarded(line) == "bob    is connected to alice without the relay: host a -> host b"
    assert view.show_forwarded(line | {"event": "signaling_state"}) is None
    assert view.show_forwarded(line | {"event": "x", "level": "warning"}) == "bob    host a -> host b"
    assert view.show(DemoFinished(True, {"pairing": 3.0}), 0.0) == "Demo finished: pairing 3 ms."
    assert len(STATUS_LINES) <= 12
