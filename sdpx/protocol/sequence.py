"""Sequence numbers (protocol: Resume): `seq` on the relay's frames, `client_seq` on the client's, and `ack` for both.

- A frame carries its number as the last key, spliced in before the closing brace.
- `ping` and `pong` carry no number. An `ack` carries the number of the other direction.
- A number is an integer without sign, fraction and exponent. A number of more digits than any session reaches is read as
  `BEYOND`.
"""

import re
from typing import Final

from msgspec import UNSET, Raw, UnsetType

from sdpx.errors import Refusal
from sdpx.protocol.codec import open_envelope, type_in
from sdpx.protocol.messages import ClientAck

_DIGITS: Final = 18
BEYOND: Final = 10**_DIGITS
UNNUMBERED: Final = ("ping", "pong")
_NUMBER: Final = re.compile(rb"0|[1-9][0-9]*")
_CLIENT_SEQ: Final = re.compile(rb'"client_seq"\s*:\s*([1-9][0-9]*)')
_TRAILING_SEQ: Final = re.compile(r',"seq":([1-9][0-9]*)\}\s*\Z')


def number_of(data: bytes) -> int | ClientAck | None:
    """Read the number of a client's frame before anything else in the frame is checked.

    Returns the `client_seq` (1 or more), the `ClientAck` that the frame is, or None for a frame without a number. Raises
    `Refusal` with `bad_json` or `bad_message`.
    """
    envelope = open_envelope(data)
    kind = type_in(envelope)
    if kind in UNNUMBERED:
        return None
    key, least, found = ("seq", 0, envelope.seq) if kind == "ack" else ("client_seq", 1, envelope.client_seq)
    number = _number(found)
    if number is None or number < least:
        subject = f"A message of type '{kind}'" if kind else "A message of a client that asked for seq=1"
        raise Refusal("bad_message", f"{subject} needs '{key}', an integer of at least {least}", in_reply_to=kind)
    return ClientAck(number) if kind == "ack" else number


def find_client_seq(data: bytes) -> int | None:
    """Return the `client_seq` that is visible in a frame that cannot be parsed."""
    found = _CLIENT_SEQ.search(data)
    return _int(found[1]) if found else None


def seq_of(text: str) -> int | None:
    """Return the `seq` of a relay's frame, for a client; None if it has none, or one that is not a positive integer.

    The relay writes `seq` last, so it is found also in a frame that is nested too deeply to be parsed here.
    """
    try:
        return _number(open_envelope(text).seq) or None
    except Refusal:
        found = _TRAILING_SEQ.search(text)
        return _int(found[1]) if found else None


def with_seq(end: bytes, seq: int) -> bytes:
    """Return the end of a frame, which is a closing brace or `FROM_PEER`, with the frame's `seq`."""
    return b'%b,"seq":%d}' % (end[:-1], seq)


def with_client_seq(text: str, client_seq: int) -> str:
    """Return a client's frame with its `client_seq`; `text` is an object that has other keys, and not this one."""
    return f'{text.rstrip()[:-1]},"client_seq":{client_seq}}}'


def _number(raw: Raw | UnsetType) -> int | None:
    found = None if raw is UNSET else _NUMBER.fullmatch(raw)
    return _int(found[0]) if found else None


def _int(digits: bytes | str) -> int:
    return int(digits) if len(digits) <= _DIGITS else BEYOND
