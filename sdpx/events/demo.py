"""The event that `sdpx demo` adds to those of its three processes."""

from sdpx.events import Event


class DemoFinished(Event, frozen=True):
    """The demonstration is over; `phases` tells how many milliseconds each phase took."""

    ok: bool
    phases: dict[str, float]

    def message(self) -> str:
        """Return how it went, in one line."""
        took = ", ".join(f"{name} {ms:.0f} ms" for name, ms in self.phases.items())
        return f"Demo finished: {took}." if self.ok else f"Demo failed after: {took or 'nothing'}."
