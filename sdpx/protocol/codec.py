"""The codec of the signaling protocol: bytes to messages and messages to bytes.

Reading
- A message is one JSON object (RFC 8259: no NaN, no Infinity); of duplicate keys the last one counts.
- Text that is not JSON is refused with `bad_json`. JSON that is not an object, has no string `type`, or has a key that is
  missing or of the wrong type is refused with `bad_message`; a `peer_id`, which is optional, is missing if it is null. A
  type that clients may not send is refused with `unknown_type`.
  The codes are checked in this order.
- The caller has checked that the bytes are UTF-8: the decoder does not look into values that it skips.

Writing
- A relayed frame goes out as it came in. Only `from_peer` and `seq` are the relay's, and they are spliced in before the
  closing brace: numbers of any length, unknown keys, key order and spelling survive. A frame whose sender wrote one of these
  keys is the exception: its members are written again without that key, so that no reader takes the client's value for the
  relay's.
- A receiver that did not ask for sequence numbers gets the sender's `seq` as it is.
- Everything is decoded when a frame is read: a frame whose nesting just fits there might not fit deeper down the stack.
"""

import struct
from collections.abc import Callable
from typing import Annotated, Final

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from sdpx.errors import Refusal
from sdpx.protocol.messages import (
    SERVER_TYPES,
    CandidateInit,
    ClientMessage,
    Frame,
    PairRequest,
    Ping,
    Pong,
    RelayedType,
    ServerMessage,
    Unpair,
)

QUOTE: Final = ord('"')
BRACE: Final = ord("}")
FROM_PEER: Final = b',"from_peer":true}'  # the end of every relayed frame
END: Final = b"}"  # the end of every other message
NESTED_TOO_DEEPLY: Final = "The JSON is nested too deeply"
# The errors of a msgspec decoder for bytes of another program.
UNREADABLE: Final = (msgspec.DecodeError, RecursionError, UnicodeError)


class Envelope(Struct, frozen=True, gc=False):
    """All keys of all client messages, raw: one pass over the text checks the JSON and finds them."""

    type: Raw | UnsetType = UNSET
    target_id: Raw | UnsetType = UNSET
    peer_id: Raw | UnsetType = UNSET
    sdp: Raw | UnsetType = UNSET
    candidate: Raw | UnsetType = UNSET
    t: Raw | UnsetType = UNSET
    from_peer: Raw | UnsetType = UNSET
    seq: Raw | UnsetType = UNSET
    client_seq: Raw | UnsetType = UNSET


Absent = Annotated[int, Meta(gt=0, lt=0)]  # the decoder accepts no value


class _RelayedKeys(Struct, frozen=True, gc=False):
    """The keys of an offer, answer or candidate, typed: the decoder checks them in its one pass."""

    type: str
    sdp: Raw | UnsetType = UNSET
    candidate: CandidateInit | UnsetType | None = UNSET
    peer_id: str | None = None
    from_peer: Absent | UnsetType = UNSET
    seq: Absent | UnsetType = UNSET


_first_byte: Final[Callable[[Raw], tuple[int]]] = struct.Struct("B").unpack_from  # faster than a memoryview
_decode_relayed = msgspec.json.Decoder(_RelayedKeys).decode
_decode_envelope = msgspec.json.Decoder(Envelope).decode
_decode_raw = msgspec.json.Decoder(Raw).decode
_decode_string = msgspec.json.Decoder(str).decode
_decode_candidate = msgspec.json.Decoder(CandidateInit | None).decode
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode
encode = msgspec.json.Encoder().encode  # a message to the bytes of its text frame


def parse(data: bytes) -> ClientMessage:
    """Read one text frame of a client. Raises `Refusal` with `bad_json`, `bad_message` or `unknown_type`.

    Nearly all messages are offers, answers and candidates that are valid and have no key of the relay's. For them `parse_any`
    would return the same `Frame`, in twice the time.
    """
    try:
        keys = _decode_relayed(data)
    except (ValueError, RecursionError):
        return parse_any(data)
    kind, sdp = keys.type, keys.sdp
    if kind == "offer" or kind == "answer":  # noqa: PLR1714  a tuple is slower
        is_complete = sdp is not UNSET and _first_byte(sdp)[0] == QUOTE
    else:
        is_complete = kind == "candidate" and keys.candidate is not UNSET
    if not is_complete or data[-1] != BRACE:  # white space may follow
        return parse_any(data)
    return Frame(kind, data[:-1], len(data), keys.peer_id, sdp)  # type: ignore[arg-type]


