"""Limits on the resources that one client, and all clients together, can use."""

from dataclasses import dataclass

from sdpx.options import option


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds, bytes and counts; those that are no options are far beyond the needs of a well-behaved client."""

    max_clients: int = option(10_000, "Clients connected at once; 0: no limit.", "Limits", "NUMBER", 0)
    max_clients_per_ip: int = option(1_000, "Clients from one IP address; 0: no limit.", "Limits", "NUMBER", 0)
    pending: int = 2048
    rate: float = option(200.0, "Messages per second from one client; 0: no limit.", "Limits", "NUMBER", 0)
    unknown_target_rate: float = option(
        1.0, "Pairing requests for unknown IDs, per second and IP address; 0: no limit.", "Limits", "NUMBER", 0
    )
    handshake_timeout: float = option(5.0, "Time for TLS handshake and HTTP request.", "Timeouts", "SECONDS", 0.1, 600)
    head_bytes: int = 16 * 1024
    max_message_size: int = option(65_536, "Largest message accepted from a client.", "Limits", "BYTES", 1024, 1024**2)
    max_fragments: int = 1024
    max_partial_bytes: int = 16 * 1024 * 1024
    send_queue_frames: int = 1024
    send_queue_bytes: int = 4 * 1024 * 1024
    max_queued_bytes: int = 16 * 1024 * 1024
    write_timeout: float = 20.0
    ping_interval: float = option(
        20.0, "Ping a client after this long without traffic.", "Timeouts", "SECONDS", 0.1, 3600
    )
    idle_timeout: float = option(
        45.0,
        "Disconnect a client after this long without traffic, pongs included.",
        "Timeouts",
        "SECONDS",
        0.2,
        7200,
    )
    close_timeout: float = 0.7
    drain_timeout: float = option(
        5.0, "On shutdown, give clients this long to receive what is queued.", "Timeouts", "SECONDS", 0, 600
    )
    resume_window: float = option(
        30.0,
        "Time for a client to resume its session after its connection is lost; 0: none.",
        "Timeouts",
        "SECONDS",
        0,
        3600,
    )
    max_suspended_sessions: int = 1024
    max_suspended_per_address: int = 512
