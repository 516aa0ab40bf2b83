"""The lines of `sdpx doctor` for a person. Pure."""

from typing import Final

from sdpx.events import Event
from sdpx.events.doctor import DoctorCheck, DoctorFinished
from sdpx.terminal import View

_MARKS: Final = {"ok": "ok     ", "warning": "WARNING", "failed": "FAILED ", "skipped": "-      "}
_NAME_WIDTH: Final = 15
_SPINNER: Final = "|/-\\"


class DoctorView(View):
    """A line for each check, with the remedy of a problem; behind them the check that is being made, with a spinner."""

    def __init__(self, *, interactive: bool = False, colour: bool = False, width: int = 80) -> None:
        super().__init__(interactive=interactive, colour=colour, width=width)
        self._current = ""
        self._frame = 0

    def begin(self, name: str, target: str) -> None:
        """Show that a check is being made."""
        self._current = f"{name} {target}"
        self.spin()

    def spin(self) -> None:
        """Turn the spinner."""
        self._frame = (self._frame + 1) % len(_SPINNER)
        self.prompt = f"{_SPINNER[self._frame]} {self._current}"[: self.width - 1] if self._current else ""

    def show(self, event: Event, now: float) -> str | None:
        """Return the lines for an event."""
        match event:
            case DoctorCheck(check, target, result, ms):
                self._current = self.prompt = ""
                took = f"  {ms:.0f} ms" if ms >= 1 else ""
                subject = f"{target}: " if target and check in ("stun", "turn", "peers", "peers by TURN") else ""
                remedy = f"\n{'':8}{'':{_NAME_WIDTH}} -> {event.remedy}" if isinstance(event.remedy, str) else ""
                return f"{_MARKS[result]} {check:<{_NAME_WIDTH}} {subject}{event.message()}{took}{remedy}"
            case DoctorFinished():
                return f"\n{event.message()}"
        return super().show(event, now)
