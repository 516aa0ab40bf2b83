"""Whose fault it was, in the user's words, once.

SdpxError
+-- Refusal            a client's frame broke a rule of the wire: becomes an `error` frame, the connection stays
+-- Ending             why a program ended: becomes one `error` event, a sentence on stderr, an exit status
    +-- UsageError         the command line or the environment
    +-- CannotListen       the relay could not open its port
    +-- RelayUnreachable   nobody there, or not a relay
    +-- RelayLost          it was there and is gone
    +-- PairingRefused     the relay said no to `--pair`
    +-- NoConnection       paired, but the WebRTC connection did not come up
    +-- DemoFailed         a step of `sdpx demo` did not happen
    +-- BenchFailed        `sdpx bench` lost messages, or the relay refused what it was to carry
"""

from enum import IntEnum


class ExitStatus(IntEnum):
    """What a program's exit status means; the README's table is held to this one."""

    DONE = 0
    INTERNAL = 1
    USAGE = 2
    RELAY = 3
    PAIRING_REFUSED = 4
    NO_CONNECTION = 5


class SdpxError(Exception):
    """Everything that sdpx raises on purpose.

    `code` is a stable snake_case word for the wire and the log; `reason` is one sentence for a person.
    """

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Refusal(SdpxError):
    """A frame from a client was not taken (PROTOCOL: error codes).

    `in_reply_to` is the frame's `type` where it has one, `target_id` whom a `pair_request` asked for.
    """

    def __init__(self, code: str, reason: str, *, in_reply_to: str | None = None, target_id: str | None = None) -> None:
        super().__init__(code, reason)
        self.in_reply_to = in_reply_to
        self.target_id = target_id


class Ending(SdpxError):
    """Ends the program with `status`."""

    status = ExitStatus.INTERNAL


class CannotListen(Ending):
    """The relay could not open its port: taken, not allowed, or no such address here."""


class RelayUnreachable(Ending):
    """There is no relay at that URL, or it would not let this peer in."""

    status = ExitStatus.RELAY


class RelayLost(Ending):
    """The connection to the relay ended while it was still needed."""

    status = ExitStatus.RELAY


class PairingRefused(Ending):
    """The relay refused the pairing that `--pair` asked for."""

    status = ExitStatus.PAIRING_REFUSED


class NoConnection(Ending):
    """The pairing stood, and no WebRTC connection came of it."""

    status = ExitStatus.NO_CONNECTION


class DemoFailed(Ending):
    """A step of the demonstration did not happen."""


class BenchFailed(Ending):
    """The measurement's figures do not count: messages were not sound, or the relay refused some."""
