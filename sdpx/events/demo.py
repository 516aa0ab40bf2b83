"""The event that `sdpx demo` adds to those of its processes."""

from sdpx.events import Event


class DemoFinished(Event, frozen=True):
    """The demonstration ended; `phases` maps each phase to its milliseconds."""

    ok: bool
    phases: dict[str, float]

    def message(self) -> str:
        """Return the result and the duration of each phase."""
        took = ", ".join(f"{name} {ms:.0f} ms" for name, ms in self.phases.items())
        return f"Demo finished: {took}." if self.ok else f"Demo failed after: {took or 'no phase'}."
