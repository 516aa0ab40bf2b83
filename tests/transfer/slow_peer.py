"""`python -m tests.transfer.slow_peer KBIT ...`: `sdpx ...` with data that leaves at that rate, from a queue of 5 s."""

import asyncio
import sys
from typing import Any, Final

from sdpx.__main__ import main
from sdpx.peer.webrtc.datagram_path import DatagramPath

QUEUE_SECONDS: Final = 5.0  # longer than a peer may be silent


def slow_down(bytes_per_second: float) -> None:
    """Patch the path between SCTP and the socket."""
    send_now = DatagramPath._send_now
    free_at = 0.0  # when the path has sent all that is queued

    def send(self: DatagramPath, protocol: Any, sock: Any, records: list[bytes], address: Any) -> None:
        nonlocal free_at
        loop = asyncio.get_event_loop()
        for record in records:
            sent_at = max(free_at, loop.time()) + len(record) / bytes_per_second
            if sent_at < loop.time() + QUEUE_SECONDS:
                loop.call_at(sent_at, send_now, self, protocol, sock, [record], address)
                free_at = sent_at

    DatagramPath._send_now = send  # type: ignore[method-assign]


if __name__ == "__main__":
    slow_down(float(sys.argv.pop(1)) * 1000 / 8)
    main()
