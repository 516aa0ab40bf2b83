"""Every number that bounds what one client can make the relay do or hold."""

from dataclasses import dataclass

from sdpx.protocol.messages import MAX_FRAME


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds, bytes and counts.

    A well-behaved client never meets one of them; tests shrink them to reach the far side.
    """

    max_clients: int = 10_000
    max_clients_per_ip: int = 1_000
    pending: int = 2048
    rate: float = 200.0
    unknown_target_rate: float = 1.0
    handshake_timeout: float = 5.0
    head_bytes: int = 16 * 1024
    max_message_size: int = MAX_FRAME
    max_fragments: int = 1024
    max_partial_bytes: int = 16 * 1024 * 1024
    send_queue_frames: int = 1024
    send_queue_bytes: int = 4 * 1024 * 1024
    max_queued_bytes: int = 16 * 1024 * 1024
    write_timeout: float = 20.0
    ping_interval: float = 20.0
    idle_timeout: float = 45.0
    close_timeout: float = 0.7
    drain_timeout: float = 5.0
    resume_window: float = 30.0
    held_clients: int = 1024
