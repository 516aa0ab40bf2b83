"""The wire (PROTOCOL, version 1): every frame as a value, in and out.

The rules that live here:
- One JSON object a text frame (RFC 8259: no NaN, no Infinity); of duplicate keys the last counts.
- What cannot be parsed is `bad_json`. What parses and is no object, has no string `type`, or lacks a key or has one of
  the wrong type is `bad_message`. A type that clients may not send is `unknown_type`. In that order.
- A relayed frame goes out as it came in. Only `from_peer` is the relay's, so the text is spliced, never re-encoded:
  numbers of any length, unknown keys, key order and spelling survive.
- The same goes for the numbers of frames (PROTOCOL: Resume): `seq` is the relay's on frames that it numbers, and a relayed
  frame to a client that asked for no numbers keeps whatever `seq` its sender wrote.
"""

import re
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from sdpx.errors import Refusal

PROTOCOL: Final = "sdpx.v1"
MAX_FRAME: Final = 64 * 1024
QUOTE: Final = ord('"')
BRACE: Final = ord("}")
MARK: Final = b',"from_peer":true}'  # instead of the brace that a relayed frame ends with

RelayedType = Literal["offer", "answer", "candidate"]
DisconnectReason = Literal["left", "closed", "timeout", "slow", "shutdown", "refused"]


class CandidateInit(Struct, frozen=True, omit_defaults=True):
    """RTCIceCandidateInit (W3C WebRTC 4.8.1.1). An empty `candidate` means the end of candidates."""

    candidate: str = ""
    sdpMid: str | None = None  # noqa: N815  the W3C's spelling is the wire's
    sdpMLineIndex: Annotated[int, Meta(ge=0, le=65535)] | None = None  # noqa: N815
    usernameFragment: str | None = None  # noqa: N815


# ---- client to server -------------------------------------------------------------------------------------------


class PairRequest(Struct, frozen=True):
    """The client asks to be paired with `target_id`, as initiator."""

    target_id: str


class PeerFrame(Struct, frozen=True, gc=False):
    """An offer, answer or candidate for the peer: `text` is the frame as it came, `size` its length in bytes.

    `corrected` is the frame with `from_peer` true, where the sender had written that key itself; `sdp` the SDP as it was
    written, of an offer or answer. All that needs decoding is decoded when the frame is read: a frame whose nesting just
    fits there might not fit deeper down the stack. `unnumbered` is the text for a peer whose frames the relay numbers, where
    the sender wrote `seq` itself: what the peer gets, without that key.
    """

    type: RelayedType
    text: str
    size: int
    peer_id: str | None
    corrected: str | None = None
    sdp: Raw | UnsetType = UNSET
    unnumbered: str | None = None


class Unpair(Struct, frozen=True):
    """The client leaves its pairing."""


class Ping(Struct, frozen=True):
    """The client wants a `pong`; `t` is any JSON value, to be echoed as it was written."""

    t: Raw | UnsetType


class Pong(Struct, frozen=True):
    """A sign of life."""


ClientMessage = PairRequest | PeerFrame | Unpair | Ping | Pong


class _Envelope(Struct, frozen=True):
    """All keys of all client frames, raw: one pass over the text checks the JSON and finds them."""

    type: Raw | UnsetType = UNSET
    target_id: Raw | UnsetType = UNSET
    peer_id: Raw | UnsetType = UNSET
    sdp: Raw | UnsetType = UNSET
    candidate: Raw | UnsetType = UNSET
    t: Raw | UnsetType = UNSET
    from_peer: Raw | UnsetType = UNSET
    seq: Raw | UnsetType = UNSET


_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_raw = msgspec.json.Decoder(Raw).decode
_decode_string = msgspec.json.Decoder(str).decode
_decode_candidate = msgspec.json.Decoder(CandidateInit | None).decode
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode
_encode = msgspec.json.Encoder().encode


# The types as nearly everybody spells them: a look-up instead of a decoding.
_SPELT: Final = {b'"offer"': "offer", b'"answer"': "answer", b'"candidate"': "candidate"}


NoValue = Annotated[int, Meta(gt=0, lt=0)]  # whatever stands there, the decoder does not take it


class FastFrame(Struct, frozen=True, gc=False):
    """What is to be seen of a frame that may be passed on as it is: its type, and whom it is for if it says so."""

    type: str
    sdp: Raw | UnsetType = UNSET
    candidate: CandidateInit | UnsetType | None = UNSET
    peer_id: str | UnsetType = UNSET
    from_peer: NoValue | UnsetType = UNSET
    seq: NoValue | UnsetType = UNSET


_decode_glance = msgspec.json.Decoder(FastFrame).decode


