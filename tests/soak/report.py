"""The figures of a soak, as a table."""

from tests.soak.run import MIB, PairOutcome
from tests.soak.watch import Look

WIDTH = 44


def render(outcome: PairOutcome) -> str:
    """Return the table, and a sentence for each thing that does not hold."""
    figures, looks = outcome.figures, (outcome.start, outcome.before, outcome.after)
    rows: list[tuple[str, object]] = [
        ("sessions", outcome.sessions),
        ("clients", outcome.clients),
        *((f"  {kind}", times) for kind, times in sorted(outcome.faults.items())),
        ("frames sent", figures.sent),
        ("frames delivered", figures.delivered),
        ("frames told of as undelivered", figures.told),
        ("frames of senders that ended themselves", figures.ended),
        ("lost", figures.lost),
        ("duplicates", figures.duplicates),
        ("reordered", figures.reordered),
        ("altered or astray", figures.altered),
        ("delivered, but told otherwise", figures.wrongly_told),
        ("leaked clients", outcome.leaked_clients),
        *_looked(*looks),
        ("idle CPU", f"{outcome.idle:.1%}"),
        ("stopped within (ms)", "?" if outcome.stop_ms is None else f"{outcome.stop_ms:.0f}"),
        ("seconds", f"{outcome.seconds:.1f}"),
        ("sessions a second", f"{outcome.sessions / outcome.seconds:.1f}" if outcome.seconds else "?"),
    ]
    table = "".join(f"{name:<{WIDTH}}{value}\n" for name, value in rows)
    return table + "".join(f"WRONG: {sentence}\n" for sentence in outcome.wrong)


def _looked(start: Look | None, before: Look | None, after: Look | None) -> list[tuple[str, object]]:
    if start is None or before is None or after is None:
        return []
    memory = (start.memory, before.memory, after.memory, after.peak)
    return [
        ("leaked descriptors", max(0, after.descriptors - start.descriptors)),
        ("threads at the start, warm, at the end", f"{start.threads}, {before.threads}, {after.threads}"),
        ("MiB at the start, warm, at the end, peak", ", ".join(f"{value / MIB:.1f}" for value in memory)),
    ]
