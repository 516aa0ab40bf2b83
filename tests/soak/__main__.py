"""`python -m tests.soak`: thousands of short sessions with random faults against a real relay.

Figures are written to stdout, progress to stderr. The exit status is 1 if a check fails; a sentence for each follows the
figures.
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
    """Parse the command line; arguments after `--` are for `sdpx serve`."""
    parser = argparse.ArgumentParser(
        prog="soak", description=__doc__, epilog="Options after -- are passed to `sdpx serve`."
    )
    parser.add_argument("--sessions", type=int, default=5000, help="number of sessions; default %(default)s")
    parser.add_argument(
        "--seconds", type=float, default=0.0, help="start no session after this time; default: no limit"
    )
    parser.add_argument("--at-once", type=int, default=40, help="concurrent sessions; default %(default)s")
    parser.add_argument("--seed", default=str(int(time.time())), help="random seed; default: the time")
    parser.add_argument("--folder", type=Path, help="folder for the relay's log and stderr; default: a temporary one")
    end = arguments.index("--") if "--" in arguments else len(arguments)
    read = parser.parse_args(arguments[:end])
    serve = tuple(arguments[end + 1 :])
    return Options(read.sessions, read.seconds, read.at_once, read.seed, serve), read.folder


def main() -> int:
    """Run the soak and return the exit status."""
    asked, folder = options(sys.argv[1:])
    sys.stderr.write(f"Seed {asked.seed}\n")
    with tempfile.TemporaryDirectory() as temporary:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        result = trio.run(soak, asked, folder or Path(temporary))
    sys.stdout.write(render(result))
    return 1 if result.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
