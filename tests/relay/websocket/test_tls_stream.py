"""TLS on a socket that can be read and written synchronously."""

import ssl
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdpx.relay.websocket.socket_stream import SocketStream
from sdpx.relay.websocket.tls_stream import (
    MAX_UNSENT_BYTES,
    WRITE_BYTES,
    TlsHandshakeError,
    TlsRequiredError,
    TlsStream,
)
from tests.harness.socket_pair import socket_pair, unread
from tests.harness.tls import CA, trusting_context

CERTIFICATE = CA.issue_cert("relay.test")


class TlsClient:
    """A client that does TLS on its end of a socket pair, step by step."""

    def __init__(self, stream: SocketStream, version: ssl.TLSVersion) -> None:
        context = trusting_context()
        context.maximum_version = version
        self.stream = stream
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="relay.test")

    def shake_hands(self) -> None:
        """Go on with the handshake, as far as the server has answered."""
        self.incoming.write(self.stream.receive_now() or b"")
        with suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        self.send()

    def send(self, data: bytes = b"") -> None:
        if data:
            self.tls.write(data)
        if self.outgoing.pending:
            self.stream.send_now(self.outgoing.read())

    def receive(self, max_bytes: int = 65536) -> bytes:
        """Return what can be decrypted of the next `max_bytes` of ciphertext."""
        self.incoming.write(self.stream.receive_now(max_bytes) or b"")
        received = b""
        with suppress(ssl.SSLWantReadError):
            while part := self.tls.read(65536):
                received += part
        return received


@dataclass
class Connection:
    client: TlsClient
    server: TlsStream


def connect(room: int | None = None, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> Connection:
    """Return both ends of a connection whose handshake is done."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    CERTIFICATE.configure_cert(context)
    far_end, stream = socket_pair(room)
    client, server = TlsClient(far_end, version), TlsStream(stream, context)
    for _ in range(3):
        client.shake_hands()
        assert server.receive_or_end() is None
    client.receive()
    return Connection(client, server)


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["TLS 1.2", "TLS 1.3"])
def connection(request: pytest.FixtureRequest) -> Iterator[Connection]:
    connection = connect(version=request.param)
    yield connection
    connection.server.close()
    connection.client.stream.close()


def test_all_records_that_have_arrived_are_received_together(connection: Connection) -> None:
    """None stays behind in the TLS layer, where epoll would not see it."""
    for number in range(100):
        connection.client.send(b"%d," % number)
    assert connection.server.receive_or_end() == b"".join(b"%d," % number for number in range(100))
    assert connection.server.receive_or_end() is None


def test_a_limited_receive_leaves_the_rest_for_the_next(connection: Connection) -> None:
    connection.client.send(b"one two")
    assert [connection.server.receive_now(4) for _ in range(3)] == [b"one ", b"two", None]


def test_part_of_a_record_is_nothing_yet(connection: Connection) -> None:
    connection.client.tls.write(b"x" * 1000)
    record = connection.client.outgoing.read()
    connection.client.stream.send_now(record[:-1])
    assert connection.server.receive_or_end() is None
    connection.client.stream.send_now(record[-1:])
    assert connection.server.receive_or_end() == b"x" * 1000


def test_bytes_in_front_of_close_notify_are_received_before_the_end(connection: Connection) -> None:
    """And the socket is readable again, so that the end is not missed."""
    connection.client.tls.write(b"last")
    with suppress(ssl.SSLWantReadError):
        connection.client.tls.unwrap()
    connection.client.send()
    assert connection.server.receive_or_end() == b"last"
    assert connection.server.socket.recv(1) == b""
    assert connection.server.receive_or_end() == b""


@pytest.mark.parametrize("data", [b"", b"\x17\x03\x03\x00\x20" + bytes(32), b"garbage" * 10])
def test_an_end_without_close_notify_and_an_invalid_record_are_the_end(connection: Connection, data: bytes) -> None:
    connection.client.stream.send_now(data) if data else connection.client.stream.close()
    assert connection.server.receive_or_end() == b""
    assert connection.server.receive_or_end() == b""


@given(
    st.lists(st.integers(1, 200_000), min_size=1, max_size=4),
    st.sampled_from([5000, 20_000, 1 << 20]),
    st.sampled_from([1000, 65_536]),
)
def test_what_is_sent_arrives_once_and_in_order_with_any_send_buffer(
    sizes: list[int], room: int, at_a_time: int
) -> None:
    """As long as each call begins with the bytes that the last one did not take."""
    connection = connect(room)
    left = b"".join(bytes([number]) * size for number, size in enumerate(sizes))
    received, sent = bytearray(), left
    while left:
        left = left[connection.server.send_now(left) :]
        received += connection.client.receive(at_a_time)
    while unread(connection.client.stream.socket):
        received += connection.client.receive()
    assert received == sent
    connection.server.close()
    connection.client.stream.close()


def test_a_byte_is_not_taken_as_long_as_ciphertext_is_left() -> None:
    """So that the caller comes again when the socket has room, though everything has been encrypted."""
    connection = connect(5000)
    data = b"x" * 60_000
    taken = connection.server.send_now(data)
    assert taken == len(data) - 1
    assert connection.server.send_now(data[taken:]) == 0
    received = b""
    while taken < len(data):
        received += connection.client.receive()
        taken += connection.server.send_now(data[taken:])
    assert received + connection.client.receive() == data
    connection.server.close()
    connection.client.stream.close()


def test_a_client_that_does_not_begin_a_handshake_is_answered_without_tls() -> None:
    far_end, stream = socket_pair()
    server = TlsStream(stream, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    far_end.send_now(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(TlsRequiredError):
        server.receive_now()
    assert server.receive_or_end() == b""
    server.send_now(b"HTTP/1.1 400 ")
    assert far_end.receive_now() == b"HTTP/1.1 400 "
    server.close()
    far_end.close()


def test_a_failed_handshake_stays_failed_and_the_client_gets_an_alert() -> None:
    far_end, stream = socket_pair()
    server = TlsStream(stream, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    far_end.send_now(b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00")
    for _ in range(2):
        with pytest.raises(TlsHandshakeError):
            server.receive_now()
    assert isinstance(server.handshake_error, TlsHandshakeError)
    alert = far_end.receive_now()
    assert alert is not None
    assert alert[0] == 21
    server.close()
    far_end.close()


async def test_the_end_of_sending_is_close_notify_and_then_the_sockets(connection: Connection) -> None:
    await connection.server.send_all(b"last")
    await connection.server.send_eof()
    assert connection.client.receive() == b"last"
    assert connection.client.stream.receive_now() == b""
    connection.client.send(b"still sent")
    assert connection.server.receive_now() not in (b"", None)  # not decrypted, but read


def test_unread_answers_of_the_tls_layer_are_bounded() -> None:
    """As a client could provoke by key updates (RFC 8446, 4.6.3): the connection ends."""
    connection = connect(5000)
    rounds = 0
    while connection.server.receive_or_end() is None:
        connection.server._outgoing.write(bytes(WRITE_BYTES))
        connection.server._send_answers()
        rounds += 1
    assert rounds <= MAX_UNSENT_BYTES // WRITE_BYTES + 1
    connection.server.close()
    connection.client.stream.close()
