"""The view of `sdpx peer` at a terminal: some eight lines up to an open channel, then the conversation. Pure."""

from typing import Final

from msgspec import UnsetType

from sdpx.events import Event, peer, webrtc
from sdpx.peer.options import DEFAULT_URL, PeerOptions
from sdpx.terminal import View, milliseconds, wrapped

DEFAULT_LABEL: Final = "chat"
_CALL_PROMPT: Final = "Connect to (or wait): "
_KEYS: Final = "Ctrl-D leaves, Ctrl-C stops"


class PeerView(View):
    """The view of one peer; the durations of its phases are those between its events."""

    def __init__(self, options: PeerOptions, *, interactive: bool, colour: bool, width: int) -> None:
        super().__init__(interactive=interactive and options.stdin == "lines", colour=colour, width=width)
        self._options = options
        self._peer_id = ""
        self._began = 0.0  # the present pairing: its request, or its start
        self._last = 0.0  # the last phase ended
        self._opened = 0.0
        self._left = ""  # why the other peer left; empty while it has not
        self._open_channels = 0
        self._end_shown = False  # of the pairing
        self._retrying_for = ""  # the code of the retries that have been shown

    @property
    def _ends_with_pairing(self) -> bool:
        options = self._options
        return options.pair is not None or options.once or options.expect is not None

    def show(self, event: Event, now: float) -> str | None:
        """Return the lines for an event."""
        lines: str | None = None
        match event:
            case peer.TlsVerificationDisabled() | peer.Disconnected():
                pass  # the sentence is on stderr, or the next event has it
            case peer.ServerError() if self._options.pair is not None:
                pass  # its sentence follows on stderr
            case webrtc.Diagnosis() if not event.retrying and self._ends_with_pairing:
                pass  # so does this one
            case peer.ChannelMessage(text, size):
                text = f"[{size} bytes]" if isinstance(text, UnsetType) else text
                lines = "\n".join(f"{self._peer_id}> {line}" for line in text.split("\n"))
                self.inserts = True
            case peer.ChannelMessageSent():
                lines = ""
            case peer.Reconnecting(_, _, code) | peer.PairRetryScheduled(_, code):
                is_new, self._retrying_for = code != self._retrying_for, code
                lines = wrapped(event.message(), self.width) if is_new else None
            case peer.Ready(_, reason):
                self.prompt = "" if self._options.pair is not None else _CALL_PROMPT
                lines = "" if self._end_shown else f"{self._peer_id} left ({reason})."
            case _:
                lines = self._on_relay(event) or self._phase(event, now) or super().show(event, now)
        return lines

    def _on_relay(self, event: Event) -> str | None:
        """Return the lines for an event of the connection to the relay."""
        match event:
            case peer.Connected():
                self._retrying_for = ""
            case peer.IdAssigned(own_id):
                return self._greeting(own_id)
            case peer.RelayResumed():
                return wrapped(event.message(), self.width)
        return None

    def _phase(self, event: Event, now: float) -> str | None:
        """Return the line for a step of a connection."""
        line = None
        match event:
            case peer.PairRequested():
                self._began = self._last = now
            case peer.Paired(peer_id, is_initiator):
                self._peer_id, self._left, self._end_shown, self.prompt = peer_id, "", False, ""
                if not is_initiator:
                    self._began = self._last = now
                line = self._took(f"paired with {peer_id}", now) if is_initiator else f"paired with {peer_id}"
            case webrtc.ExchangeComplete():
                line = self._took("exchange", now)
            case webrtc.PathSelected():
                line = self._took(f"path  {event.message()}", now)
            case webrtc.ChannelOpen(label):
                self.prompt, self._opened = "you> ", now
                name = "channel open" if label == DEFAULT_LABEL else f"channel '{label}' open"
                self._open_channels += 1
                line = f"{self._took(name, now)}   ({(now - self._began) * 1000:.0f} ms in all; -v shows every state)"
            case webrtc.ChannelClosed():
                self._open_channels -= 1
            case peer.PeerDisconnected(_, reason) if reason == "left" or not self._open_channels:
                self._left = reason  # otherwise only its connection to the relay is lost
            case webrtc.ConnectionSummary():
                self.prompt, self._end_shown = "", True
                end = f"{self._peer_id} left ({self._left})" if self._left else f"Disconnected from {self._peer_id}"
                sizes = f"{event.bytes_sent} bytes sent, {event.bytes_received} received"
                line = wrapped(f"{end}. Connected for {now - self._opened:.1f} s, {sizes}.", self.width)
        return line

    def _took(self, label: str, now: float) -> str:
        took, self._last = now - self._last, now
        return milliseconds(label, took)

    def _greeting(self, own_id: str) -> str:
        line = f"Your ID: {own_id}   on {self._options.shown_url}"
        if self.interactive:
            wide = f"{line}        {_KEYS}"
            line = wide if len(wide) <= self.width else f"{line}\n{_KEYS}"
        if self._options.pair is not None:
            return line
        self.prompt = self.prompt or _CALL_PROMPT
        url = "" if self._options.url == DEFAULT_URL else f" --url {self._options.shown_url}"
        return f"{line}\nFrom elsewhere:  sdpx peer {own_id}{url}"
