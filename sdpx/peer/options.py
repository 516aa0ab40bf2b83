"""Options of `sdpx peer`, and the URLs that follow from them. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, Literal
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from sdpx.ice_servers import IceServer, parse_stun, parse_turn
from sdpx.options import AccessOptions, LogOptions, ViewOptions, option
from sdpx.urls import DEFAULT_PORT, complete_relay_url

Expected = Literal["exchange", "connected", "channel", "message"]
DEFAULT_URL: Final = f"ws://127.0.0.1:{DEFAULT_PORT}"
MAX_STREAM: Final = 999  # 1000 is the heartbeat
_RESUME_KEYS: Final = ("seq", "resume", "last")
STUN: Final = partial(option, (), "STUN server, stun:HOST:PORT; repeatable.", "TURN and ICE", "URL")
TURN: Final = partial(
    option, (), "TURN server, turn:USER:PASS@HOST:PORT?transport=udp|tcp or turns:; repeatable.", "TURN and ICE", "URL"
)


@dataclass(frozen=True, slots=True)
class ConnectOptions(LogOptions):
    """Options of a program that connects to a peer. All times are in seconds; `timeout` includes all attempts of a pairing."""

    url: str = option(DEFAULT_URL, "Relay: ws://HOST:PORT, wss://HOST, or HOST:PORT.", "Network", "URL")
    client_id: str | None = option(
        None, "Request this ID: 1 to 64 letters, digits or -_.", "Network", "ID", flag="--id"
    )
    reconnect: bool = option(True, "Reconnect to a relay after the connection is lost.", "Network")
    wait: float = option(
        0.0,
        "Keep trying for this long while the other peer is absent or busy, or the relay unavailable.",
        "Pairing",
        "SECONDS",
        0,
        86400,
    )
    timeout: float = option(
        30.0, "Time from pairing to open connection, all attempts included.", "Pairing", "SECONDS", 0.1, 86400
    )
    retries: int = option(
        3, "Further attempts after a connection failed or was lost.", "Pairing", "NUMBER", 0, 1_000_000
    )
    stun: tuple[str, ...] = STUN()
    turn: tuple[str, ...] = TURN()
    no_stun: bool = option(False, "Use no STUN server, not even one that the relay names.", "TURN and ICE")
    ice_transport: Literal["all", "relay"] = option(
        "all", "Paths to use: all, or relay for those through a TURN server only.", "TURN and ICE", "POLICY"
    )
    access: AccessOptions = field(default_factory=AccessOptions)

    @property
    def ice_servers(self) -> tuple[IceServer, ...] | None:
        """The servers of `--stun` and `--turn`; None without them, when those of the relay are used. Raises ValueError."""
        return (*map(parse_stun, self.stun), *map(parse_turn, self.turn)) or None

    @property
    def relay_only(self) -> bool:
        """Whether all paths but those through a TURN server are excluded (RTCIceTransportPolicy, W3C WebRTC 4.2.1)."""
        return self.ice_transport == "relay"

    @property
    def names_itself(self) -> bool:
        """Whether the ID is chosen by the user, with `--id` or in the URL, and not by the relay."""
        return self.client_id is not None or "id" in dict(parse_qsl(urlsplit(self.url).query))

    def dial_url_for(self, client_id: str | None, resume: Iterable[tuple[str, str]] = ()) -> str:
        """Return the URL to connect to: with the requested ID if it is not None, and the `resume` parameters.

        Parameters of resume in the user's URL are dropped (PROTOCOL: Resume), and so is a token that `--token` replaces. The
        token is in the URL only if user and password need the header.
        """
        parts = urlsplit(self.url)
        dropped = {
            *_RESUME_KEYS,
            *(("id",) if client_id is not None else ()),
            *(("token",) if self.access.token else ()),
        }
        query = [pair for pair in parse_qsl(parts.query, keep_blank_values=True) if pair[0] not in dropped]
        query += [("id", client_id)] if client_id is not None else []
        query += [("token", self.access.token.strip())] if self.access.token is not None and "@" in parts.netloc else []
        return urlunsplit((parts.scheme, parts.netloc, parts.path or "/", urlencode([*query, *resume]), ""))

    @property
    def dial_headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """The Authorization header of a dial, if it has one."""
        authorization = self.access.authorization(self.url)
        return ((b"Authorization", authorization.encode()),) if authorization is not None else ()

    @property
    def shown_url(self) -> str:
        """The URL of the relay for logs: without user and password, and without the values of the query."""
        parts = urlsplit(self.url)
        host = parts.netloc.rpartition("@")[2]
        query = urlencode([(key, "...") for key, _ in parse_qsl(parts.query, keep_blank_values=True)], safe=".")
        return urlunsplit((parts.scheme, host, parts.path, query, ""))


@dataclass(frozen=True, slots=True)
class PeerOptions(ConnectOptions):
    """Options of `sdpx peer`."""

    pair: str | None = option(None, "Request a pairing with this ID, as initiator.", "Pairing", "ID")
    target: str | None = option(
        None, "Request a pairing with this peer; the same as --pair.", "Pairing", "ID", is_argument=True, in_file=False
    )
    channel: str = option(
        "chat",
        "Data channel to open: its label, or negotiated:ID for one that both sides create.",
        "Pairing",
        "LABEL",
    )
    stdin: Literal["lines", "json"] = option(
        "lines", "lines: each line is a message; json: each line is a command.", "Input and exit", "FORM"
    )
    files: str | None = option(
        None, "With --stdin json: receive files that the peer sends into this directory.", "Input and exit", "DIR"
    )
    once: bool = option(False, "Exit when the input is sent or the channel is closed.", "Input and exit")
    expect: Expected | None = option(
        None,
        "Exit with status 0 once this is reached: exchange, connected, channel or message.",
        "Input and exit",
        "STATE",
    )
    qr: bool = option(
        False,
        "Print a link to the relay's page that connects to this peer, and its QR code, on stderr.",
        "Input and exit",
    )
    view: ViewOptions = field(default_factory=ViewOptions)
    within: float | None = option(
        None, "With --expect: time to reach it, from the start.", "Input and exit", "SECONDS", 0.1, 86400
    )

    def completed(self) -> "PeerOptions":
        """Return the options with the URL in full, and with `pair` also where the ID is given as an argument."""
        pair = self.target if self.pair is None else self.pair
        return replace(self, url=complete_relay_url(self.url), pair=pair)

    @property
    def negotiated_id(self) -> int | None:
        """The stream identifier of a channel that both sides create (W3C WebRTC, 6.2), or None. Raises ValueError."""
        name, colon, number = self.channel.partition(":")
        if name != "negotiated" or not colon:
            return None
        if not number.isdecimal() or len(number) > 5 or int(number) > MAX_STREAM:  # noqa: PLR2004  digits
            raise ValueError(f"'{self.channel[:80]}' has no ID from 0 to {MAX_STREAM}; use negotiated:ID")
        return int(number)
