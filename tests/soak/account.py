"""The accountant of one session: what was said, what arrived, who was told. Pure.

- Every frame of a sender that is still here was delivered once, whole and in order, or an `error` told the sender of it,
  or the end of the pairing did. One whose receiver is still here, too, leaves no third way: delivered, or an `error`.
- So it is for a sender that closed in order: what it wrote in front of its close frame counts.
- A pairing that ended from the other side was told once, by a reason that fits how it ended.

`sent` is called before the first byte of a frame leaves; `ending` before a client does what will end it; `settled` once the
two phases of a barrier (a ping and its pong) have shown every client that is left all that was under way to it.
"""

import json
from collections import Counter
from dataclasses import dataclass, field, fields
from typing import Any, Final

NOBODY: Final = ""
MARK: Final = ',"from_peer":true}'


@dataclass
class Figures:
    """What was counted, in one session or in all, and a sentence for each thing that is wrong."""

    sent: int = 0
    delivered: int = 0
    told: int = 0
    ended: int = 0  # not delivered, and its sender's own connection ended
    lost: int = 0
    duplicates: int = 0
    reordered: int = 0
    altered: int = 0  # or delivered to somebody else
    wrongly_told: int = 0
    complaints: list[str] = field(default_factory=list)

    def add(self, other: "Figures") -> None:
        """Count those of another session, too."""
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
    """One client: what it sent, what it heard, and how it ended if it did."""

    frames: dict[int, _Frame] = field(default_factory=dict)
    refused: int = 0
    peer: str | None = None
    left: Counter[str] = field(default_factory=Counter)
    was_left_by: Counter[str] = field(default_factory=Counter)
    reasons: frozenset[str] | None = None  # what its peer may hear; None while it is here
    in_order: bool = False
    highest: dict[str, int] = field(default_factory=dict)  # the last number that came from each sender

    @property
    def is_here(self) -> bool:
        return self.reasons is None

    @property
    def undelivered(self) -> list[_Frame]:
        return [frame for frame in self.frames.values() if not frame.delivered]


