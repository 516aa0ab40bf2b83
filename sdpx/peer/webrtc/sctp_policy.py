"""How often SCTP acknowledges, and how much it sends at once: seldom and much only while nothing is lost. Pure.

A SACK for every second packet (RFC 9260, 6.2) and short bursts cost the least on lossy paths and at small buffers, and the most
CPU time on fast ones.
"""

from typing import Final

SHORT_BURST: Final = 8  # packets
LONG_BURST: Final = 32
LARGE_WINDOW: Final = 64  # packets
QUIET: Final = 1024  # packets without a loss, after which the path counts as clean


class SackPolicy:
    """When a SACK is due: packets since the last one, and since the last one that was out of order."""

    def __init__(self) -> None:
        self._unacknowledged = 0
        self._in_order = 0

    def note_packet(self) -> bool:
        """Note a packet in order; True if a SACK is due."""
        self._in_order += 1
        self._unacknowledged += 1
        return self._unacknowledged >= (2 if self._in_order < QUIET else 4 if self._in_order < 4 * QUIET else 8)

    def note_disorder(self) -> None:
        """Note a packet out of order, or one that came twice; its SACK is due at once (RFC 9260, 6.7)."""
        self._in_order = 0

    def note_sent(self) -> None:
        """Note that a SACK leaves."""
        self._unacknowledged = 0


class BurstPolicy:
    """How many packets leave at once."""

    def __init__(self) -> None:
        self._acknowledged = 0

    def note_acknowledged(self, packets: int) -> None:
        """Note packets that were acknowledged."""
        self._acknowledged += packets

    def note_loss(self) -> None:
        """Note a loss."""
        self._acknowledged = 0

    def burst(self, window: int) -> int:
        """Return the packets of a burst, for a congestion window in packets."""
        return LONG_BURST if window > LARGE_WINDOW and self._acknowledged > QUIET else SHORT_BURST
