"""SCTP packets between aiortc's SCTP transport and the UDP socket in batches, for the versions in `versions.TESTED`.

aiortc reads one datagram per turn of the loop, tries to parse it as STUN, and passes it through a queue and a task. Here a
socket is read until it is empty, and DTLS records go through OpenSSL to SCTP without a task switch. On Linux one system call
sends and receives many datagrams of equal size (UDP GSO and GRO, udp(7)). Other datagrams (STUN, SRTP, the DTLS handshake) and
relayed paths (TURN) take aiortc's way.
"""

# ruff: noqa: SLF001  this module is about private parts
import errno
import socket
import sys
from contextlib import suppress
from typing import Any, Final

from aioice.ice import StunProtocol
from aiortc.rtcdtlstransport import State
from OpenSSL import SSL

from sdpx.peer.webrtc.sctp_ext import SctpTransport

RECORD: Final = range(20, 64)  # first bytes of DTLS (RFC 9443, 2)
RECORD_HEADER: Final = 13  # bytes, with the length in the last two, of DTLS 1.2 (RFC 6347, 4.1)
DTLS_13: Final = 32  # first bytes from here on are of DTLS 1.3 (RFC 9147, 4)
MAX_RECORD: Final = 18_432  # bytes that OpenSSL writes or reads at once, at most
MAX_DATAGRAM: Final = 65_535
BATCH: Final = 64  # datagrams, about, before other tasks have their turn
RECEIVE_BUFFER: Final = 4 * 1024 * 1024  # of the socket; the kernel has a limit of its own
MAX_SEGMENTS: Final = 40  # of one GSO datagram, which has 64 KiB at most
SOL_UDP: Final = 17
UDP_SEGMENT: Final = 103
UDP_GRO: Final = 104
NO_GSO: Final = {errno.EIO, errno.EINVAL, errno.ENOPROTOOPT, errno.EOPNOTSUPP, errno.EMSGSIZE}

_lib: Any = getattr(SSL, "_lib", None)
_ffi: Any = getattr(SSL, "_ffi", None)


