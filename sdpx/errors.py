"""The errors that sdpx raises on purpose, and the exit statuses of its programs."""

from enum import IntEnum


def describe_os_error(error: BaseException) -> str:
    """Return the system's own sentence for an error, without its number."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


class ExitStatus(IntEnum):
    """The exit statuses of all commands."""

    OK = 0
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
    """An error with a stable snake_case `code` for protocol and log, and a `reason`: one sentence for the user."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Refusal(SdpxError):
    """A frame of a client was refused.

    `in_reply_to` is the `type` of that frame, if it has one, and `target_id` the target of a `pair_request`.
    """

    def __init__(self, code: str, reason: str, *, in_reply_to: str | None = None, target_id: str | None = None) -> None:
        super().__init__(code, reason)
        self.in_reply_to = in_reply_to
        self.target_id = target_id


class Ending(SdpxError):
    """Ends the program with `status`."""

    status = ExitStatus.INTERNAL


class CannotListen(Ending):
    """The relay could not open its port: it is in use, not permitted, or the address is not local."""


class RelayUnreachable(Ending):
    """No relay answers at the URL."""

    status = ExitStatus.RELAY


class RelayLost(Ending):
    """The connection to the relay was lost while it was needed."""

    status = ExitStatus.RELAY


class Refused(Ending):
    """The relay answered with an HTTP error: the ID is in use, the token is invalid, the relay is full."""

    status = ExitStatus.REFUSED


class PairingRefused(Ending):
    """The relay refused the pairing that `--pair` requested."""

    status = ExitStatus.PAIRING_REFUSED


class PairingLost(Ending):
    """The other peer left, or was disconnected, before the connection was established."""

    status = ExitStatus.PAIRING_LOST


class NoAnswer(Ending):
    """The peers were paired, and no offer or answer arrived."""

    status = ExitStatus.NO_ANSWER


class NoCommonCandidates(Ending):
    """Both descriptions were set, and no pair of candidates could be formed."""

    status = ExitStatus.NO_COMMON_CANDIDATES


class IceFailed(Ending):
    """No pair of candidates worked (RFC 8445)."""

    status = ExitStatus.ICE_FAILED


class DtlsFailed(Ending):
    """ICE succeeded, and the DTLS handshake failed (RFC 8842)."""

    status = ExitStatus.DTLS_FAILED


class NoConnection(Ending):
    """The peers were paired, and no connection was established for another reason."""

    status = ExitStatus.NO_CONNECTION


class ChannelLost(Ending):
    """The connection was established, and the other peer closed it or stopped answering."""

    status = ExitStatus.CHANNEL_LOST


class ExpectationFailed(Ending):
    """The event of `--expect` did not happen within `--within`."""

    status = ExitStatus.EXPECTATION_FAILED


class DemoFailed(Ending):
    """A step of the demonstration failed."""


class BenchFailed(Ending):
    """The figures of the measurement are not valid: messages were lost or altered, or the relay refused requests."""