def try_fast_parse(data: bytes) -> FastFrame | None:
    """Look at an offer, answer or candidate that is as nearly all are: right, in ASCII, and without keys of the relay's.

    Returns None if there is more to look at: `parse` then tells what it is, or what is wrong with it. What is seen here it
    would say, too, and the frame with `MARK` for its last byte is what `mark_from_peer` makes of it.
    """
    try:  # the decoder would take what is not UTF-8, in values that it skips
        glance = _decode_glance(data) if data.isascii() and data[-1] == BRACE else None
    except (IndexError, ValueError, RecursionError):
        return None
    if glance is None:
        return None
    kind, sdp = glance.type, glance.sdp
    if kind == "offer" or kind == "answer":  # noqa: PLR1714  a tuple takes longer
        whole = sdp is not UNSET and memoryview(sdp)[0] == QUOTE
    else:
        whole = kind == "candidate" and glance.candidate is not UNSET
    return glance if whole else None


def parse(text: str) -> ClientMessage:
    """Read one text frame of a client.

    Returns the message that it holds. Raises `Refusal` with `bad_json`, `bad_message` or `unknown_type`.
    """
    envelope = _open(text)
    kind = _kind(envelope)
    match kind:
        case "offer" | "answer":
            _require_string(envelope.sdp, "sdp", kind)
            return _peer_frame(kind, envelope, text)
        case "candidate":
            _check_candidate(envelope.candidate)
            return _peer_frame(kind, envelope, text)
        case "pair_request":
            return PairRequest(_string(envelope.target_id, "target_id", kind))
        case "unpair":
            return Unpair()
        case "ping":
            return Ping(envelope.t)
        case "pong":
            return Pong()
    raise Refusal("unknown_type", "Clients may not send a message of this type", in_reply_to=kind)


def binary_refused() -> Refusal:
    """Return what a client hears that sent a binary frame."""
    return Refusal("bad_message", "Send JSON in a text frame, not a binary one")


def rate_limited(message: ClientMessage) -> Refusal:
    """Return what a client hears whose message was one too many and was not taken."""
    target = message.target_id if isinstance(message, PairRequest) else None
    return Refusal(
        "rate_limited",
        "You send too fast; slow down, and send this again",
        in_reply_to=type_of(message),
        target_id=target,
    )


def unread(client_id: str) -> Refusal:
    """Return what a client hears whose frames a former peer did not read any more."""
    return Refusal("peer_unreachable", f"'{client_id}' went before it had read all that you sent it")


def mark_from_peer(frame: PeerFrame) -> str:
    """Return the text that the peer receives: the frame as it came, with `from_peer` true and the relay's own.

    The key goes behind the others, in front of the closing brace. A frame whose sender wrote `from_peer` itself loses
    that one first, so that no reader, whichever duplicate it believes, takes a client's word for the relay's.
    """
    if frame.corrected is not None:
        return frame.corrected
    return frame.text.rstrip()[:-1] + MARK.decode()


def sdp_of(frame: PeerFrame) -> str:
    """Return the SDP that an offer or answer carries, for a log that was asked to show it."""
    return _string(frame.sdp, "sdp", frame.type)


def type_of(message: ClientMessage) -> str:
    """Return the `type` that the message came with."""
    names = {PairRequest: "pair_request", Unpair: "unpair", Ping: "ping", Pong: "pong"}
    return message.type if isinstance(message, PeerFrame) else names[type(message)]


def _open(text: str) -> _Envelope:
    try:
        return _decode_envelope(text)
    except msgspec.ValidationError:
        _refuse_unless_json(text)
        raise Refusal("bad_message", "A message is a JSON object") from None
    except msgspec.DecodeError as error:
        raise Refusal("bad_json", f"That is not JSON: {error}") from None
    except RecursionError:
        raise Refusal("bad_json", "That JSON is nested too deeply") from None
    except UnicodeEncodeError:
        raise Refusal("bad_json", "That JSON holds a lone surrogate") from None


