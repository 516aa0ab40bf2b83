"""Options of `sdpx bench`. Pure."""

from dataclasses import dataclass, field
from typing import Final, Literal

from sdpx.options import AccessOptions, option

MIN_PAYLOAD: Final = 128


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """Options of a measurement; without a `url` it starts a relay of its own."""

    url: str | None = option(
        None,
        "Relay to measure, ws://HOST:PORT or wss://HOST:PORT; default: a relay started for it.",
        "Network",
        "URL",
        is_argument=True,
        in_file=False,
    )
    access: AccessOptions = field(default_factory=AccessOptions)
    pairs: int = option(32, "Pairs of clients.", "Load", "NUMBER", 1, 100_000)
    payload: int = option(4096, "Size of a message.", "Load", "BYTES", MIN_PAYLOAD, 1024**2)
    in_flight: int = option(1, "Messages in flight at once in each pair.", "Load", "NUMBER", 1, 1024)
    seconds: float = option(
        5.0, "Duration of each of the three phases; with --data, of the measurement.", "Load", "SECONDS", 0.1, 3600
    )
    processes: int = option(
        0, "Load-generating processes; 0: one fewer than CPU cores, at most 4.", "Load", "NUMBER", 0, 64
    )
    data: bool = option(False, "Measure a data channel between two processes here, not a relay.", "Data channel")
    message_size: int = option(65_536, "Size of a message, with --data.", "Data channel", "BYTES", 1, 256 * 1024)
    flows: int = option(
        1,
        "Associations of which the sender claims the share on a congested path, with --data.",
        "Data channel",
        "NUMBER",
        1,
        8,
    )
    format: Literal["table", "json"] = option("table", "table, or json for one JSON object.", "Output", "FORMAT")
