"""The result of a measurement: figures, error sentences and a table. Pure."""

from typing import Final

import msgspec

from sdpx.bench.accounting import FAULTS, Tally, percentile
from sdpx.bench.options import BenchOptions

BUSY: Final = 0.9  # above this share a load process is the bottleneck
PERCENTILES: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
FULL: Final = ("429", "503")
PHASES: Final = {"relay": "messages", "connect": "connects", "session": "sessions"}


class MeasurementError(msgspec.Struct, frozen=True):
    """Why the figures are not valid: code and sentence of an `error` event."""

    code: str
    reason: str


class Figures(msgspec.Struct):
    """The result, as `--format json` prints it. The relay's CPU time is known only for a local process that was given."""

    relay: str
    sound: bool
    clients: int
    pairs: int
    payload: int
    in_flight: int
    seconds: float
    processes: int
    messages: int
    messages_per_s: float
    megabytes_per_s: float
    latency_ms: dict[str, float]
    connects_per_s: float
    sessions_per_s: float
    relay_cpu_us_per_message: float | None
    load_busy: dict[str, float]
    faults: dict[str, int]
    refused: dict[str, int]
    cut: dict[str, int]
    notes: list[str]
    error: MeasurementError | None


def figures(
    options: BenchOptions, url: str, processes: int, tallies: dict[str, Tally], relay_cpu: float | None = None
) -> Figures:
    """Return the result of all phases; `relay_cpu` is the CPU time of the relay in the phase `relay`, in seconds."""
    relayed = tallies["relay"]
    together = Tally()
    for tally in tallies.values():
        together.add(tally)
    error = _error(together)
    return Figures(
        relay=url,
        sound=error is None,
        clients=2 * options.pairs,
        pairs=options.pairs,
        payload=options.payload,
        in_flight=options.in_flight,
        seconds=options.seconds,
        processes=processes,
        messages=relayed.count,
        messages_per_s=round(relayed.rate, 1),
        megabytes_per_s=round(relayed.rate * options.payload / 1e6, 2),
        latency_ms={name: percentile(relayed.latencies, share) / 1000 for name, share in PERCENTILES.items()},
        connects_per_s=round(tallies["connect"].rate, 1),
        sessions_per_s=round(tallies["session"].rate, 1),
        relay_cpu_us_per_message=round(relay_cpu * 1e6 / relayed.count, 2) if relay_cpu and relayed.count else None,
        load_busy={phase: round(tally.busy, 3) for phase, tally in tallies.items()},
        faults={name: together.faults.get(name, 0) for name in FAULTS},
        refused=together.refused,
        cut=together.cut,
        notes=_notes(tallies),
        error=error,
    )


def _error(together: Tally) -> MeasurementError | None:
    """Return the error, if any; refusals come first because they explain the others."""
    sentences = [refused_sentence(together.refused)] if together.refused else []
    if together.cut:
        sentences.append(f"Connections ended unexpectedly ({_listed(together.cut)})")
    if together.faults:
        sentences.append(f"Messages were lost or damaged ({_listed(together.faults)})")
    return MeasurementError("bench_failed", ". ".join(sentences)) if sentences else None


def refused_sentence(refused: dict[str, int]) -> str:
    """Return a sentence on the refusals, with the relay's option to change."""
    sentence = f"The relay refused requests of the load ({_listed(refused)})"
    if any(code.startswith(FULL) for code in refused):
        return f"{sentence}: start it with --max-clients 0 --max-clients-per-ip 0, or lower --pairs"
    if "rate_limited" in refused:
        return f"{sentence}: start it with --rate 0"
    return sentence


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in sorted(counts.items()))


def _notes(tallies: dict[str, Tally]) -> list[str]:
    slow = [f"{PHASES[phase]} {tally.busy:.0%}" for phase, tally in tallies.items() if tally.busy > BUSY]
    if not slow:
        return []
    sentence = (
        f"The load generator was the bottleneck (busy: {', '.join(slow)}): the relay can carry more. "
        "Increase --processes, or run the load on another machine"
    )
    return [sentence]


def table(result: Figures) -> str:
    """Return the result as aligned lines."""
    rows = [
        ("relay", result.relay),
        ("clients", f"{result.clients} in {result.pairs} pairs, {result.in_flight} in flight in each"),
        ("messages", f"{result.messages:,} of {result.payload:,} bytes"),
        ("messages/s", f"{result.messages_per_s:,.0f}"),
        ("MB/s", f"{result.megabytes_per_s:,.1f}"),
        ("latency, ms", "  ".join(f"{name} {value:.3f}" for name, value in result.latency_ms.items())),
        ("connects/s", f"{result.connects_per_s:,.0f}"),
        ("sessions/s", f"{result.sessions_per_s:,.0f}"),
    ]
    if result.relay_cpu_us_per_message is not None:
        rows.append(("relay CPU", f"{result.relay_cpu_us_per_message:.1f} us per message"))
    rows += [
        (
            "load",
            f"{result.processes} processes, busy: {', '.join(f'{k} {v:.0%}' for k, v in result.load_busy.items())}",
        ),
        ("errors", _listed(result.refused | result.cut | {k: v for k, v in result.faults.items() if v}) or "none"),
    ]
    rows += [("note", note) for note in result.notes]
    return "".join(f"{name:<12} {value}\n" for name, value in rows)
