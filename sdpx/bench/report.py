"""The result of a measurement: figures, error sentences and a table. Pure."""

from collections.abc import Mapping
from typing import Any, Final

from sdpx.bench.accounting import FAULTS, Tally, percentile
from sdpx.bench.options import BenchOptions

BUSY: Final = 0.9  # above this share a load process is the bottleneck
PERCENTILES: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
FULL: Final = ("429", "503")
BOTTLENECK: Final = (
    "The load generator was the bottleneck (busy: {busy}): the relay can carry more. "
    "Increase --processes, or run the load on another machine"
)
PHASES: Final = {"relay": "messages", "connect": "connects", "session": "sessions"}

Figures = dict[str, Any]  # the result, as `--format json` prints it


def figures(
    options: BenchOptions, url: str, processes: int, tallies: dict[str, Tally], relay_cpu: float = 0.0
) -> Figures:
    """Return the result of all phases.

    `relay_cpu` is the CPU time of the relay in the phase `relay`, in seconds; 0 if it is unknown.
    """
    relayed = tallies["relay"]
    together = Tally()
    for tally in tallies.values():
        together.add(tally)
    reason = _error_sentence(together)
    slow = [f"{PHASES[phase]} {tally.busy:.0%}" for phase, tally in tallies.items() if tally.busy > BUSY]
    return {
        "relay": url,
        "sound": not reason,
        "clients": 2 * options.pairs,
        "pairs": options.pairs,
        "payload": options.payload,
        "in_flight": options.in_flight,
        "seconds": options.seconds,
        "processes": processes,
        "messages": relayed.count,
        "messages_per_s": round(relayed.rate, 1),
        "megabytes_per_s": round(relayed.rate * options.payload / 1e6, 2),
        "latency_ms": {name: percentile(relayed.latencies, share) / 1000 for name, share in PERCENTILES.items()},
        "connects_per_s": round(tallies["connect"].rate, 1),
        "sessions_per_s": round(tallies["session"].rate, 1),
        "relay_cpu_us_per_message": round(relay_cpu * 1e6 / relayed.count, 2)
        if relay_cpu > 0 and relayed.count
        else None,
        "load_busy": {phase: round(tally.busy, 3) for phase, tally in tallies.items()},
        "faults": {name: together.faults[name] for name in FAULTS},
        "refused": together.refused,
        "cut": together.cut,
        "notes": [BOTTLENECK.format(busy=", ".join(slow))] if slow else [],
        "error": {"code": "bench_failed", "reason": reason} if reason else None,
    }


def _error_sentence(together: Tally) -> str:
    """Return why the figures are not valid, if they are not; refusals come first because they explain the others."""
    sentences = [refused_sentence(together.refused)] if together.refused else []
    if together.cut:
        sentences.append(f"Connections ended unexpectedly ({_listed(together.cut)})")
    if together.faults:
        sentences.append(f"Messages were lost or damaged ({_listed(together.faults)})")
    return ". ".join(sentences)


def refused_sentence(refused: Mapping[str, int]) -> str:
    """Return a sentence on the refusals, with the relay's option to change."""
    sentence = f"The relay refused requests of the load ({_listed(refused)})"
    if any(code.startswith(FULL) for code in refused):
        return f"{sentence}: start it with --max-clients 0 --max-clients-per-ip 0, or lower --pairs"
    if "rate_limited" in refused:
        return f"{sentence}: start it with --rate 0"
    return sentence


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in sorted(counts.items()) if number)


def table(result: Figures) -> str:
    """Return the result as aligned lines."""
    busy = ", ".join(f"{phase} {share:.0%}" for phase, share in result["load_busy"].items())
    rows = [
        ("relay", "{relay}"),
        ("clients", "{clients} in {pairs} pairs, {in_flight} in flight in each"),
        ("messages", "{messages:,} of {payload:,} bytes"),
        ("messages/s", "{messages_per_s:,.0f}"),
        ("MB/s", "{megabytes_per_s:,.1f}"),
        ("latency, ms", "  ".join(f"{name} {value:.3f}" for name, value in result["latency_ms"].items())),
        ("connects/s", "{connects_per_s:,.0f}"),
        ("sessions/s", "{sessions_per_s:,.0f}"),
        ("relay CPU", "{relay_cpu_us_per_message:.1f} us per message"),
        ("load", f"{{processes}} processes, busy: {busy}"),
        ("errors", "{errors}"),
        *(("note", note) for note in result["notes"]),
    ]
    if result["relay_cpu_us_per_message"] is None:
        rows = [row for row in rows if row[0] != "relay CPU"]
    errors = _listed({**result["refused"], **result["cut"], **result["faults"]}) or "none"
    return "".join(f"{name:<12} {text.format(**result, errors=errors)}\n" for name, text in rows)
