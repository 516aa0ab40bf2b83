"""Whose fault it was, in the user's words, once.

SdpxError
+-- Refusal            a client's frame broke a rule of the wire: becomes an `error` frame, the connection stays
+-- Ending             why a program ended: becomes one `error` event, a sentence on stderr, an exit status
    +-- UsageError         the command line or the environment
    +-- CannotListen       the relay could not open its port
    +-- RelayUnreachable   nobody there, or not a relay
    +-- RelayLost          it was there and is gone
    +-- Refused            the relay is there and did not let this peer in
    +-- PairingRefused     the relay said no to `--pair`
    +-- PairingLost        the other peer left before there was a connection
    +-- NoAnswer           paired, but the other side sent no description
    +-- NoCommonCandidates both descriptions were there, and no pair of addresses to try
    +-- IceFailed          addresses were tried, and none led to the other side
    +-- DtlsFailed         the path was there, and no secure connection over it
    +-- NoConnection       paired, and for another reason no WebRTC connection
    +-- ChannelLost        it was up, and the other side closed it or vanished
    +-- Unmet              what `--expect` waited for did not happen
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
    REFUSED = 6
    PAIRING_LOST = 7
    NO_ANSWER = 8
    NO_COMMON_CANDIDATES = 9
    ICE_FAILED = 10
    DTLS_FAILED = 11
    CHANNEL_LOST = 12
    EXPECTATION_FAILED = 13


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
    """There is no relay at that URL."""

    status = ExitStatus.RELAY


class RelayLost(Ending):
    """The connection to the relay ended while it was still needed."""

    status = ExitStatus.RELAY


class PairingRefused(Ending):
    """The relay refused the pairing that `--pair` asked for."""

    status = ExitStatus.PAIRING_REFUSED


class Refused(Ending):
    """The relay is there and answered with an HTTP refusal: the ID is taken, the token is wrong, it is full."""

    status = ExitStatus.REFUSED


class PairingLost(Ending):
    """The other peer left, or was cut, before there was a connection."""

    status = ExitStatus.PAIRING_LOST


class NoAnswer(Ending):
    """The pairing stood, and no answer, or no offer, came."""

    status = ExitStatus.NO_ANSWER


class NoCommonCandidates(Ending):
    """Both sides described themselves, and there was no pair of addresses to try."""

    status = ExitStatus.NO_COMMON_CANDIDATES


class IceFailed(Ending):
    """No pair of addresses worked (RFC 8445)."""

    status = ExitStatus.ICE_FAILED


class DtlsFailed(Ending):
    """The path was there, and the DTLS handshake over it failed (RFC 8842)."""

    status = ExitStatus.DTLS_FAILED


class NoConnection(Ending):
    """The pairing stood, and for a reason of its own no WebRTC connection came of it."""

    status = ExitStatus.NO_CONNECTION


class ChannelLost(Ending):
    """The connection was up and is gone: the other side closed it, or vanished."""

    status = ExitStatus.CHANNEL_LOST


class ExpectationFailed(Ending):
    """What `--expect` waited for did not happen within `--within`."""

    status = ExitStatus.EXPECTATION_FAILED


class DemoFailed(Ending):
    """A step of the demonstration did not happen."""


class BenchFailed(Ending):
    """The measurement's figures do not count: messages were not sound, or the relay refused some."""
