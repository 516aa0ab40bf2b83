"""The interoperability matrix, repeated: `python -m tests.interop --runs 40 [STACK ...]` prints how often each case passed."""

import argparse
import sys
import time
from pathlib import Path

import trio

from tests.harness.stun import stun_server
from tests.interop.control import ControlServer
from tests.interop.scenario import ROLES, Role, Servers, SignalingStyle, run_scenario
from tests.interop.stacks import STACKS, missing, relay_process, running_stack

Cell = tuple[str, Role, bool]


class Matrix:
    """The results of all cases, and a log file for each failure."""

    def __init__(self, logs: Path | None) -> None:
        self.passed: dict[Cell, int] = {}
        self.failed: dict[Cell, int] = {}
        self._logs = logs

    async def run(self, control: ControlServer, servers: Servers, cell: Cell) -> None:
        """Run one case, and count its result."""
        _, role, trickle = cell
        try:
            await run_scenario(control, servers, role, SignalingStyle(trickle=trickle))
        except Exception as error:  # noqa: BLE001  any exception is a failure of the case
            self.failed[cell] = self.failed.get(cell, 0) + 1
            self._keep(cell, error)
        else:
            self.passed[cell] = self.passed.get(cell, 0) + 1

    def _keep(self, cell: Cell, error: Exception) -> None:
        messages = "\n".join(_messages(error))
        sys.stderr.write(f"{shown(cell)}: {messages.splitlines()[0]}\n")
        if self._logs is not None:
            self._logs.mkdir(parents=True, exist_ok=True)
            (self._logs / f"{shown(cell).replace(' ', '-')}-{self.failed[cell]}.log").write_text(messages)

    def row(self, cell: Cell) -> str:
        """Return a line of the table."""
        passed, failed = self.passed.get(cell, 0), self.failed.get(cell, 0)
        return f"{shown(cell):<48}{passed:>4} of {passed + failed}"


def shown(cell: Cell) -> str:
    """Return the name of a case: the stack, the role of sdpx, trickle ICE or not."""
    name, role, trickle = cell
    return f"{name} {role} {'trickle' if trickle else 'whole'}"


def _messages(error: BaseException) -> list[str]:
    """Return the message of an exception, or those in a group, and then its notes."""
    if isinstance(error, BaseExceptionGroup):
        inner = [messages for each in error.exceptions for messages in _messages(each)]
    else:
        inner = [f"{type(error).__name__}: {str(error)[:300]}"]
    return inner + list(getattr(error, "__notes__", []))


async def _run(names: list[str], runs: int, at_once: int, matrix: Matrix) -> None:
    limit = trio.CapacityLimiter(at_once)
    with relay_process() as relay, stun_server() as stun:
        servers = Servers(relay, stun)
        for name in names:
            cells: list[Cell] = [(name, role, trickle) for role in ROLES for trickle in (True, False)]
            began = time.monotonic()
            with running_stack(name) as control:
                async with trio.open_nursery() as nursery:
                    for cell in cells * runs:
                        nursery.start_soon(_limited, limit, matrix, control, servers, cell)
            for cell in cells:
                sys.stdout.write(f"{matrix.row(cell)}\n")
            sys.stdout.flush()
            sys.stderr.write(f"{name}: {time.monotonic() - began:.0f} s\n")


async def _limited(
    limit: trio.CapacityLimiter, matrix: Matrix, control: ControlServer, servers: Servers, cell: Cell
) -> None:
    async with limit:
        await matrix.run(control, servers, cell)


def main() -> int:
    """Run the matrix; the status is 0 if every case passed."""
    parser = argparse.ArgumentParser(prog="python -m tests.interop", description=__doc__)
    parser.add_argument(
        "stacks", nargs="*", metavar="STACK", help=f"of {', '.join(STACKS)}; default: all that are installed"
    )
    parser.add_argument("--runs", type=int, default=40, help="runs of each stack, role and way of trickling")
    parser.add_argument("--at-once", type=int, default=2, help="runs at the same time")
    parser.add_argument("--logs", type=Path, help="a directory for the logs of each failure")
    given = parser.parse_args()
    if unknown := set(given.stacks) - STACKS.keys():
        parser.error(f"no such stack: {', '.join(sorted(unknown))}")
    names = []
    for name in given.stacks or STACKS:
        if problem := missing(name):
            sys.stderr.write(f"{problem}\n")
        else:
            names.append(name)
    matrix = Matrix(given.logs)
    trio.run(_run, names, given.runs, given.at_once, matrix)
    return 1 if matrix.failed or not matrix.passed or set(given.stacks) - set(names) else 0


sys.exit(main())
