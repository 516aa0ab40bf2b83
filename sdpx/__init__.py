"""sdpx: WebRTC signaling that you can rely on."""

__version__ = "0.1.0"
