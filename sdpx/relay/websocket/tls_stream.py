"""TLS on a non-blocking socket, behind the interface of `SocketStream`.

OpenSSL works on two memory buffers: one `recv` brings many records, which are decrypted together, and frames written together
leave in one `send`. No plaintext stays behind in the TLS layer, where epoll would not see it.
"""

import socket
import ssl
from contextlib import suppress
from typing import Final

import trio

from sdpx.relay.websocket.socket_stream import READ_BYTES, SocketStream

HANDSHAKE: Final = 22  # the type of the record that opens a TLS connection (RFC 8446, 5.1)
WRITE_BYTES: Final = 64 * 1024  # that are encrypted at a time
MAX_UNSENT_BYTES: Final = 4 * WRITE_BYTES  # of ciphertext; the answers to a client that provokes them are part of it


class TlsHandshakeError(Exception):
    """The client and the relay agreed on no TLS connection."""


class TlsRequiredError(TlsHandshakeError):
    """The client sent something other than a TLS handshake. The stream is without TLS from then on."""


class TlsStream(SocketStream):
    """A server's end of a TLS connection. The handshake is done within the first calls that receive.

    Where it fails, `receive_now` and `receive_some` raise `TlsHandshakeError` whenever they are called, and `receive_or_end`
    returns the end of the stream; `handshake_error` is that exception.
    """

    def __init__(self, stream: SocketStream, context: ssl.SSLContext) -> None:
        """Take over the socket of `stream`."""
        super().__init__(stream.socket, stream.remote)
        self._context = context
        self._tls: ssl.SSLObject | None = None  # from the first bytes on
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._plaintext = b""  # received and not asked for yet
        self._ciphertext = b""  # to be sent
        self._withheld = 0  # 1 if the last encrypted byte has been reported as not taken
        self._is_open = False
        self._has_ended = False  # no more plaintext will be received
        self._is_raw = False  # nothing is decrypted or encrypted, or no longer
        self.handshake_error: TlsHandshakeError | None = None

    # ---- receiving

    def receive_now(self, max_bytes: int = READ_BYTES) -> bytes | None:
        """Return decrypted bytes, empty at the end, None if there are none yet; raises `OSError`, `TlsHandshakeError`."""
        data = self._receive()
        if data:
            data, self._plaintext = data[:max_bytes], data[max_bytes:]
        return data

    def receive_or_end(self, max_bytes: int = READ_BYTES) -> bytes | None:
        """Return all that `max_bytes` of ciphertext contain, and take an error for the end of the stream."""
        try:
            return self._receive(max_bytes)
        except (OSError, TlsHandshakeError):
            return b""

    def _receive(self, max_bytes: int = READ_BYTES) -> bytes | None:
        if self._is_raw:
            return super().receive_now()
        if self.handshake_error is not None:
            raise self._copied(self.handshake_error)
        if self._plaintext:
            data, self._plaintext = self._plaintext, b""
            return data
        if self._has_ended:
            return b""
        received = super().receive_now(max_bytes)
        if received is None:
            return None
        if received:
            self._incoming.write(received)
        else:
            self._incoming.write_eof()
        data = self._decrypt() if self._is_open or self._do_handshake(received) else b""
        if self._outgoing.pending:
            self._send_answers()
        return data or (b"" if self._has_ended else None)

    def _do_handshake(self, received: bytes) -> bool:
        """Go on with the handshake, and return whether it is complete; raises `TlsHandshakeError`."""
        if self._tls is None:
            if not received:
                self._has_ended = True
                return False
            if received[0] != HANDSHAKE:
                self.handshake_error = TlsRequiredError("the client does not speak TLS")
                raise self._copied(self.handshake_error)
            self._tls = self._context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            self._send_answers()  # the alert
            is_gone = isinstance(error, ssl.SSLEOFError)
            self.handshake_error = TlsHandshakeError(
                "the client closed the connection" if is_gone else error.reason or "protocol error"
            )
            raise self._copied(self.handshake_error) from None
        self._is_open = True
        return True

    @staticmethod
    def _copied(error: TlsHandshakeError) -> TlsHandshakeError:
        """Return the error to raise: its traceback refers to the stream, and must not be kept in it."""
        return type(error)(*error.args)

    def _decrypt(self) -> bytes:
        """Return the plaintext of all records that are complete."""
        assert self._tls is not None
        data = b""
        try:
            while part := self._tls.read(READ_BYTES):
                data = data + part if data else part
                if not self._incoming.pending:
                    return data
            self._has_ended = True  # close_notify (RFC 8446, 6.1)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:  # an end without close_notify, or a record that is not valid
            self._has_ended = True
        if data and self._has_ended:
            with suppress(OSError):
                self.socket.shutdown(socket.SHUT_RD)  # and epoll reports the end, which has been read already
        return data

    def _send_answers(self) -> None:
        """Send the messages of the TLS layer itself: of the handshake, key updates, alerts.

        These bytes fit into the socket's send buffer, unless the client provokes answers and does not read them.
        """
        self._ciphertext += self._outgoing.read()
        try:
            self._flush()
        except OSError:
            self._has_ended = True
        if len(self._ciphertext) > MAX_UNSENT_BYTES:
            self._has_ended = True

    # ---- sending

    def send_now(self, data: bytes | bytearray | memoryview) -> int:
        """Encrypt and send, and return how many bytes that were; raises `OSError`.

        As long as ciphertext is left that the socket does not take, one byte at least is reported as not taken, so that the
        caller comes again when the socket has room. The next call has to begin with the bytes that this one did not take.
        """
        if self._is_raw or self._tls is None:
            return super().send_now(data)
        if self._ciphertext and not self._flush():
            return 0
        withheld, size = self._withheld, min(len(data), WRITE_BYTES)
        plaintext = data if size == len(data) and not withheld else memoryview(data)[withheld:size]
        if plaintext:
            self._tls.write(plaintext)
            self._ciphertext = self._outgoing.read()
        self._withheld = 0 if self._flush() else 1
        return size - self._withheld

    def _flush(self) -> bool:
        """Send ciphertext, and return whether the socket took all of it."""
        self._ciphertext = self._ciphertext[super().send_now(self._ciphertext) :]
        return not self._ciphertext

    # ---- ending

    async def send_eof(self) -> None:
        """Send close_notify and no more; bytes can still be received, but are not decrypted."""
        self._end_tls()
        try:
            while self._ciphertext and not self._flush():
                await self.wait_writable()
        except OSError as error:
            raise trio.BrokenResourceError(str(error)) from error
        await super().send_eof()

    def close(self) -> None:
        """Close the socket, after close_notify if it can be sent at once."""
        if not self.is_closed:
            self._end_tls()
            if self._ciphertext:
                with suppress(OSError):
                    self._flush()
        super().close()

    def _end_tls(self) -> None:
        """Append close_notify to the ciphertext."""
        if self._is_open and not self._is_raw:
            assert self._tls is not None
            with suppress(ssl.SSLError):  # the client's close_notify is not waited for
                self._tls.unwrap()
            self._ciphertext += self._outgoing.read()
        self._is_raw = True
