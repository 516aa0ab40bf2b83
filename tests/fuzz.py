"""`python -m tests.fuzz`: run the property tests with random seeds until the time is up.

Each round runs all Hypothesis tests with a new seed. Failures are printed as they are found, with the `@reproduce_failure`
decorator of Hypothesis and the command that repeats the test; the exit status is 1 if there were any.
"""

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import time
from typing import Final

FAILED: Final = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)
WORKERS: Final = 2
INTERRUPTED_SECONDS: Final = 30  # for the report of an interrupted round


def command(seed: int, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "pytest", "-q", "-m", "hypothesis", f"--hypothesis-seed={seed}", *arguments]


def run_round(seed: int, deadline: float, paths: list[str]) -> set[str]:
    """Run all tests once, until the deadline; prints the output if tests failed, and returns their IDs."""
    process = subprocess.Popen(
        command(seed, "-n", str(WORKERS), "--dist", "worksteal", *paths),
        env=os.environ | {"HYPOTHESIS_PROFILE": "fuzz"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        try:
            output, _ = process.communicate(timeout=INTERRUPTED_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
    failed = set(FAILED.findall(output))
    if failed:
        sys.stdout.write(output)
        for test in sorted(failed):
            repeat = " ".join(["HYPOTHESIS_PROFILE=fuzz", *command(seed, f"'{test}'")])
            sys.stdout.write(f"\nRepeat with: {repeat}\n")
    elif process.returncode not in {0, 2, -signal.SIGKILL, -signal.SIGINT}:
        sys.stdout.write(output)
        raise SystemExit(f"pytest ended with status {process.returncode}")
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0, help="how long to run")
    parser.add_argument("--seed", type=int, help="the seed of the first round")
    parser.add_argument("paths", nargs="*", help="test files or directories, all by default")
    arguments = parser.parse_args()
    deadline = time.monotonic() + arguments.seconds
    failed: set[str] = set()
    seeds = random.SystemRandom()
    seed, rounds = arguments.seed, 0
    while time.monotonic() < deadline:
        seed = seeds.randrange(1 << 32) if seed is None else seed
        sys.stdout.write(f"Round {(rounds := rounds + 1)}, seed {seed}\n")
        sys.stdout.flush()
        failed |= run_round(seed, deadline, arguments.paths)
        seed = None
    sys.stdout.write(f"{rounds} rounds, {len(failed)} failed tests\n")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