class Account:
    """The books of one session; its clients go by the IDs that the relay gave them."""

    def __init__(self, session: str) -> None:
        self._session = session
        self._entries: dict[str, _Entry] = {}
        self.figures = Figures()

    def complain(self, sentence: str) -> None:
        """Note what is wrong."""
        self.figures.complaints.append(f"Session {self._session}: {sentence}")

    def joined(self, who: str) -> None:
        if who in self._entries:
            self.complain(f"{who} got an ID that somebody has")
        self._entries[who] = _Entry()

    # ---- frames -------------------------------------------------------------------------------------------------

    def sent(self, sender: str, receiver: str, number: int, text: str) -> None:
        """A frame leaves, for this receiver or, since nobody is paired with the sender, for nobody."""
        self._entries[sender].frames[number] = _Frame(number, receiver, text)
        self.figures.sent += 1

    def received(self, receiver: str, text: str) -> None:
        """A relayed frame came."""
        message: dict[str, Any] = json.loads(text)
        sender, number = str(message.get("sender")), message.get("number")
        entry = self._entries.get(sender)
        frame = entry.frames.get(number) if entry and isinstance(number, int) else None
        if frame is None or frame.receiver != receiver:
            self.figures.altered += 1
            self.complain(f"{receiver} got number {number} of {sender}, which was not for it")
        else:
            self._arrived(sender, receiver, frame, text)

    def _arrived(self, sender: str, receiver: str, frame: _Frame, text: str) -> None:
        highest = self._entries[receiver].highest
        if frame.delivered:
            self.figures.duplicates += 1
            self.complain(f"{receiver} got number {frame.number} of {sender} twice")
            return
        if text != frame.text[:-1] + MARK:
            self.figures.altered += 1
            self.complain(f"{receiver} got number {frame.number} of {sender}, but not as it was sent")
        if frame.number < highest.get(sender, 0):
            self.figures.reordered += 1
            self.complain(f"{receiver} got number {frame.number} of {sender} behind {highest[sender]}")
        highest[sender] = max(frame.number, highest.get(sender, 0))
        frame.delivered = True
        frame.text = ""
        self.figures.delivered += 1

    def refused(self, sender: str) -> None:
        """An `error` says that a frame for the peer went nowhere."""
        self._entries[sender].refused += 1

    # ---- pairings -----------------------------------------------------------------------------------------------

    def paired(self, who: str, peer: str) -> None:
        if self._entries[who].peer is not None:
            self.complain(f"{who} was paired with {peer} while it was with {self._entries[who].peer}")
        self._entries[who].peer = peer

    def unpaired(self, who: str, peer: str) -> None:
        """The answer to who left its pairing."""
        self._parted(who, peer, "unpaired")
        self._entries[who].left[peer] += 1

    def peer_disconnected(self, who: str, peer: str, reason: str) -> None:
        """The pairing ended from the other side."""
        self._parted(who, peer, f"peer_disconnected ({reason})")
        reasons = self._entries[peer].reasons if peer in self._entries else None
        if reason == "left":
            self._entries[who].was_left_by[peer] += 1
        elif reason not in (reasons or ()):
            self.complain(f"{who} heard that {peer} ended by '{reason}', and that is not how: {sorted(reasons or ())}")

    def _parted(self, who: str, peer: str, how: str) -> None:
        if self._entries[who].peer != peer:
            self.complain(f"{who} heard {how} of {peer} while its peer was {self._entries[who].peer}")
        self._entries[who].peer = None

    def ending(self, who: str, *reasons: str, in_order: bool = False) -> None:
        """The client does now what ends its connection; its peer is to hear one of these reasons."""
        entry = self._entries[who]
        entry.reasons = (entry.reasons or frozenset()) | frozenset(reasons)
        entry.in_order = in_order

    # ---- the end ------------------------------------------------------------------------------------------------

    def settled(self) -> Figures:
        """Close the books and say what they show."""
        for who, entry in self._entries.items():
            if entry.is_here or entry.in_order:
                self._settle_frames(who, entry)
            else:
                self.figures.ended += len(entry.undelivered)
            if entry.is_here:
                self._settle_pairing(who, entry)
        return self.figures

    def _settle_frames(self, who: str, entry: _Entry) -> None:
        """Tell what an end excuses from what only an `error` does."""
        undelivered = entry.undelivered
        owed = [frame for frame in undelivered if not self._excused(who, frame)]
        lost = max(0, len(owed) - entry.refused)
        self.figures.lost += lost
        self.figures.told += len(undelivered) - lost
        if lost:
            numbers = [frame.number for frame in owed]
            self.complain(f"{lost} of the numbers {numbers} of {who} were lost, and it heard of {entry.refused}")
        if entry.refused > len(undelivered):
            self.figures.wrongly_told += entry.refused - len(undelivered)
            self.complain(f"{who} heard of {entry.refused} frames that went nowhere, and only {len(undelivered)} did")

    def _excused(self, who: str, frame: _Frame) -> bool:
        """A receiver that ended excuses the frames behind the last one that it got, and no gap in front of that."""
        receiver = self._entries.get(frame.receiver)
        return receiver is not None and not receiver.is_here and frame.number > receiver.highest.get(who, 0)

    def _settle_pairing(self, who: str, entry: _Entry) -> None:
        if entry.peer is not None:
            peer = self._entries[entry.peer]
            if not peer.is_here:
                self.complain(f"{who} never heard that {entry.peer} ended")
            elif peer.peer != who:
                self.complain(f"{who} believes to be paired with {entry.peer}, and that one with {peer.peer}")
        for other, times in entry.was_left_by.items():
            if self._entries[other].is_here and self._entries[other].left[who] != times:
                self.complain(f"{who} was left by {other} {self._entries[other].left[who]} times and heard of {times}")
        for other, times in entry.left.items():
            if self._entries[other].is_here and self._entries[other].was_left_by[who] != times:
                self.complain(f"{other} did not hear each time that {who} left")