def parse_any(data: bytes) -> ClientMessage:
    """Read a message as `parse` does, of any kind."""
    envelope = open_envelope(data)
    kind = _require_type(envelope)
    match kind:
        case "offer" | "answer" | "candidate":
            return _frame(kind, envelope, data)
        case "pair_request":
            return PairRequest(_string(envelope.target_id, "target_id", kind))
        case "unpair":
            return Unpair()
        case "ping":
            return Ping(envelope.t)
        case "pong":
            return Pong()
    raise Refusal("unknown_type", "Clients may not send a message of this type", in_reply_to=kind)


def open_envelope(data: bytes | str) -> Envelope:
    """Check that a text is a JSON object and find its keys. Raises `Refusal` with `bad_json` or `bad_message`."""
    try:
        return _decode_envelope(data)
    except msgspec.ValidationError:
        _require_json(data)
        raise Refusal("bad_message", "A message is a JSON object") from None
    except msgspec.DecodeError as error:
        raise Refusal("bad_json", f"The message is not JSON: {error}") from None
    except RecursionError:
        raise Refusal("bad_json", NESTED_TOO_DEEPLY) from None


def type_in(envelope: Envelope) -> str | None:
    """Return the `type` of a message, or None if it is missing or not a string."""
    raw = envelope.type
    return _decode_string(raw) if raw is not UNSET and _is_string(raw) else None


def binary_refusal() -> Refusal:
    """Return the refusal of a binary frame."""
    return Refusal("bad_message", "Send JSON in a text frame, not in a binary frame")


def sdp_of(frame: Frame) -> str | UnsetType:
    """Return the SDP of an offer or answer; UNSET for a candidate."""
    return UNSET if frame.type == "candidate" or frame.sdp is UNSET else _decode_string(frame.sdp)


def parse_server(data: bytes | str) -> ServerMessage | None:
    """Read one text frame of the relay, for a client.

    Returns None for a type that this version does not know: a later relay may send more. Raises `Refusal` for a text that is
    not a message, or that lacks a key of its type.
    """
    kind = _require_type(open_envelope(data))
    if kind not in SERVER_TYPES:
        return None
    members = _decode_members(data)  # drops earlier duplicates of a key, of `type` as well
    try:
        message: ServerMessage = msgspec.json.decode(encode(members), type=SERVER_TYPES[kind])
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise Refusal("bad_message", f"A malformed '{kind}' from the relay: {error}") from None
    return message


def _frame(kind: RelayedType, envelope: Envelope, data: bytes) -> Frame:
    if kind == "candidate":
        _check_candidate(envelope.candidate)
    else:
        _require_string(envelope.sdp, "sdp", kind)
    peer_id = None if envelope.peer_id in (UNSET, Raw(b"null")) else _string(envelope.peer_id, "peer_id", kind)
    body = data.rstrip()[:-1] if envelope.from_peer is UNSET else _body_without(data, "from_peer")
    without_seq = None if envelope.seq is UNSET else _body_without(data, "from_peer", "seq")
    return Frame(kind, body, len(data), peer_id, envelope.sdp, without_seq)


def _body_without(data: bytes, *keys: str) -> bytes:
    """Write the members of an object again, without some; returns them without the closing brace."""
    try:
        members = _decode_members(data)
    except RecursionError:
        raise Refusal("bad_json", NESTED_TOO_DEEPLY) from None
    return encode({key: value for key, value in members.items() if key not in keys})[:-1]


def _check_candidate(raw: Raw | UnsetType) -> None:
    problem = "A message of type 'candidate' needs a 'candidate': an RTCIceCandidateInit, or null"
    if raw is UNSET:
        raise Refusal("bad_message", problem, in_reply_to="candidate")
    try:
        _decode_candidate(raw)
    except msgspec.ValidationError:
        try:  # a bad value does not count if a duplicate of its key follows
            _decode_candidate(encode(_decode_members(raw)))
        except (ValueError, RecursionError) as error:
            raise Refusal("bad_message", f"{problem} ({error})", in_reply_to="candidate") from None


def _require_json(data: bytes | str) -> None:
    """Distinguish `[1,` (bad_json) from `[1]` (bad_message): the decoder reports the first problem that it meets."""
    try:
        _decode_raw(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Refusal("bad_json", f"The message is not JSON: {error}") from None


def _require_type(envelope: Envelope) -> str:
    kind = type_in(envelope)
    if kind is None:
        raise Refusal("bad_message", "A message needs a string 'type'")
    return kind


def _is_string(raw: Raw) -> bool:
    return _first_byte(raw)[0] == QUOTE  # Raw is a buffer of the value's own text


def _require_string(raw: Raw | UnsetType, key: str, kind: str) -> Raw:
    if raw is UNSET or not _is_string(raw):
        raise Refusal("bad_message", f"A message of type '{kind}' needs a string '{key}'", in_reply_to=kind)
    return raw


def _string(raw: Raw | UnsetType, key: str, kind: str) -> str:
    return _decode_string(_require_string(raw, key, kind))
