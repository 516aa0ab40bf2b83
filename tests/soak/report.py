"""The result of a soak as a table."""

from tests.soak.run import MIB, SoakResult
from tests.soak.watch import ResourceUsage

WIDTH = 44


def render(result: SoakResult) -> str:
    """Return the table, and a sentence for each failed check."""
    figures, looks = result.figures, (result.start, result.before, result.after)
    rows: list[tuple[str, object]] = [
        ("sessions", result.sessions),
        ("clients", result.clients),
        *((f"  {kind}", times) for kind, times in sorted(result.faults.items())),
        ("frames sent", figures.sent),
        ("frames delivered", figures.delivered),
        ("frames reported as undelivered", figures.notified),
        ("frames of disconnected senders", figures.ended),
        ("lost", figures.lost),
        ("duplicates", figures.duplicates),
        ("reordered", figures.reordered),
        ("altered or misdirected", figures.altered),
        ("delivered and reported as undelivered", figures.wrongly_notified),
        ("leaked clients", result.leaked_clients),
        *_resource_rows(*looks),
        ("idle CPU", f"{result.idle:.1%}"),
        ("stopped within (ms)", "?" if result.stop_ms is None else f"{result.stop_ms:.0f}"),
        ("seconds", f"{result.seconds:.1f}"),
        ("sessions a second", f"{result.sessions / result.seconds:.1f}" if result.seconds else "?"),
    ]
    table = "".join(f"{name:<{WIDTH}}{value}\n" for name, value in rows)
    return table + "".join(f"FAILED: {sentence}\n" for sentence in result.wrong)


def _resource_rows(
    start: ResourceUsage | None, before: ResourceUsage | None, after: ResourceUsage | None
) -> list[tuple[str, object]]:
    if start is None or before is None or after is None:
        return []
    memory = (start.memory, before.memory, after.memory, after.peak)
    return [
        ("leaked descriptors", max(0, after.descriptors - start.descriptors)),
        ("threads at start, after warm-up, at end", f"{start.threads}, {before.threads}, {after.threads}"),
        ("MiB at start, after warm-up, at end, peak", ", ".join(f"{value / MIB:.1f}" for value in memory)),
    ]
