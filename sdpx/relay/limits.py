"""Every number that bounds what one client can make the relay do or hold."""

from dataclasses import dataclass

from sdpx.messages import MAX_FRAME


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds, bytes and counts.

    A well-behaved client never meets one of them; tests shrink them to reach the far side.
    """

    max_clients: int = 10_000
    max_clients_per_ip: int = 1_000
    pending: int = 2048
    rate: float = 200.0
    guess_rate: float = 1.0
    handshake_seconds: float = 5.0
    head_bytes: int = 16 * 1024
    frame_bytes: int = MAX_FRAME
    frame_fragments: int = 1024
    unfinished_bytes: int = 16 * 1024 * 1024
    outbox_frames: int = 1024
    outbox_bytes: int = 4 * 1024 * 1024
    held_bytes: int = 16 * 1024 * 1024
    write_seconds: float = 20.0
    ping_seconds: float = 20.0
    silence_seconds: float = 45.0
    close_seconds: float = 0.7
    drain_seconds: float = 5.0
    resume_window: float = 30.0
    held_clients: int = 1024
