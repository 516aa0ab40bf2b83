"""`python -m tests.transfer`: the guarantees of `sdpx pipe`, `send` and `receive`, with real processes and real sizes.

The proofs are `pipe` (bit for bit, memory), `send` (against the bare channel and a pipe without a hash), `small` (many small
files), `cuts` (random cuts of connection, relay and processes) and `restart` (the receiver is killed again and again). As root
they run in a network namespace of their own, where the connection can be cut; elsewhere that kind of cut is left out.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from sdpx.child_process import environment
from tests.transfer.programs import Relay, Transfer, cut, running, watch

BLOCK: Final = 1024 * 1024
BARE_SECONDS: Final = 8.0
NAMESPACE: Final = "SDPX_TRANSFER_NAMESPACE"
SETUP: Final = (
    "ip link set lo up; ip tuntap add sdpx0 mode tun; ip addr add 10.99.0.1/24 dev sdpx0; ip link set sdpx0 up"
)


def make_file(path: Path, megabytes: int) -> None:
    with path.open("wb") as file:
        for _ in range(megabytes):
            file.write(os.urandom(BLOCK))


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def same(a: Path, b: Path) -> None:
    assert digest(a) == digest(b), f"{a} and {b} differ"


def report(name: str, size: float, figures: dict[str, float], more: str = "") -> float:
    speed = size / figures["seconds"]
    cpu = figures["cpu"] / (size / 1000)
    text = f"{name}: {size:.0f} MB in {figures['seconds']:.1f} s, {speed:.1f} MB/s, {cpu:.1f} CPU s/GB of both ends"
    sys.stdout.write(f"{text}, at most {figures['memory']:.0f} MB resident{more}\n")
    sys.stdout.flush()
    return speed


def pipe(folder: Path, asked: argparse.Namespace) -> None:
    """1 GiB through a pipe, bit for bit, at most 150 MB of memory in each end."""
    source, target = folder / "in", folder / "out"
    make_file(source, asked.megabytes)
    with (
        source.open("rb") as stdin,
        target.open("wb") as stdout,
        running(folder, ["pipe"], ["pipe", "bob"], stdin=stdin, stdout=stdout) as (_, a, b),
    ):
        figures = watch(a, b, asked.seconds)
    same(source, target)
    report("pipe", source.stat().st_size / 1e6, figures)
    assert figures["memory"] <= 150, "more than 150 MB of memory"


def send(folder: Path, asked: argparse.Namespace) -> None:
    """A file, verified, against the bare channel and the same bytes through a pipe, in alternating runs."""
    source = folder / "in"
    make_file(source, asked.megabytes)
    size, speeds = source.stat().st_size / 1e6, defaultdict[str, list[float]](list)
    for _ in range(asked.rounds):
        speeds["bare channel"].append(bare_channel())
        with (
            source.open("rb") as stdin,
            Path(os.devnull).open("wb") as stdout,
            running(folder, ["pipe"], ["pipe", "bob"], stdin=stdin, stdout=stdout) as (_, a, b),
        ):
            speeds["pipe"].append(report("pipe to /dev/null", size, watch(a, b, asked.seconds)))
        target = folder / "out"
        arguments = ["receive", str(target), "--yes"], ["send", str(source), "--to", "bob"]
        with running(folder, *arguments) as (_, a, b):
            speeds["send"].append(report("send", size, watch(a, b, asked.seconds)))
        same(source, target / "in")
        shutil.rmtree(target)
    medians = {name: statistics.median(found) for name, found in speeds.items()}
    for name in ("bare channel", "pipe"):
        sys.stdout.write(f"send against the {name}: {medians['send'] / medians[name]:.2f} (medians)\n")


def bare_channel() -> float:
    """Return the MB/s of a data channel between two processes, as `sdpx bench --data` measures it."""
    command = [sys.executable, "-m", "sdpx", "bench", "--data", "--seconds", str(BARE_SECONDS), "--format", "json"]
    found = json.loads(subprocess.run(command, capture_output=True, check=True, env=environment()).stdout)
    sys.stdout.write(f"bare channel: {found['megabytes_per_s']:.1f} MB/s, the limit: {found['limit']}\n")
    return float(found["megabytes_per_s"])


def small(folder: Path, asked: argparse.Namespace) -> None:
    """Many small files."""
    source = folder / "tree"
    for number in range(asked.files):
        path = source / f"{number % 100}" / f"{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(number % 4000))
    target = folder / "out"
    arguments = ["receive", str(target), "--yes"], ["send", str(source), "--to", "bob"]
    with running(folder, *arguments) as (_, a, b):
        figures = watch(a, b, asked.seconds)
    for path in source.rglob("*"):
        other = target / path.relative_to(folder)
        assert path.is_dir() or path.read_bytes() == other.read_bytes(), f"{other} differs"
    size = sum(path.stat().st_size for path in source.rglob("*") if path.is_file()) / 1e6
    report("small files", size, figures, f", {asked.files / figures['seconds']:.0f} files/s")


def cuts(folder: Path, asked: argparse.Namespace) -> None:
    """A file with `send` and one through a pipe, each with random cuts."""
    source, chance = folder / "in", random.Random(asked.seed)
    make_file(source, asked.megabytes)
    target = folder / "target"
    arguments = ["receive", str(target), "--yes"], ["send", str(source), "--to", "bob"]
    with running(folder, *arguments) as (relay, a, b):
        _cut_often("send", source, relay, a, b, asked, chance)
    same(source, target / "in")
    with (
        source.open("rb") as stdin,
        (folder / "out").open("wb") as stdout,
        running(folder, ["pipe"], ["pipe", "bob"], stdin=stdin, stdout=stdout) as (relay, a, b),
    ):
        _cut_often("pipe", source, relay, a, b, asked, chance)
    same(source, folder / "out")


def _has(path: Path, size: int) -> bool:
    return path.exists() and path.stat().st_size >= size


def _cut_often(
    name: str, source: Path, relay: Relay, a: Transfer, b: Transfer, asked: argparse.Namespace, chance: random.Random
) -> None:
    kinds = ["relay", "sender", "receiver", *(["connection"] if NAMESPACE in os.environ else [])]
    done = list[str]()
    a.wait_until(lambda: a.connections > 0, "the first connection")
    while len(done) < asked.cuts and a.process.poll() is None:
        time.sleep(chance.uniform(0, asked.pause))
        kind, seen = chance.choice(kinds), (a.connections, b.connections)
        cut(kind, relay, a, b, chance)
        done.append(kind)
        for each, before in zip((a, b), seen, strict=True):
            if kind != "relay":
                each.wait_for_connection(before)
    figures = watch(a, b, asked.seconds)
    counted = ", ".join(f"{kind} {done.count(kind)}" for kind in kinds)
    report(f"{name} with {len(done)} cuts ({counted})", source.stat().st_size / 1e6, figures)
    assert len(done) >= asked.cuts, f"only {len(done)} cuts happened: use more --megabytes or a shorter --pause"


def restart(folder: Path, asked: argparse.Namespace) -> None:
    """The receiver is killed and started again; the sender stays, and goes on from the incomplete file."""
    source, target = folder / "in", folder / "target"
    make_file(source, asked.megabytes)
    arguments = ["receive", str(target), "--yes"], ["send", str(source), "--to", "bob"]
    with running(folder, *arguments) as (relay, a, first):
        part, last = target / "in.part", first
        for number in range(asked.kills):
            size = (number + 1) * asked.megabytes * BLOCK // (asked.kills + 1)
            a.wait_until(partial(_has, part, size), f"{size} bytes")
            last.process.kill()
            last.process.wait()
            had = part.stat().st_size
            common = ["--url", relay.url, "--no-stun", "--retries", "50", "--id", "bob"]
            last = Transfer(folder, f"receiver{number}", *arguments[0], *common)
            last.wait_for_connection(0)
            assert part.stat().st_size >= had, "the receiver began anew"
        figures = watch(a, last, asked.seconds)
    same(source, target / "in")
    report(f"send with {asked.kills} killed receivers", source.stat().st_size / 1e6, figures)


PROOFS: Final[dict[str, Callable[[Path, argparse.Namespace], None]]] = {
    each.__name__: each for each in (pipe, send, small, cuts, restart)
}


def options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="transfer", description=__doc__)
    parser.add_argument("proofs", nargs="*", choices=[[], *PROOFS], default=[], help="which ones; default: all")
    parser.add_argument("--megabytes", type=int, default=1024, help="size of the large file; default %(default)s")
    parser.add_argument("--files", type=int, default=10_000, help="number of small files; default %(default)s")
    parser.add_argument("--cuts", type=int, default=30, help="number of cuts; default %(default)s")
    parser.add_argument("--pause", type=float, default=0.5, help="seconds between cuts, at most; default %(default)s")
    parser.add_argument("--kills", type=int, default=5, help="number of killed receivers; default %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="alternating runs of `send`; default %(default)s")
    parser.add_argument("--seconds", type=float, default=600.0, help="time for one transfer; default %(default)s")
    parser.add_argument("--seed", default=str(int(time.time())), help="random seed; default: the time")
    return parser.parse_args(arguments)


def main() -> int:
    if os.geteuid() == 0 and shutil.which("unshare") and NAMESPACE not in os.environ:
        command = ["unshare", "-n", "sh", "-c", f'{SETUP}; exec "$@"', "sh", sys.executable, "-m", "tests.transfer"]
        return subprocess.run([*command, *sys.argv[1:]], env=os.environ | {NAMESPACE: "1"}, check=False).returncode
    asked = options(sys.argv[1:])
    sys.stderr.write(f"Seed {asked.seed}\n")
    for name in asked.proofs or PROOFS:
        folder = Path(tempfile.mkdtemp(prefix="sdpx-transfer-"))  # it stays where a proof fails
        PROOFS[name](folder, asked)
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
