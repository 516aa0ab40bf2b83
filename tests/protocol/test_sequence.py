"""Sequence numbers: where a frame carries its number, and how numbers are read."""

import pytest

from sdpx.errors import Refusal
from sdpx.protocol import codec, sequence
from sdpx.protocol.messages import ClientAck
from sdpx.protocol.sequence import BEYOND, find_client_seq, number_of, seq_of, with_client_seq, with_seq


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (b'{"type":"offer","sdp":"","client_seq":1}', 1),
        (b'{"client_seq":9,"type":"no_such_type","client_seq":2}', 2),
        (b'{"type":"unpair","client_seq":' + b"1" * 19 + b"}", BEYOND),
        (b'{"type":"ack","seq":0}', ClientAck(0)),
        (b'{"type":"ping","client_seq":7}', None),
        (b'{"type":"pong"}', None),
    ],
)
def test_number_of_a_clients_frame(text: bytes, number: int | ClientAck | None) -> None:
    """`client_seq`, or the `seq` of an ack; pings and pongs carry none."""
    assert number_of(text) == number


@pytest.mark.parametrize("value", ["0", "-1", "1.0", "1e0", '"1"', "true", "null", "[1]"])
def test_client_seq_is_a_positive_integer(value: str) -> None:
    """The refusal names the key and the type of the message."""
    with pytest.raises(Refusal, match="'client_seq'") as caught:
        number_of(f'{{"type":"offer","client_seq":{value}}}'.encode())
    assert (caught.value.code, caught.value.in_reply_to) == ("bad_message", "offer")


@pytest.mark.parametrize("text", [b'{"type":"ack"}', b'{"type":"ack","seq":-1}', b'{"type":"ack","seq":"3"}'])
def test_an_ack_needs_a_seq(text: bytes) -> None:
    """An integer of at least 0."""
    with pytest.raises(Refusal, match="'seq'"):
        number_of(text)


def test_client_seq_is_found_in_text_that_is_not_json() -> None:
    """Where a frame cannot be parsed the number may still be visible."""
    assert find_client_seq(b'{"type":"offer","client_seq" : 12,') == 12
    assert find_client_seq(b"{") is None


@pytest.mark.parametrize("end", [codec.END, codec.FROM_PEER])
def test_a_receiver_reads_the_seq_that_the_relay_added(end: bytes) -> None:
    """Behind the other keys, whatever `from_peer` says."""
    text = (b'{"type":"offer","sdp":"v"' + with_seq(end, 41)).decode()
    assert seq_of(text) == 41
    assert text.endswith(',"seq":41}')


@pytest.mark.parametrize("text", ["{}", '{"seq":0}', '{"seq":"1"}', "[1]", "{"])
def test_a_frame_without_a_number_has_no_seq(text: str) -> None:
    """0 and values of other types are not numbers of frames."""
    assert seq_of(text) is None


def test_seq_is_found_in_a_frame_that_is_nested_too_deeply() -> None:
    """The relay may have parsed what this side cannot."""
    assert seq_of('{"type":"offer","x":' + "[" * 100_000 + "]" * 100_000 + ',"seq":5}') == 5


def test_a_client_adds_its_number_behind_the_other_keys() -> None:
    """White space behind the closing brace goes."""
    assert with_client_seq('{"type":"unpair"} ', 3) == '{"type":"unpair","client_seq":3}'
    assert number_of(sequence.with_client_seq('{"type":"unpair"}', 3).encode()) == 3
