"""The events of `sdpx doctor`."""

from typing import Any, Literal

from msgspec import UNSET, UnsetType

from sdpx.events import Event
from sdpx.options import Level


class DoctorCheck(Event, frozen=True):
    """The result of a check, with its evidence, and for a problem a code and the remedy."""

    check: str
    target: str
    result: Literal["ok", "warning", "failed", "skipped"]
    duration_ms: float
    evidence: dict[str, Any]
    code: str | UnsetType = UNSET
    remedy: str | UnsetType = UNSET
    _sentence: str = ""

    def message(self) -> str:
        """Return the sentence of the check."""
        return self._sentence

    def severity(self) -> Level:
        """Return the level that the result stands for."""
        levels: dict[str, Level] = {"warning": "warning", "failed": "error"}
        return levels.get(self.result, "info")


class DoctorFinished(Event, frozen=True):
    """All checks were made; `status` is the exit status, and the message has the first remedy."""

    sentence = "{e._summary}"
    ok: int
    warnings: int
    failed: int
    skipped: int
    status: int
    _summary: str
