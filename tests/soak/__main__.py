"""`python -m tests.soak`: thousands of short sessions with random faults against a real relay.

Figures go to stdout, progress to stderr. The exit status is 0 if all that has to hold holds, otherwise 1, and a sentence
for each thing that does not is behind the figures.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import trio

from tests.soak.report import render
from tests.soak.run import Options, soak


def options(arguments: list[str]) -> tuple[Options, Path | None]:
    """Read the command line; what stands behind `--` is for `sdpx serve`."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__, epilog="Options behind -- go to `sdpx serve`.")
    parser.add_argument("--sessions", type=int, default=5000, help="how many; default %(default)s")
    parser.add_argument("--seconds", type=float, default=0.0, help="begin none later than this; default: no bound")
    parser.add_argument("--at-once", type=int, default=40, help="how many side by side; default %(default)s")
    parser.add_argument("--seed", default=str(int(time.time())), help="of the dice; default: the time")
    parser.add_argument("--folder", type=Path, help="where the relay's log and stderr stay; default: nowhere")
    end = arguments.index("--") if "--" in arguments else len(arguments)
    read = parser.parse_args(arguments[:end])
    serve = tuple(arguments[end + 1 :])
    return Options(read.sessions, read.seconds, read.at_once, read.seed, serve), read.folder


def main() -> int:
    """Run the soak that the command line asks for; returns the exit status."""
    asked, folder = options(sys.argv[1:])
    sys.stderr.write(f"Seed {asked.seed}\n")
    with tempfile.TemporaryDirectory() as passing:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        outcome = trio.run(soak, asked, folder or Path(passing))
    sys.stdout.write(render(outcome))
    return 1 if outcome.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
