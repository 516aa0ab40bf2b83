"""`python -m tests.cluster_soak`: several nodes and a real engine under load, restarted, killed and cut off.

Figures are written to stdout. The exit status is 1 if a demand is missed; a sentence for each follows the figures.
"""

import argparse
import os
import platform
import sys
import tempfile
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import trio

from tests.cluster_soak.chaos import chaos
from tests.cluster_soak.cost import message_cost
from tests.cluster_soak.engine_loss import engine_loss
from tests.cluster_soak.isolation import isolation
from tests.cluster_soak.node_loss import node_loss
from tests.cluster_soak.outcome import QUICK, Scale
from tests.cluster_soak.pairing import pair_requests
from tests.cluster_soak.rolling import rolling_restart

MEASUREMENTS: Final = {
    "rolling": rolling_restart,
    "node-loss": node_loss,
    "engine-loss": engine_loss,
    "isolation": isolation,
    "pairing": pair_requests,
    "cost": message_cost,
    "chaos": chaos,
}


def options(arguments: list[str]) -> tuple[list[str], Scale, Path | None]:
    """Parse the command line; arguments after `--` are for `sdpx serve`."""
    parser = argparse.ArgumentParser(
        prog="cluster_soak", description=__doc__, epilog="Options after -- are passed to `sdpx serve`."
    )
    parser.add_argument("measurement", nargs="*", help=f"{', '.join(MEASUREMENTS)}; default: all")
    parser.add_argument("--quick", action="store_true", help="a small size: two minutes in all")
    parser.add_argument("--folder", type=Path, help="folder for the logs; default: a temporary one")
    for each in fields(Scale):
        if each.name != "serve":
            kind = {"int": int, "float": float}.get(str(each.type), type(each.default))
            parser.add_argument(f"--{each.name}", type=kind, help=f"default: {each.default}")
    end = arguments.index("--") if "--" in arguments else len(arguments)
    read = parser.parse_args(arguments[:end])
    unknown = set(read.measurement) - set(MEASUREMENTS)
    if unknown:
        parser.error(f"no such measurement: {', '.join(sorted(unknown))}; choose from {', '.join(MEASUREMENTS)}")
    given = {name: value for name, value in vars(read).items() if value is not None and hasattr(QUICK, name)}
    scale = replace(QUICK if read.quick else Scale(), serve=tuple(arguments[end + 1 :]), **given)
    return read.measurement or list(MEASUREMENTS), scale, read.folder


def main() -> int:
    """Run the measurements and return the exit status."""
    names, scale, folder = options(sys.argv[1:])
    sys.stdout.write(
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} cores, engine {scale.engine}\n"
    )
    missed = False
    for name in names:
        with tempfile.TemporaryDirectory() as temporary:
            place = (folder or Path(temporary)) / name
            place.mkdir(parents=True)
            outcome = trio.run(MEASUREMENTS[name], place, scale)
        sys.stdout.write(f"\n{outcome.render()}")
        sys.stdout.flush()
        missed = missed or bool(outcome.wrong)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
