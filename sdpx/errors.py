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
    WARNINGS = 14
    INPUT_REJECTED = 15
    TRANSFER_FAILED = 16
    TRANSFER_REFUSED = 17


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

    def __init__(self, code: str, reason: str, status: ExitStatus = ExitStatus.INTERNAL) -> None:
        super().__init__(code, reason)
        self.status = status
