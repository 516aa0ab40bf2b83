"""`sdpx bench --data` and `just bench-data`: the figures, the limit that they show, and a run of the program."""

import json
import subprocess
import sys
from typing import Any

import pytest

from sdpx.bench.data_report import DataJob, DataResult, figures, limit, table
from tests.bench import data
from tests.harness.processes import environment

PATH = {
    "rtt": 0.05,
    "cwnd": 10,
    "flight": 10,
    "peer_window": 1e6,
    "packets_sent": 10_000,
    "retransmissions": 0,
    "timeouts": 0,
}


def end(**changes: Any) -> DataResult:
    path = PATH | changes.pop("path", {})
    return DataResult(**({"bytes": 10**9, "seconds": 10.0, "cpu": 5.0, "busy": 0.5, "path": path} | changes))


def test_figures_are_those_of_the_receiver() -> None:
    """The sender may be ahead by a window."""
    result = figures(DataJob(sends=True), end(bytes=2 * 10**9), end())
    assert (result["megabytes_per_s"], result["cpu_s_per_gb"]) == (100.0, {"sender": 2.5, "receiver": 5.0})
    assert result["rtt_ms"] == 50.0
    assert "100.0 MB/s" in table(result)
    assert figures(DataJob(sends=True), DataResult(), DataResult())["megabytes_per_s"] == 0.0


@pytest.mark.parametrize(
    ("sender", "receiver", "expected"),
    [
        (end(busy=0.9), end(), "the CPU of the sender"),
        (end(busy=0.9), end(busy=0.95), "the CPU of the receiver"),
        (end(path={"retransmissions": 100}), end(busy=0.9), "the congestion window, which loss keeps small"),
        (end(path={"peer_window": 0}), end(), "the window of the receiver: it is sent once in a round trip"),
        (end(), end(), "the congestion window, which was still growing"),
        (DataResult(), DataResult(), "unknown: the installed aiortc does not fit"),
    ],
)
def test_the_limit_is_named(sender: DataResult, receiver: DataResult, expected: str) -> None:
    assert limit(sender, receiver) == expected


def test_demands_are_met_or_not() -> None:
    """Ratios of medians; a missing measurement is no failure."""
    fast, slow = figures(DataJob(sends=True), end(), end()), figures(DataJob(sends=True), end(), end(seconds=100.0))
    runs: data.Runs = {(data.LOOPBACK, data.SDPX): [fast, slow, fast], (data.LOOPBACK, data.NDC): [slow]}
    text, met = data.rendered(runs)
    assert met
    assert "| >= 0.5 | 10.00 |" in text
    assert "not measured" in text
    assert not data.rendered({(data.LOOPBACK, data.SDPX): [slow], (data.LOOPBACK, data.NDC): [fast]})[1]


@pytest.mark.e2e
def test_a_channel_is_measured() -> None:
    """Between two processes; the figures are plausible."""
    command = [sys.executable, "-m", "sdpx", "bench", "--data", "--seconds", "1", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads(done.stdout)
    assert result["megabytes_per_s"] > 0
    assert result["packets"] > 0
    assert result["error"] is None
