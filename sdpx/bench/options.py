"""Options of `sdpx bench`. Pure."""

from dataclasses import dataclass, field
from typing import Final, Literal

from sdpx.options import AccessOptions, option
from sdpx.peer.options import DEFAULT_URL, STUN, TURN, PeerOptions

MIN_PAYLOAD: Final = 128
MAX_MESSAGE: Final = 256 * 1024
MAX_SECONDS: Final = 3600
MAX_FLOWS: Final = 8
CHANNEL: Final = "bench"  # the label of the data channel, and the mode in the `agent`


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """Options of a measurement; without a `url` it starts a relay of its own, or with `data` two ends of a channel."""

    url: str | None = option(
        None,
        "Relay to measure, or with --data to use: ws://HOST:PORT, wss://HOST; default: one started for it.",
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
        5.0,
        "Duration of each of the three phases; with --data, of the measurement.",
        "Load",
        "SECONDS",
        0.1,
        MAX_SECONDS,
    )
    processes: int = option(
        0, "Load-generating processes; 0: one fewer than CPU cores, at most 4.", "Load", "NUMBER", 0, 64
    )
    data: bool = option(False, "Measure a data channel, not a relay: between two processes here.", "Data channel")
    with_peer: str | None = option(
        None,
        "With --data: to the machine where 'sdpx bench --data --id ID' waits.",
        "Data channel",
        "ID",
        flag="--with",
        in_file=False,
    )
    client_id: str | None = option(
        None, "With --data: wait under this ID for a '--with ID'.", "Data channel", "ID", flag="--id", in_file=False
    )
    message_size: int = option(65_536, "Size of a message, with --data.", "Data channel", "BYTES", 1, MAX_MESSAGE)
    flows: int = option(
        1,
        "Associations of which the sender claims the share on a congested path, with --data.",
        "Data channel",
        "NUMBER",
        1,
        MAX_FLOWS,
    )
    stun: tuple[str, ...] = STUN()
    turn: tuple[str, ...] = TURN()
    no_stun: bool = option(False, "Use no STUN server, not even one that the relay names.", "TURN and ICE")
    format: Literal["table", "json"] = option("table", "table, or json for one JSON object.", "Output", "FORMAT")

    @property
    def is_remote(self) -> bool:
        """Whether the other end of the data channel is another program, which connects by a relay."""
        return self.data and (self.url or self.with_peer or self.client_id) is not None

    @property
    def peer(self) -> PeerOptions:
        """The options of the peer that measures a data channel to another machine: it requests a pairing, or waits."""
        return PeerOptions(
            url=self.url or DEFAULT_URL,
            client_id=self.client_id,
            access=self.access,
            stun=self.stun,
            turn=self.turn,
            no_stun=self.no_stun,
            pair=self.with_peer,
            retries=0,  # a measurement is one of a single connection
            stdin="json",
            channel=CHANNEL,
            once=True,
        )
