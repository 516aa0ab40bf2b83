"""The matrix, again and again: `python -m tests.interop --runs 40 [STACK ...]` prints how often each meeting came off."""

import argparse
import sys
import time
from pathlib import Path

import trio

from tests.harness.stun import stun_server
from tests.interop.play import ROLES, Manners, Role, Servers, meet
from tests.interop.stacks import STACKS, lack, relay_process, started
from tests.interop.stage import Stage

Cell = tuple[str, Role, bool]


class Matrix:
    """Counts of what came off, and a file for each meeting that did not."""

    def __init__(self, logs: Path | None) -> None:
        self.met: dict[Cell, int] = {}
        self.failed: dict[Cell, int] = {}
        self._logs = logs

    async def run(self, stage: Stage, servers: Servers, cell: Cell) -> None:
        """Play one meeting, and count it."""
        _, role, trickle = cell
        try:
            await meet(stage, servers, role, Manners(trickle=trickle))
        except Exception as error:  # noqa: BLE001  whatever went wrong, the meeting did not come off
            self.failed[cell] = self.failed.get(cell, 0) + 1
            self._keep(cell, error)
        else:
            self.met[cell] = self.met.get(cell, 0) + 1

    def _keep(self, cell: Cell, error: Exception) -> None:
        words = "\n".join(_words(error))
        sys.stderr.write(f"{shown(cell)}: {words.splitlines()[0]}\n")
        if self._logs is not None:
            self._logs.mkdir(parents=True, exist_ok=True)
            (self._logs / f"{shown(cell).replace(' ', '-')}-{self.failed[cell]}.log").write_text(words)

    def row(self, cell: Cell) -> str:
        """Return a line of the table."""
        met, failed = self.met.get(cell, 0), self.failed.get(cell, 0)
        return f"{shown(cell):<48}{met:>4} of {met + failed}"


def shown(cell: Cell) -> str:
    """Return a cell's name: the stack, sdpx's role, how candidates come."""
    name, role, trickle = cell
    return f"{name} {role} {'trickle' if trickle else 'whole'}"


def _words(error: BaseException) -> list[str]:
    """Return what an error, or what is in a group of them, has to say, evidence last."""
    if isinstance(error, BaseExceptionGroup):
        inner = [words for each in error.exceptions for words in _words(each)]
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
            with started(name) as stage:
                async with trio.open_nursery() as nursery:
                    for cell in cells * runs:
                        nursery.start_soon(_limited, limit, matrix, stage, servers, cell)
            for cell in cells:
                sys.stdout.write(f"{matrix.row(cell)}\n")
            sys.stdout.flush()
            sys.stderr.write(f"{name}: {time.monotonic() - began:.0f} s\n")


async def _limited(limit: trio.CapacityLimiter, matrix: Matrix, stage: Stage, servers: Servers, cell: Cell) -> None:
    async with limit:
        await matrix.run(stage, servers, cell)


def main() -> int:
    """Run the matrix; the status is 0 if every meeting came off."""
    parser = argparse.ArgumentParser(prog="python -m tests.interop", description=__doc__)
    parser.add_argument("stacks", nargs="*", metavar="STACK", help=f"of {', '.join(STACKS)}; all that are here if none")
    parser.add_argument("--runs", type=int, default=40, help="meetings for each stack, role and way of trickling")
    parser.add_argument("--at-once", type=int, default=2, help="meetings at the same time")
    parser.add_argument("--logs", type=Path, help="a folder for the story of each meeting that failed")
    given = parser.parse_args()
    if unknown := set(given.stacks) - STACKS.keys():
        parser.error(f"no such stack: {', '.join(sorted(unknown))}")
    names = []
    for name in given.stacks or STACKS:
        if flaw := lack(name):
            sys.stderr.write(f"{flaw}\n")
        else:
            names.append(name)
    matrix = Matrix(given.logs)
    trio.run(_run, names, given.runs, given.at_once, matrix)
    return 1 if matrix.failed or not matrix.met or set(given.stacks) - set(names) else 0


sys.exit(main())
