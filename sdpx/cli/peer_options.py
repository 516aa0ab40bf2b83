"""The options of `sdpx peer` that need more than a line, as Typer has them."""

from enum import StrEnum
from typing import Annotated

import typer


class Expectation(StrEnum):
    """What `--expect` can wait for."""

    exchange = "exchange"
    connected = "connected"
    channel = "channel"
    message = "message"


class StdinForm(StrEnum):
    """What standard input is made of."""

    lines = "lines"
    json = "json"


class IceTransport(StrEnum):
    """What paths ICE may use (RTCIceTransportPolicy, W3C WebRTC 4.2.1)."""

    all = "all"
    relay = "relay"


TimeoutOption = Annotated[
    float,
    typer.Option(
        envvar="SDPX_TIMEOUT",
        min=0.1,
        max=86400,
        metavar="SECONDS",
        help="How long a connection may take from the pairing.",
    ),
]
OnceOption = Annotated[
    bool,
    typer.Option(
        "--once", envvar="SDPX_ONCE", help="Leave when the input has ended and is sent, or the channel closes."
    ),
]
WaitOption = Annotated[
    float,
    typer.Option(
        envvar="SDPX_WAIT",
        min=0,
        max=86400,
        metavar="SECONDS",
        help="How long the peer of --pair may not be there yet.",
    ),
]
ExpectOption = Annotated[
    Expectation | None,
    typer.Option(envvar="SDPX_EXPECT", help="Leave with 0 as soon as this is so, and with another status if it fails."),
]
WithinOption = Annotated[
    float | None,
    typer.Option(
        envvar="SDPX_WITHIN", min=0.1, max=86400, metavar="SECONDS", help="How long --expect waits, from the start."
    ),
]
RetriesOption = Annotated[
    int,
    typer.Option(
        envvar="SDPX_RETRIES", min=0, max=1_000_000, help="How often a failed or vanished connection is built again."
    ),
]
ReconnectOption = Annotated[bool, typer.Option(envvar="SDPX_RECONNECT", help="Dial a relay that was lost again.")]
IceTransportOption = Annotated[
    IceTransport,
    typer.Option(envvar="SDPX_ICE_TRANSPORT", help="Paths to use: all, or relay, those through a TURN server only."),
]
StdinOption = Annotated[
    StdinForm, typer.Option(envvar="SDPX_STDIN", help="Lines of text, or a JSON object with a command on each line.")
]
