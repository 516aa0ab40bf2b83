"""The commands of `--stdin json`, by which a program controls a peer: one JSON object a line. Pure."""

import binascii
import json
from base64 import b64decode
from typing import Any, Final

import msgspec
from msgspec import Struct

from sdpx.errors import SdpxError
from sdpx.ids import validate_id
from sdpx.options import did_you_mean
from sdpx.peer.negotiation.confirmation import Message, byte_length
from sdpx.protocol.codec import UNREADABLE

MAX_MESSAGE: Final = 256 * 1024
MAX_COMMAND: Final = 2 * 1024 * 1024  # a message of that size, each byte spelt `\u0000`, and the rest
_FORMS: Final = {
    "send": '{"send": TEXT}',
    "send_base64": '{"send_base64": TEXT}',
    "channel": '{"send": TEXT, "channel": LABEL}',
    "pair": '{"pair": ID}',
    "unpair": '{"unpair": true}',
    "close": '{"close": true}',
    "send_file": '{"send_file": PATH}',
}


class InputRejected(SdpxError):
    """A line is not a command, and has no other effect."""


class SendFile(Struct, frozen=True):
    """Send a file or directory."""

    path: str


class Pair(Struct, frozen=True):
    """Ask the relay for a pairing with `target`."""

    target: str


class Unpair(Struct, frozen=True):
    """Leave the present peer."""


class Close(Struct, frozen=True):
    """End the program in order."""


Command = Message | SendFile | Pair | Unpair | Close  # a message is to be sent


def parse_command(line: str) -> Command:
    """Return the command in a line. Raises `InputRejected` for another line, and for a message that is too long."""
    found = _object(line)
    match found:
        case {"send": str(text), **rest} if _is_channel(rest):
            return _sized(text, rest.get("channel"))
        case {"send_base64": str(text), **rest} if _is_channel(rest):
            return _sized(_decoded(text), rest.get("channel"))
        case {"send_file": str(path), **rest} if not rest and path and "\0" not in path:
            return SendFile(path)
        case {"pair": str(target), **rest} if not rest:
            if flaw := validate_id(target[:80]):
                raise InputRejected("bad_id", flaw)
            return Pair(target)
        case {"unpair": True, **rest} if not rest:
            return Unpair()
        case {"close": True, **rest} if not rest:
            return Close()
    near = [
        form for key in found for name, form in _FORMS.items() if key[:80] == name or did_you_mean(key[:80], [name])
    ]
    forms = near or list(_FORMS.values())
    raise InputRejected("bad_command", f"A line of the input is not a command; did you mean {' or '.join(forms)}?")


def _object(line: str) -> dict[str, Any]:
    """Return the keys of an object; one with null is absent, as some serializers write keys that are not set."""
    try:
        value = msgspec.json.decode(line)  # which passes over all but the last of duplicate keys
        if not isinstance(value, dict):
            return {}
        keys = [key for key, _ in json.loads(line, object_pairs_hook=list, parse_int=str)]
    except UNREADABLE as error:
        raise InputRejected("bad_json", f"A line of the input is not JSON: {error}") from None
    if len(keys) > len(value):
        key = next(each for each in keys if keys.count(each) > 1)
        raise InputRejected(
            "duplicate_key", f"A command has the key '{key[:80]}' more than once: send one line for each"
        )
    return {key: each for key, each in value.items() if each is not None}


def _decoded(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputRejected("bad_base64", f"The value of 'send_base64' is not base64 (RFC 4648, 4): {error}") from None


def _is_channel(rest: dict[str, Any]) -> bool:
    return not rest or (list(rest) == ["channel"] and isinstance(rest["channel"], str))


def _sized(data: str | bytes, channel: str | None) -> Message:
    size = byte_length(data)
    if size > MAX_MESSAGE:
        raise InputRejected("too_long", f"A message of {size} bytes was not sent: the limit is {MAX_MESSAGE}")
    return Message(data, channel)
