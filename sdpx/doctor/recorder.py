"""The results of checks as they come: kept, timed and logged."""

from collections.abc import Awaitable, Callable
from typing import Any

import trio
from msgspec import UNSET
from msgspec.structs import replace

from sdpx.doctor.check import Check
from sdpx.events.doctor import DoctorCheck
from sdpx.log import Log


class CheckRecorder:
    """Keeps the `checks` that were made, in order, and logs each; `on_begin` is called with the name and target of the next."""

    def __init__(self, log: Log, on_begin: Callable[[str, str], None]) -> None:
        self._log = log
        self._on_begin = on_begin
        self._began: dict[tuple[str, str], float] = {}
        self.checks: list[Check] = []

    def begin(self, name: str, target: str) -> None:
        """Note that a check begins."""
        self._began[name, target] = trio.current_time()
        self._on_begin(name, target)

    def add(self, check: Check) -> Check:
        """Keep a result; its time is that since `begin`."""
        began = self._began.get((check.name, check.target))
        check = replace(check, seconds=0.0 if began is None else trio.current_time() - began)
        self.checks.append(check)
        self._log.emit(
            DoctorCheck(
                check.name,
                check.target,
                check.result,
                round(check.seconds * 1000, 1),
                check.evidence,
                check.code or UNSET,
                check.remedy or UNSET,
                check.sentence,
            )
        )
        return check

    async def record(self, name: str, target: str, make: Callable[..., Awaitable[Check]], *arguments: Any) -> Check:
        """Make a check by a function of its target and these arguments."""
        self.begin(name, target)
        return self.add(await make(target, *arguments))
