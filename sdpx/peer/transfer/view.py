"""The lines of a transfer at a terminal, in place of log lines. Pure."""

from sdpx.events import Event, peer, transfer
from sdpx.terminal import View

_SHOWN = (
    transfer.TransferWaiting,
    transfer.TransferStarted,
    transfer.TransferResumed,
    transfer.TransferComplete,
)


class TransferView(View):
    """The view of `sdpx pipe`, `sdpx send` and `sdpx receive`."""

    def __init__(self, *, interactive: bool, colour: bool, width: int) -> None:
        super().__init__(interactive=interactive, colour=colour, width=width)
        self._retrying_for = ""  # the code of the retries that have been shown

    def show(self, event: Event, now: float) -> str | None:
        """Return the line for an event."""
        if isinstance(event, peer.Connected | transfer.TransferStarted | transfer.TransferResumed):
            self._retrying_for = ""
        if isinstance(event, peer.Reconnecting | peer.PairRetryScheduled):
            is_new, self._retrying_for = event.code != self._retrying_for, event.code
            return event.message() if is_new else None
        if isinstance(event, _SHOWN):
            return event.message()
        if isinstance(event, peer.Disconnected | peer.ServerError | peer.TlsVerificationDisabled):
            return None  # the next event, or the sentence on stderr, has the reason
        return super().show(event, now)