def _refuse_unless_json(text: str) -> None:
    """Tell `[1,` (bad_json) from `[1]` (bad_message): the decoder stops at the first thing that it dislikes."""
    try:
        _decode_raw(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Refusal("bad_json", f"That is not JSON: {error}") from None


def _kind(envelope: _Envelope) -> str:
    kind = envelope.type
    if kind is UNSET or not _is_string(kind):
        raise Refusal("bad_message", "A message needs a string 'type'")
    return _SPELT.get(bytes(kind)) or _decode_string(kind)


def _is_string(raw: Raw) -> bool:
    return memoryview(raw)[0] == QUOTE  # Raw is a buffer of the value's own text


def _require_string(raw: Raw | UnsetType, key: str, kind: str) -> Raw:
    if raw is UNSET or not _is_string(raw):
        raise Refusal("bad_message", f"A message of type '{kind}' needs a string '{key}'", in_reply_to=kind)
    return raw


def _string(raw: Raw | UnsetType, key: str, kind: str) -> str:
    return _decode_string(_require_string(raw, key, kind))


def _check_candidate(raw: Raw | UnsetType) -> None:
    problem = "A message of type 'candidate' needs a 'candidate': an RTCIceCandidateInit, or null"
    if raw is UNSET:
        raise Refusal("bad_message", problem, in_reply_to="candidate")
    try:
        _decode_candidate(raw)
    except msgspec.ValidationError:
        try:
            _decode_candidate(_without_duplicates(raw))
        except (ValueError, RecursionError) as error:
            raise Refusal("bad_message", f"{problem} ({error})", in_reply_to="candidate") from None


def _without_duplicates(raw: Raw) -> bytes:
    """Return an object with only the last of each key's values: the decoder dislikes a bad one that does not count."""
    return _encode(_decode_members(raw))


def _peer_frame(kind: RelayedType, envelope: _Envelope, text: str) -> PeerFrame:
    peer_id = None if envelope.peer_id is UNSET else _string(envelope.peer_id, "peer_id", kind)
    size = len(text) if text.isascii() else len(text.encode())
    corrected = None if envelope.from_peer is UNSET else _corrected(text)
    unnumbered = None if envelope.seq is UNSET else _corrected(text, without="seq")
    return PeerFrame(kind, text, size, peer_id, corrected, envelope.sdp, unnumbered)


def _corrected(text: str, without: str | None = None) -> str:
    try:
        members = _decode_members(text)
    except RecursionError:
        raise Refusal("bad_json", "That JSON is nested too deeply") from None
    if without is not None:
        members.pop(without, None)
    members["from_peer"] = Raw(b"true")
    return _encode(members).decode()


# ---- numbers (PROTOCOL: Resume) ---------------------------------------------------------------------------------


class Ack(Struct, frozen=True):
    """A client has all frames up to `seq`."""

    seq: int


class _Numbers(Struct, frozen=True):
    type: Raw | UnsetType = UNSET
    seq: Raw | UnsetType = UNSET
    client_seq: Raw | UnsetType = UNSET


_decode_numbers = msgspec.json.Decoder(_Numbers).decode
_NUMBER: Final = re.compile(rb"0|[1-9][0-9]*")
_MEANT: Final = re.compile(r'"client_seq"\s*:\s*([1-9][0-9]*)')
_AT_THE_END: Final = re.compile(r',"seq":([1-9][0-9]*)\}\s*\Z')
_DIGITS: Final = 18  # nobody counts further than these reach
BEYOND: Final = 10**_DIGITS
UNNUMBERED: Final = ("ping", "pong")


def number_of(text: str) -> int | Ack | None:
    """Read from a numbered client's frame what it counts as, before anything else is looked at.

    Returns its `client_seq` (1 or more), or the `Ack` that it is, or None for a frame that bears no number. Numbers too long
    to be are `BEYOND`. Raises `Refusal` with `bad_json` or `bad_message`.
    """
    numbers = _open_numbers(text)
    kind = _kind_if_any(numbers.type)
    if kind in UNNUMBERED:
        return None
    key, least, found = ("seq", 0, numbers.seq) if kind == "ack" else ("client_seq", 1, numbers.client_seq)
    number = _number(found)
    if number is None or number < least:
        named = f"A message of type '{kind}'" if kind else "A message of a client that asked for seq=1"
        raise Refusal("bad_message", f"{named} needs '{key}', an integer from {least} up", in_reply_to=kind)
    return Ack(number) if kind == "ack" else number


def find_number(text: str) -> int | None:
    """Return the `client_seq` that can be seen in a frame that cannot be parsed."""
    found = _MEANT.search(text)
    return _counted(found[1]) if found else None


def seq_of(text: str) -> int | None:
    """Return the number that a relay gave a frame, for a client; None if it bears none that counts.

    The relay writes it last, so it is found also in a frame whose nesting is too deep for this side.
    """
    try:
        return _number(_open_numbers(text).seq) or None
    except Refusal:
        found = _AT_THE_END.search(text)
        return _counted(found[1]) if found else None


def with_number(text: str, key: str, number: int) -> str:
    """Return a frame with its number behind the other keys; `text` is an object that has some, and not this one."""
    return f'{text.rstrip()[:-1]},"{key}":{number}}}'


def _open_numbers(text: str) -> _Numbers:
    try:
        return _decode_numbers(text)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        _open(text)  # knows what is wrong
        raise Refusal("bad_json", "That JSON is nested too deeply") from None


def _kind_if_any(raw: Raw | UnsetType) -> str | None:
    return _decode_string(raw) if raw is not UNSET and _is_string(raw) else None


def _number(raw: Raw | UnsetType) -> int | None:
    if raw is UNSET or not (found := _NUMBER.fullmatch(raw)):
        return None
    return _counted(found[0].decode())


def _counted(digits: str) -> int:
    return int(digits) if len(digits) <= _DIGITS else BEYOND


# ---- server to client -------------------------------------------------------------------------------------------


class YourId(Struct, frozen=True, tag_field="type", tag="your_id"):
    """The first frame of every connection. On one that was resumed `client_seq` and `peer_id` say how far things are."""

    id: str
    resume_token: str | UnsetType = UNSET
    ice_servers: Any = UNSET  # a list of RTCIceServer dictionaries (W3C WebRTC, 4.2.4)
    resumed: bool | UnsetType = UNSET
    client_seq: int | UnsetType = UNSET
    peer_id: str | UnsetType | None = UNSET


class IceServers(Struct, frozen=True, tag_field="type", tag="ice_servers"):
    """The ICE servers to use from now on (RTCIceServer, W3C WebRTC 4.2.4): the earlier ones' credentials are about to end."""

    ice_servers: list[dict[str, Any]]


class Paired(Struct, frozen=True, tag_field="type", tag="paired"):
    """The client is one of a pair now; the initiator sends the offer."""

    peer_id: str
    is_initiator: bool


class PeerDisconnected(Struct, frozen=True, tag_field="type", tag="peer_disconnected"):
    """The pairing ended from the other side. An unknown `reason` of a later relay is passed on as it is."""

    peer_id: str
    reason: str


class Unpaired(Struct, frozen=True, tag_field="type", tag="unpaired"):
    """The answer to `unpair`."""

    peer_id: str


class ErrorFrame(Struct, frozen=True, tag_field="type", tag="error"):
    """A frame was refused; the connection stays open."""

    code: str
    message: str
    target_id: str | UnsetType = UNSET
    in_reply_to: str | UnsetType = UNSET


class PongReply(Struct, frozen=True, tag_field="type", tag="pong"):
    """The answer to `ping`."""

    t: Raw | UnsetType = UNSET


class ServerAck(Struct, frozen=True, tag_field="type", tag="ack"):
    """The relay took all of this client's frames up to `client_seq`."""

    client_seq: int


class ClientAck(Struct, frozen=True, tag_field="type", tag="ack"):
    """The client's word for `Ack`: it has all of the relay's frames up to `seq`."""

    seq: int


class Request(Struct, frozen=True, tag_field="type", tag="pair_request"):
    """A client asks for a pairing."""

    target_id: str


class ClientUnpairRequest(Struct, frozen=True, tag_field="type", tag="unpair"):
    """A client leaves its pairing."""


class Description(Struct, frozen=True):
    """An offer or an answer (RFC 8829), from or for the peer. `agent` says what program made it, if that says so."""

    type: Literal["offer", "answer"]
    sdp: str
    peer_id: str | UnsetType = UNSET
    agent: str | UnsetType = UNSET


class Candidate(Struct, frozen=True):
    """A trickled ICE candidate (RFC 8838), from or for the peer; null ends them."""

    candidate: CandidateInit | None
    type: Literal["candidate"] = "candidate"
    peer_id: str | UnsetType = UNSET


ServerMessage = (
    YourId
    | IceServers
    | Paired
    | PeerDisconnected
    | Unpaired
    | ErrorFrame
    | PongReply
    | ServerAck
    | Description
    | Candidate
)

_SERVER_TYPES: Final[dict[str, Any]] = {
    "your_id": YourId,
    "ice_servers": IceServers,
    "paired": Paired,
    "peer_disconnected": PeerDisconnected,
    "unpaired": Unpaired,
    "error": ErrorFrame,
    "pong": PongReply,
    "ack": ServerAck,
    "offer": Description,
    "answer": Description,
    "candidate": Candidate,
}


def encode(message: Struct) -> str:
    """Return the text frame for a message."""
    return _encode(message).decode()


def error_frame(refusal: Refusal) -> ErrorFrame:
    """Return what the sender of a refused frame hears."""
    return ErrorFrame(
        refusal.code,
        refusal.reason,
        UNSET if refusal.target_id is None else refusal.target_id,
        UNSET if refusal.in_reply_to is None else refusal.in_reply_to,
    )


def parse_server(text: str) -> ServerMessage | None:
    """Read one text frame of the relay, for a client.

    Returns None for a type that this version does not know: a later relay may send more. Raises `Refusal` for what is
    not a message at all, or lacks what its type needs.
    """
    kind = _kind(_open(text))
    if kind not in _SERVER_TYPES:
        return None
    members = _decode_members(text)  # of duplicate keys the last counts, `type` included
    try:
        message: ServerMessage = msgspec.json.decode(_encode(members), type=_SERVER_TYPES[kind])
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise Refusal("bad_message", f"A malformed '{kind}' from the relay: {error}") from None
    return message
