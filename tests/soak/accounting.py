"""The accounting of one session: frames sent, delivered and reported as undelivered. Pure.

- Each frame of a connected sender was delivered once, unaltered and in order, or reported to the sender by an `error` or by
  the end of the pairing. If the receiver is connected, too, only delivery or an `error` remain.
- The same holds for a sender that closed with a close frame: the frames before it count.
- The end of a pairing was reported to the other client once, with a reason that fits its cause.

`sent` is called before the first byte of a frame is written, `disconnecting` before a client causes its end, and `check` after
two rounds of ping and pong, when each remaining client has received all pending frames.
"""

import json
from collections import Counter
from dataclasses import dataclass, field, fields
from typing import Any, Final

NO_RECEIVER: Final = ""
MARK: Final = ',"from_peer":true}'


@dataclass
class Figures:
    """The counters of one session or of all, and a sentence for each violation."""

    sent: int = 0
    delivered: int = 0
    notified: int = 0
    ended: int = 0  # not delivered because the sender disconnected
    lost: int = 0
    duplicates: int = 0
    reordered: int = 0
    altered: int = 0  # or delivered to another client
    wrongly_notified: int = 0
    violations: list[str] = field(default_factory=list)

    def add(self, other: "Figures") -> None:
        """Add the figures of another session."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))


@dataclass
class _Frame:
    number: int
    receiver: str
    text: str
    delivered: bool = False


@dataclass
class _Entry:
    """The state of one client."""

    frames: dict[int, _Frame] = field(default_factory=dict)
    refused: int = 0
    peer: str | None = None
    left: Counter[str] = field(default_factory=Counter)
    notified_of: Counter[str] = field(default_factory=Counter)
    reasons: frozenset[str] | None = None  # that its peer may be notified of; None while it is connected
    in_order: bool = False
    highest: dict[str, int] = field(default_factory=dict)  # the highest number received, by sender

    @property
    def is_connected(self) -> bool:
        return self.reasons is None

    @property
    def undelivered(self) -> list[_Frame]:
        return [frame for frame in self.frames.values() if not frame.delivered]


class Accounting:
    """The accounting of one session, by the IDs of its clients."""

    def __init__(self, session: str) -> None:
        self._session = session
        self._entries: dict[str, _Entry] = {}
        self.figures = Figures()

    def report(self, sentence: str) -> None:
        """Record a violation."""
        self.figures.violations.append(f"Session {self._session}: {sentence}")

    def joined(self, client_id: str) -> None:
        if client_id in self._entries:
            self.report(f"{client_id} got an ID that is in use")
        self._entries[client_id] = _Entry()

    def sent(self, sender: str, receiver: str, number: int, text: str) -> None:
        """A frame is sent to this receiver; `NO_RECEIVER` if the sender is not paired."""
        self._entries[sender].frames[number] = _Frame(number, receiver, text)
        self.figures.sent += 1

    def received(self, receiver: str, text: str) -> None:
        """A relayed frame was received."""
        message: dict[str, Any] = json.loads(text)
        sender, number = str(message.get("sender")), message.get("number")
        entry = self._entries.get(sender)
        frame = entry.frames.get(number) if entry and isinstance(number, int) else None
        if frame is None or frame.receiver != receiver:
            self.figures.altered += 1
            self.report(f"{receiver} got number {number} of {sender}, which was sent to another client")
        else:
            self._arrived(sender, receiver, frame, text)

    def _arrived(self, sender: str, receiver: str, frame: _Frame, text: str) -> None:
        highest = self._entries[receiver].highest
        if frame.delivered:
            self.figures.duplicates += 1
            self.report(f"{receiver} got number {frame.number} of {sender} twice")
            return
        if text != frame.text[:-1] + MARK:
            self.figures.altered += 1
            self.report(f"{receiver} got number {frame.number} of {sender}, but not as it was sent")
        if frame.number < highest.get(sender, 0):
            self.figures.reordered += 1
            self.report(f"{receiver} got number {frame.number} of {sender} behind {highest[sender]}")
        highest[sender] = max(frame.number, highest.get(sender, 0))
        frame.delivered = True
        frame.text = ""
        self.figures.delivered += 1

    def refused(self, sender: str) -> None:
        """An `error` reported an undelivered frame."""
        self._entries[sender].refused += 1

    def paired(self, client_id: str, peer: str) -> None:
        if self._entries[client_id].peer is not None:
            self.report(f"{client_id} was paired with {peer} while it was with {self._entries[client_id].peer}")
        self._entries[client_id].peer = peer

    def unpaired(self, client_id: str, peer: str) -> None:
        """The relay confirmed `unpair`."""
        self._end_pairing(client_id, peer, "unpaired")
        self._entries[client_id].left[peer] += 1

    def peer_disconnected(self, client_id: str, peer: str, reason: str) -> None:
        """The peer ended the pairing."""
        self._end_pairing(client_id, peer, f"peer_disconnected ({reason})")
        reasons = self._entries[peer].reasons if peer in self._entries else None
        if reason == "left":
            self._entries[client_id].notified_of[peer] += 1
        elif reason not in (reasons or ()):
            self.report(f"{client_id} was notified that {peer} ended by '{reason}'; possible: {sorted(reasons or ())}")

    def _end_pairing(self, client_id: str, peer: str, how: str) -> None:
        if self._entries[client_id].peer != peer:
            self.report(f"{client_id} received {how} of {peer} while its peer was {self._entries[client_id].peer}")
        self._entries[client_id].peer = None

    def disconnecting(self, client_id: str, *reasons: str, in_order: bool = False) -> None:
        """The client causes the end of its connection; its peer may be notified of one of these reasons."""
        entry = self._entries[client_id]
        entry.reasons = (entry.reasons or frozenset()) | frozenset(reasons)
        entry.in_order = in_order

    def check(self) -> Figures:
        """Check all rules and return the figures."""
        for client_id, entry in self._entries.items():
            if entry.is_connected or entry.in_order:
                self._check_frames(client_id, entry)
            else:
                self.figures.ended += len(entry.undelivered)
            if entry.is_connected:
                self._check_pairing(client_id, entry)
        return self.figures

    def _check_frames(self, client_id: str, entry: _Entry) -> None:
        """Check the undelivered frames."""
        undelivered = entry.undelivered
        unexcused = [frame for frame in undelivered if not self._excused(client_id, frame)]
        lost = max(0, len(unexcused) - entry.refused)
        self.figures.lost += lost
        self.figures.notified += len(undelivered) - lost
        if lost:
            numbers = [frame.number for frame in unexcused]
            self.report(f"{lost} of the numbers {numbers} of {client_id} were lost, with {entry.refused} errors")
        if entry.refused > len(undelivered):
            self.figures.wrongly_notified += entry.refused - len(undelivered)
            self.report(
                f"{client_id} was notified of {entry.refused} undelivered frames, and there are {len(undelivered)}"
            )

    def _excused(self, client_id: str, frame: _Frame) -> bool:
        """Frames behind the last received one may be lost if the receiver disconnected; frames before it may not."""
        receiver = self._entries.get(frame.receiver)
        return receiver is not None and not receiver.is_connected and frame.number > receiver.highest.get(client_id, 0)

    def _check_pairing(self, client_id: str, entry: _Entry) -> None:
        if entry.peer is not None:
            peer = self._entries[entry.peer]
            if not peer.is_connected:
                self.report(f"{client_id} was not notified that {entry.peer} ended")
            elif peer.peer != client_id:
                self.report(f"{client_id} is paired with {entry.peer}, which is paired with {peer.peer}")
        for other, times in entry.notified_of.items():
            left = self._entries[other].left[client_id]
            if self._entries[other].is_connected and left != times:
                self.report(f"{other} unpaired from {client_id} {left} times, with {times} notifications")
        for other, times in entry.left.items():
            if self._entries[other].is_connected and self._entries[other].notified_of[client_id] != times:
                self.report(f"{other} was not notified each time that {client_id} unpaired")