class DatagramPath:
    """The way of one DTLS transport, from the end of its handshake to its close."""

    def __init__(self, sctp: SctpTransport) -> None:
        self._sctp = sctp
        self._dtls: Any = sctp.transport
        self._connection: Any = self._dtls.transport._connection
        self._ssl: Any = self._dtls._ssl
        self._queue_datagram = self._connection.data_received
        self._buffer = _ffi.new("char[]", MAX_RECORD)
        self._datagram = bytearray(MAX_DATAGRAM)
        self._has_gso = sys.platform == "linux"
        self._is_batch = False
        vars(self._connection)["data_received"] = self._on_datagram
        for protocol in self._connection._protocols:
            self._read_in_batches(protocol)
        sctp.path = self

    def close(self) -> None:
        """Leave the rest to aiortc."""
        self._sctp.path = None
        vars(self._connection).pop("data_received", None)

    # ---- receiving --------------------------------------------------------------------------------------------------

    def _read_in_batches(self, protocol: StunProtocol) -> None:
        transport: Any = protocol.transport
        sock: socket.socket | None = getattr(transport, "_sock", None)
        if sock is None or not hasattr(sock, "recvmsg_into"):
            return
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        if sys.platform == "linux":
            with suppress(OSError):  # an older kernel
                sock.setsockopt(SOL_UDP, UDP_GRO, 1)
        transport._loop._add_reader(transport._sock_fd, self._on_readable, protocol, transport, sock)

    def _on_readable(self, protocol: StunProtocol, transport: Any, sock: socket.socket) -> None:
        self._is_batch = True
        view, count = memoryview(self._datagram), 0
        while count < BATCH and not transport._conn_lost:
            try:
                size, ancillary, _, address = sock.recvmsg_into([self._datagram], 64)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                protocol.error_received(error)
                break
            segment = next(
                (int.from_bytes(each[2][:4], sys.byteorder) for each in ancillary if each[1] == UDP_GRO), size
            )
            count += max(1, size // (segment or 1))
            for start in range(0, size, segment or 1):
                datagram = bytes(view[start : min(start + segment, size)])
                if datagram[0] in RECORD:
                    self._on_datagram(datagram, protocol.local_candidate.component)
                else:
                    protocol.datagram_received(datagram, address)
        self._is_batch = False
        if count and self._sctp.path is self:
            self._sctp.flush()

    def _on_datagram(self, datagram: bytes, component: int) -> None:
        dtls = self._dtls
        if datagram[0] not in RECORD or not dtls._RTCDtlsTransport__handshake_done or dtls._data_receiver is None:
            self._queue_datagram(datagram, component)
            return
        dtls._RTCDtlsTransport__rx_bytes += len(datagram)
        dtls._RTCDtlsTransport__rx_packets += 1
        if _lib.BIO_write(self._ssl._into_ssl, datagram, len(datagram)) <= 0:
            _lib.ERR_clear_error()
            return
        size = _lib.SSL_read(self._ssl._ssl, self._buffer, MAX_RECORD)
        if size <= 0:
            self._on_other_record()
            return
        self._sctp.receive(_ffi.buffer(self._buffer, size)[:])
        if _has_more(datagram):
            while (size := _lib.SSL_read(self._ssl._ssl, self._buffer, MAX_RECORD)) > 0:
                self._sctp.receive(_ffi.buffer(self._buffer, size)[:])
            _lib.ERR_clear_error()
        if not self._is_batch:
            self._sctp.flush()

    def _on_other_record(self) -> None:
        """Handle a record that holds no data: OpenSSL may have an answer to it, and an alert may have closed the connection."""
        _lib.ERR_clear_error()
        self._sctp.step(self._dtls._write_ssl())
        if _lib.SSL_get_shutdown(self._ssl._ssl) & _lib.SSL_RECEIVED_SHUTDOWN:
            self._connection._queue.put_nowait(None)  # ends the task of the transport

    # ---- sending ----------------------------------------------------------------------------------------------------

    def send(self, packets: list[bytes]) -> None:
        """Send packets; those that do not leave are lost, as any datagram may be."""
        pair = self._connection._nominated.get(1)
        if pair is None or self._dtls._state != State.CONNECTED:
            return
        records = [record for packet in packets if (record := self._encrypt(packet))]
        self._dtls._RTCDtlsTransport__tx_bytes += sum(map(len, records))
        self._dtls._RTCDtlsTransport__tx_packets += len(records)
        transport = pair.protocol.transport
        sock = getattr(transport, "_sock", None)
        if sock is None:
            for record in records:
                self._sctp.step(pair.protocol.send_data(record, pair.remote_addr))
        elif transport._conn_lost or transport.is_closing():
            return
        elif transport._buffer:
            _send_later(transport, records, pair.remote_addr)
        else:
            self._send_now(pair.protocol, sock, records, pair.remote_addr)

    def _encrypt(self, packet: bytes) -> bytes:
        if _lib.SSL_write(self._ssl._ssl, packet, len(packet)) <= 0:
            _lib.ERR_clear_error()
            return b""
        size = _lib.BIO_read(self._ssl._from_ssl, self._buffer, MAX_RECORD)
        return bytes(_ffi.buffer(self._buffer, size)) if size > 0 else b""

    def _send_now(self, protocol: StunProtocol, sock: socket.socket, records: list[bytes], address: Any) -> None:
        start = 0
        try:
            while start < len(records):
                end = _end_of_segments(records, start) if self._has_gso else start + 1
                try:
                    if end == start + 1:
                        sock.sendto(records[start], address)
                    else:
                        size = len(records[start]).to_bytes(2, sys.byteorder)
                        sock.sendmsg([b"".join(records[start:end])], [(SOL_UDP, UDP_SEGMENT, size)], 0, address)
                except OSError as error:
                    if end == start + 1 or error.errno not in NO_GSO:
                        raise
                    self._has_gso = False
                else:
                    start = end
        except (BlockingIOError, InterruptedError):
            _send_later(protocol.transport, records[start:], address)
        except OSError as error:
            protocol.error_received(error)


def _has_more(datagram: bytes) -> bool:
    """Whether a datagram has more than one record; unknown with DTLS 1.3, which may leave the length out."""
    if datagram[0] >= DTLS_13:
        return False
    return len(datagram) > RECORD_HEADER + int.from_bytes(datagram[RECORD_HEADER - 2 : RECORD_HEADER], "big")


def _end_of_segments(records: list[bytes], start: int) -> int:
    """Return where a run of records ends that one GSO datagram can hold: of equal size, the last one may be shorter."""
    size, end = len(records[start]), start + 1
    while end < len(records) and end - start < MAX_SEGMENTS:
        if len(records[end]) != size:
            return end + (len(records[end]) < size)
        end += 1
    return end


def _send_later(transport: Any, records: list[bytes], address: Any) -> None:
    """Leave records to the transport's queue: the congestion window bounds it."""
    for record in records:
        transport.sendto(record, address)


def open_path(sctp: SctpTransport) -> None:
    """Use a path of this module while DTLS is connected."""
    dtls = sctp.transport
    paths: list[DatagramPath] = []

    def on_change() -> None:
        if dtls._state is State.CONNECTED and not paths:
            paths.append(DatagramPath(sctp))
        elif dtls._state in (State.CLOSED, State.FAILED):
            while paths:
                paths.pop().close()

    dtls.on("statechange", on_change)
