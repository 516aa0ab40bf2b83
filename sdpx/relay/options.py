"""Options of `sdpx serve`. Pure."""

from dataclasses import dataclass, field
from typing import Literal

from sdpx.options import LogOptions, OnLogFailure, option
from sdpx.relay.auth.options import AuthOptions
from sdpx.relay.cluster.options import ClusterOptions
from sdpx.relay.core.limits import Limits
from sdpx.urls import DEFAULT_PORT

Engine = Literal["epoll", "trio-websocket"]


@dataclass(frozen=True, slots=True)
class ServeOptions(LogOptions):
    """Options of a relay; with a `metrics_port`, /metrics is served there and not at `port`."""

    host: str = option("127.0.0.1", "Address or host name to listen on (all addresses of the name).", "Network", "HOST")
    on_log_failure: OnLogFailure = option(
        "serve",
        "If the log cannot be written (disk full, pipe closed): serve on, with a note on stderr, or exit with status 1.",
        "Logging",
        "ACTION",
    )
    port: int = option(
        DEFAULT_PORT, "TCP port; 0: a free port, see server_listening in the log.", "Network", "NUMBER", 0, 65535
    )
    page: bool = option(True, "Serve a page to browsers at /, for trying and checking connections.", "Network")
    engine: Engine | None = option(
        None, "WebSocket engine; default: epoll, or trio-websocket (slower) where there is none.", "Network", "ENGINE"
    )
    metrics_port: int | None = option(
        None, "Serve /metrics on this port only; 0: a free port.", "Network", "NUMBER", 0, 65535
    )
    metrics_host: str | None = option(None, "Address for --metrics-port; default: that of --host.", "Network", "HOST")
    reuse_port: bool = option(
        False, "Share --port with other relays on this machine (SO_REUSEPORT), one a core; see --cluster.", "Network"
    )
    limits: Limits = field(default_factory=Limits)
    auth: AuthOptions = field(default_factory=AuthOptions)
    cluster: ClusterOptions = field(default_factory=ClusterOptions)
    ice_server: tuple[str, ...] = option(
        (),
        "STUN or TURN server for all clients, stun:HOST:PORT or turn:USER:PASS@HOST:PORT; repeatable.",
        "TURN and ICE",
        "URL",
    )
