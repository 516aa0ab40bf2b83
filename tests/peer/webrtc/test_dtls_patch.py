"""DTLS: the reason of a handshake that failed."""

import asyncio

from aiortc import RTCCertificate
from aiortc.rtcdtlstransport import RTCDtlsTransport, State
from aiortc.rtcicetransport import RTCIceGatherer, RTCIceTransport
from OpenSSL import SSL

from sdpx.peer.webrtc.dtls_patch import patch

UNKNOWN_CA = bytes.fromhex("15fefd00000000000000000002 0230")  # a fatal alert, in a record without encryption


def test_a_received_alert_is_the_reason_of_a_failed_handshake() -> None:
    """Such as of a peer that rejects the certificate."""
    reasons: list[str] = []

    async def shake_hands() -> RTCDtlsTransport:
        transport = RTCDtlsTransport(RTCIceTransport(RTCIceGatherer([])), [RTCCertificate.generateCertificate()])
        patch(transport, reasons.append)
        context = vars(transport)["_RTCDtlsTransport__local_certificate"]._create_ssl_context(transport._srtp_profiles)
        transport._ssl = SSL.Connection(context)
        transport._ssl.set_connect_state()

        async def receive() -> bytes:
            return UNKNOWN_CA

        async def send(data: bytes) -> None:
            pass

        vars(transport.transport).update(_recv=receive, _send=send)
        await asyncio.wait_for(transport._do_handshake(), 30)
        return transport

    transport = asyncio.run(shake_hands())
    assert transport._state is State.FAILED
    [reason] = reasons
    assert "alert unknown ca" in reason
