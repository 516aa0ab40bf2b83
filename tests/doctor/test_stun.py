"""STUN and TURN messages."""

import hmac
from hashlib import sha1

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdpx.doctor import stun

TRANSACTION = bytes(range(12))


@given(
    st.sampled_from([stun.BINDING, stun.ALLOCATE | stun.SUCCESS, stun.DATA_INDICATION]),
    st.lists(st.tuples(st.integers(0, 65535), st.binary(max_size=40)), max_size=5, unique_by=lambda pair: pair[0]),
)
def test_message_is_read_as_it_was_written(kind: int, attributes: list[tuple[int, bytes]]) -> None:
    message = stun.decode(stun.encode(kind, TRANSACTION, attributes))
    assert message == stun.Message(kind, TRANSACTION, dict(attributes))


@given(st.binary(max_size=80))
def test_any_datagram_is_a_message_or_none(data: bytes) -> None:
    stun.decode(data)
    head = stun.HEADER.pack(stun.BINDING, len(data), stun.COOKIE, TRANSACTION)
    message = stun.decode(head + data)
    if message is not None:
        assert 0 <= message.error[0] < 1000
        assert (message.address(stun.XOR_MAPPED_ADDRESS) or ("", 0))[1] < 1 << 16


@pytest.mark.parametrize("address", [("192.0.2.1", 32853), ("2001:db8:1234:5678:11:2233:4455:6677", 32853)])
def test_addresses_are_masked_with_the_cookie(address: stun.Address) -> None:
    value = stun.encode_address(address, TRANSACTION)
    data = stun.encode(stun.BINDING | stun.SUCCESS, TRANSACTION, [(stun.XOR_MAPPED_ADDRESS, value)])
    message = stun.decode(data)
    assert message is not None
    assert message.address(stun.XOR_MAPPED_ADDRESS) == address


def test_masked_address_of_the_test_vectors() -> None:
    """RFC 5769, 2.2."""
    transaction = bytes.fromhex("b7e7a701bc34d686fa87dfae")
    message = stun.Message(0x101, transaction, {stun.XOR_MAPPED_ADDRESS: bytes.fromhex("0001a147e112a643")})
    assert message.address(stun.XOR_MAPPED_ADDRESS) == ("192.0.2.1", 32853)


def test_integrity_covers_the_message_before_it() -> None:
    key = stun.long_term_key("user", b"realm", "pass")
    assert key.hex() == "8493fbc53ba582fb4c044c456bdc40eb"  # RFC 8489, 9.2.2
    data = stun.encode(stun.ALLOCATE, TRANSACTION, [(stun.USERNAME, b"user")], key)
    assert data[-20:] == hmac.digest(key, data[:-24], sha1)


def test_error_code_has_its_class_and_number() -> None:
    message = stun.Message(stun.ALLOCATE | stun.ERROR, TRANSACTION, {stun.ERROR_CODE: b"\0\0\x04\x56Quota"})
    assert message.error == (486, "Quota")
    assert stun.Message(stun.ALLOCATE, TRANSACTION, {stun.ERROR_CODE: b"\0"}).error == (0, "")
