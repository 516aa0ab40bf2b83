"""What a person at a terminal sees of a transfer, in place of log lines. Pure."""

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

    def show(self, event: Event, now: float) -> str | None:
        """Return the line for an event."""
        if isinstance(event, _SHOWN):
            return event.message()
        if isinstance(event, peer.Disconnected | peer.ServerError | peer.TlsVerificationDisabled):
            return None  # the next event, or the sentence on stderr, says it
        return super().show(event, now)
