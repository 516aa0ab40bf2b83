"""The options of `sdpx serve`, but for those of trust, as Typer has them."""

from enum import StrEnum
from typing import Annotated

import typer

HostOption = Annotated[
    str, typer.Option(envvar="SDPX_HOST", help="Address or host name to listen on; every address of it.")
]
PortOption = Annotated[
    int,
    typer.Option(envvar="SDPX_PORT", min=0, max=65535, help="TCP port; 0 picks a free one and the log says which."),
]
MaxClientsOption = Annotated[int, typer.Option(envvar="SDPX_MAX_CLIENTS", min=0, help="Clients at once; 0: no limit.")]
MaxClientsPerIpOption = Annotated[
    int, typer.Option(envvar="SDPX_MAX_CLIENTS_PER_IP", min=0, help="The same, from one address; 0: no limit.")
]
RateOption = Annotated[
    float, typer.Option(envvar="SDPX_RATE", min=0, help="Messages a second from one client; 0: no limit.")
]
GuessRateOption = Annotated[
    float,
    typer.Option(
        envvar="SDPX_UNKNOWN_TARGET_RATE",
        min=0,
        help="Requests for absent IDs a second, from one address; 0: no limit.",
    ),
]
HandshakeOption = Annotated[
    float,
    typer.Option(
        envvar="SDPX_HANDSHAKE_TIMEOUT",
        min=0.1,
        max=600,
        metavar="SECONDS",
        help="How long a request may take to come.",
    ),
]
MaxFrameOption = Annotated[
    int, typer.Option(envvar="SDPX_MAX_MESSAGE_SIZE", min=1024, max=1024**2, metavar="BYTES", help="Of one message.")
]
PingOption = Annotated[
    float,
    typer.Option(envvar="SDPX_PING_INTERVAL", min=0.1, max=3600, metavar="SECONDS", help="Silence before a ping."),
]
SilenceOption = Annotated[
    float, typer.Option(envvar="SDPX_IDLE_TIMEOUT", min=0.2, max=7200, metavar="SECONDS", help="Silence before a cut.")
]
DrainOption = Annotated[
    float, typer.Option(envvar="SDPX_DRAIN_TIMEOUT", min=0, max=600, metavar="SECONDS", help="Patience when stopping.")
]
ResumeWindowOption = Annotated[
    float,
    typer.Option(
        envvar="SDPX_RESUME_WINDOW",
        min=0,
        max=3600,
        metavar="SECONDS",
        help="How long a client that lost its socket may take to come back; 0: it is gone at once.",
    ),
]


class Engine(StrEnum):
    """Implementation of the relay's WebSocket connections."""

    epoll = "epoll"
    trio_websocket = "trio-websocket"


EngineOption = Annotated[
    Engine,
    typer.Option(envvar="SDPX_ENGINE", help="WebSocket engine: epoll (Linux) or trio-websocket (any system, slower)."),
]
MetricsHostOption = Annotated[
    str | None, typer.Option(envvar="SDPX_METRICS_HOST", help="Address for --metrics-port, if not --host.")
]
MetricsPortOption = Annotated[
    int | None,
    typer.Option(envvar="SDPX_METRICS_PORT", min=0, max=65535, help="Move /metrics to a port of its own; 0: any."),
]
IceServerOption = Annotated[
    list[str] | None,
    typer.Option(
        envvar="SDPX_ICE_SERVER",
        metavar="URL",
        help="STUN or TURN server for all clients, stun:HOST:PORT or turn:USER:PASS@HOST:PORT; repeatable.",
    ),
]
