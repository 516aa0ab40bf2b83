"""Confirmation of messages between two sdpx peers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdpx.peer.negotiation.confirmation import OVERHEAD, WINDOW, Message, Receipt, Unconfirmed, parse_receipt


def sent(*messages: str) -> Unconfirmed:
    unconfirmed = Unconfirmed()
    for message in messages:
        unconfirmed.add(Message(message))
    return unconfirmed


def test_receipt_is_read_as_it_was_written() -> None:
    assert parse_receipt(Receipt(3, 2).encode()) == Receipt(3, 2)


@pytest.mark.parametrize(
    "data",
    ["", "x", "[]", b"\xff", '{"received":1,"written":2}', '{"received":-1,"written":-1}', '{"x":' + "[" * 100_000],
)
def test_unknown_heartbeat_has_no_receipt(data: str | bytes) -> None:
    assert parse_receipt(data) is None


def test_unknown_keys_of_a_receipt_are_ignored() -> None:
    assert parse_receipt('{"received":1,"written":1,"later":true}') == Receipt(1, 1)


def test_written_messages_are_confirmed() -> None:
    unconfirmed = sent("a", "bb", "ccc")
    assert (len(unconfirmed), unconfirmed.size) == (3, 6)
    assert unconfirmed.confirm(Receipt(3, 2))
    assert not unconfirmed.confirm(Receipt(3, 2))
    assert (len(unconfirmed), unconfirmed.size) == (1, 3)


def test_count_beyond_what_was_sent_confirms_no_later_message() -> None:
    unconfirmed = sent("a")
    assert unconfirmed.confirm(Receipt(9, 9))
    unconfirmed.add(Message("b"))
    assert not unconfirmed.confirm(Receipt(1, 1))
    assert len(unconfirmed) == 1


def test_message_that_was_not_sent_is_taken_back() -> None:
    unconfirmed = sent("a", "b")
    unconfirmed.take_back()
    assert unconfirmed.missing(Receipt()) == [Message("a")]


def test_window_counts_bytes_and_an_overhead_for_each_message() -> None:
    unconfirmed = Unconfirmed()
    while not unconfirmed.is_full:
        unconfirmed.add(Message("x" * 20))
    assert WINDOW <= len(unconfirmed) * (OVERHEAD + 20) < WINDOW + OVERHEAD + 20


@given(st.integers(0, 20), st.integers(0, 20), st.integers(0, 20))
def test_missing_messages_are_those_that_were_not_received(count: int, received: int, written: int) -> None:
    """Whatever was confirmed before."""
    received, written = min(received, count), min(written, received, count)
    messages = [str(number) for number in range(count)]
    unconfirmed = sent(*messages)
    unconfirmed.confirm(Receipt(written, written))
    assert unconfirmed.missing(Receipt(received, written)) == [Message(each) for each in messages[received:]]
