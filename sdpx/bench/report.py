"""What a measurement is told as: figures, sentences, a table. Pure."""

from typing import Final

import msgspec

from sdpx.bench.accounting import FAULTS, Tally, percentile

BUSY: Final = 0.9  # a process of the load that is busier than this sets the pace itself
PERCENTILES: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
FULL: Final = ("429", "503")
PHASES: Final = {"relay": "messages", "connect": "connects", "session": "sessions"}


class BenchRequest(msgspec.Struct, frozen=True):
    """What was measured."""

    url: str
    pairs: int
    payload: int
    in_flight: int
    seconds: float
    processes: int


class Flaw(msgspec.Struct, frozen=True):
    """Why the figures do not count, as the `error` event of other programs has it."""

    code: str
    reason: str


class Figures(msgspec.Struct):
    """The result, as `--format json` prints it; `load_busy` is by phase, the relay's CPU known only of one on this machine."""

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
    error: Flaw | None


def figures(asked: BenchRequest, tallies: dict[str, Tally], relay_cpu: float | None = None) -> Figures:
    """Return the result of all phases; `relay_cpu` is the seconds that the relay worked while it relayed."""
    relayed = tallies["relay"]
    together = Tally()
    for tally in tallies.values():
        together.add(tally)
    flaw = _flaw(together)
    return Figures(
        relay=asked.url,
        sound=flaw is None,
        clients=2 * asked.pairs,
        pairs=asked.pairs,
        payload=asked.payload,
        in_flight=asked.in_flight,
        seconds=asked.seconds,
        processes=asked.processes,
        messages=relayed.count,
        messages_per_s=round(relayed.rate, 1),
        megabytes_per_s=round(relayed.rate * asked.payload / 1e6, 2),
        latency_ms={name: percentile(relayed.latencies, share) / 1000 for name, share in PERCENTILES.items()},
        connects_per_s=round(tallies["connect"].rate, 1),
        sessions_per_s=round(tallies["session"].rate, 1),
        relay_cpu_us_per_message=round(relay_cpu * 1e6 / relayed.count, 2) if relay_cpu and relayed.count else None,
        load_busy={phase: round(tally.busy, 3) for phase, tally in tallies.items()},
        faults={name: together.faults.get(name, 0) for name in FAULTS},
        refused=together.refused,
        cut=together.cut,
        notes=_notes(tallies),
        error=flaw,
    )


def _flaw(together: Tally) -> Flaw | None:
    """Return what does not hold, the relay's refusals first: they explain what else there is."""
    sentences = [refused_sentence(together.refused)] if together.refused else []
    if together.cut:
        sentences.append(f"Connections ended that should not have ({_listed(together.cut)})")
    if together.faults:
        sentences.append(f"Messages were not sound ({_listed(together.faults)})")
    return Flaw("bench_failed", ". ".join(sentences)) if sentences else None


def refused_sentence(refused: dict[str, int]) -> str:
    """Return what the relay refused, and which of its options has to be raised for that."""
    sentence = f"The relay refused what the load asked for ({_listed(refused)})"
    if any(code.startswith(FULL) for code in refused):
        return f"{sentence}: start it with --max-clients 0 --max-clients-per-ip 0, or measure with fewer --pairs"
    if "rate_limited" in refused:
        return f"{sentence}: start it with --rate 0"
    return sentence


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} {what}" for what, number in sorted(counts.items()))


def _notes(tallies: dict[str, Tally]) -> list[str]:
    slow = [f"{PHASES[phase]} {tally.busy:.0%}" for phase, tally in tallies.items() if tally.busy > BUSY]
    if not slow:
        return []
    sentence = (
        f"The load generator itself was the bottleneck (busy: {', '.join(slow)}): the relay carries at least this. "
        "Try more --processes, or another machine for the load"
    )
    return [sentence]


def table(result: Figures) -> str:
    """Return the result as lines for a person."""
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
        rows.append(("relay's CPU", f"{result.relay_cpu_us_per_message:.1f} us a message"))
    rows += [
        (
            "load",
            f"{result.processes} processes, busy: {', '.join(f'{k} {v:.0%}' for k, v in result.load_busy.items())}",
        ),
        ("errors", _listed(result.refused | result.cut | {k: v for k, v in result.faults.items() if v}) or "none"),
    ]
    rows += [("note", note) for note in result.notes]
    return "".join(f"{name:<12} {value}\n" for name, value in rows)
