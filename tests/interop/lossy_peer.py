"""`python -m tests.interop.lossy_peer PERCENT SEED ...`: `sdpx ...` with data that is lost, comes twice and comes late.

Each of these happens to so many percent, in both directions.
"""

import asyncio
import random
import sys
from typing import Any

from sdpx.__main__ import main
from sdpx.peer.webrtc.datagram_path import DatagramPath

LATE = 0.02  # seconds, at most


def spoil(share: float, seed: int) -> None:
    """Patch the path between SCTP and the socket."""
    draw = random.Random(seed).random
    on_datagram, send_now = DatagramPath._on_datagram, DatagramPath._send_now

    def arrivals() -> list[float]:
        if draw() < share:
            return []
        return [LATE * draw() if draw() < share else 0.0 for _ in range(1 + (draw() < share))]

    def receive(self: DatagramPath, datagram: bytes, component: int) -> None:
        for late in arrivals():
            if late:
                asyncio.get_event_loop().call_later(late, on_datagram, self, datagram, component)
            else:
                on_datagram(self, datagram, component)

    def send(self: DatagramPath, protocol: Any, sock: Any, records: list[bytes], address: Any) -> None:
        for record in records:
            for late in arrivals():
                if late:
                    asyncio.get_event_loop().call_later(late, send_now, self, protocol, sock, [record], address)
                else:
                    send_now(self, protocol, sock, [record], address)

    DatagramPath._on_datagram = receive  # type: ignore[method-assign]
    DatagramPath._send_now = send  # type: ignore[method-assign]


if __name__ == "__main__":
    percent, seed = float(sys.argv.pop(1)), int(sys.argv.pop(1))
    spoil(percent / 100, seed)
    main()
