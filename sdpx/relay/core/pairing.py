"""The lobby: who is here, and who is paired with whom. All pairing rules, and nothing else.

- A client is in the lobby from `join` to `leave`, under an ID that nobody else has meanwhile.
- Two clients are a pair or they are not: each names the other, or neither does. Only a pair_request of one that is free
  for another that is free makes a pair, and whoever asked is the initiator.
- A frame goes to the sender's present peer, and to nobody else. One that names somebody else is refused.
- A pairing ends by `unpair`, by either client leaving, or by the relay stopping; the other side hears of it once.
- Every refused frame is answered by one `error`, to its sender.

Each verb decides at once and returns what is to be done, in order. The caller does it without a checkpoint in between, so
there is no lock and no race: concurrent requests are as if they had come one after the other.
"""

from collections.abc import Sequence
from typing import Final, Protocol

from msgspec import UNSET, Struct, UnsetType

from sdpx.errors import Refusal
from sdpx.events import Event, serve
from sdpx.ice_servers import RtcIceServer
from sdpx.protocol import messages
from sdpx.protocol.messages import ClientMessage, DisconnectReason, PairRequest, PeerFrame, Ping, Unpair

SHOWN_ID: Final = 64


class Deliver(Struct, frozen=True):
    """Put this text into that client's outbox; if it takes it and there is an `event`, log that.

    To a client that asked for numbers it goes numbered, if it `counts`: `unnumbered` where there is one, else `text`.
    """

    client_id: str
    text: str
    event: Event | None = None
    unnumbered: str | None = None
    counts: bool = True


class Record(Struct, frozen=True):
    """Write this into the log."""

    event: Event


Effect = Deliver | Record


class PairPolicy(Protocol):
    """What a client's credentials allow."""

    def may_ask(self, target_id: str) -> bool:
        """Tell whether the client may ask to be paired with `target_id`."""


class PairingTable:
    """The clients of one relay. `log_sdp` puts the whole frame of an offer or answer into its log line."""

    def __init__(self, *, log_sdp: bool = False) -> None:
        self._peers: dict[str, str | None] = {}
        self._permits: dict[str, PairPolicy] = {}
        self._log_sdp = log_sdp

    def __contains__(self, client_id: str) -> bool:
        return client_id in self._peers

    def __len__(self) -> int:
        return len(self._peers)

    def peer_of(self, client_id: str) -> str | None:
        """Return whom the client is paired with."""
        return self._peers[client_id]

    @property
    def pairs(self) -> int:
        """How many pairs there are."""
        return sum(peer is not None for peer in self._peers.values()) // 2

    def shows(self, client_id: str, target_id: str) -> bool:
        """Tell whether the target is here, as far as this client may know."""
        return target_id in self._peers and self._may_ask(client_id, target_id)

    def join(
        self,
        client_id: str,
        ice_servers: Sequence[RtcIceServer] = (),
        permit: PairPolicy | None = None,
        resume_token: str | UnsetType = UNSET,
        resumed: bool | UnsetType = UNSET,
    ) -> list[Effect]:
        """Let a client in, told of its ICE servers, and how to come back. Without a `permit` it may ask for anybody.

        The ID must be free: raises `Refusal` (`id_taken`) if it is not.
        """
        if client_id in self._peers:
            raise Refusal("id_taken", f"The ID '{client_id}' is taken; ask for another, or for none to be given one")
        self._peers[client_id] = None
        self.renew(client_id, permit)
        your_id = messages.YourId(client_id, resume_token, list(ice_servers) or UNSET, resumed)
        return [Deliver(client_id, messages.encode(your_id), counts=False)]

    def renew(self, client_id: str, permit: PairPolicy | None) -> None:
        """Let a client that is here ask for those of this permit, from now on."""
        self._permits.pop(client_id, None)
        if permit is not None:
            self._permits[client_id] = permit

    def take(self, client_id: str, message: ClientMessage) -> list[Effect]:
        """Take one message of a client that is here."""
        match message:
            case PeerFrame():
                return self._relay(client_id, message)
            case PairRequest(target_id):
                return self._pair(client_id, target_id)
            case Unpair():
                return self._unpair(client_id)
            case Ping(t):
                return [Deliver(client_id, messages.encode(messages.PongReply(t)), counts=False)]
            case _:
                return []

    def refuse(self, client_id: str, refusal: Refusal) -> list[Effect]:
        """Answer a frame that could not be taken."""
        return [
            _send(client_id, messages.error_frame(refusal)),
            Record(serve.MessageRefused(client_id, refusal.code)),
        ]

    def leave(self, client_id: str, reason: DisconnectReason) -> list[Effect]:
        """Let a client go; its ID is free from now on. `reason` is what its peer hears."""
        effects = self._part(client_id, reason)
        del self._peers[client_id]
        self._permits.pop(client_id, None)
        return effects

    def shut_down(self) -> list[Effect]:
        """End every pairing because the relay stops: both sides of each hear it."""
        effects: list[Effect] = []
        for client_id, peer_id in self._peers.items():
            if peer_id is not None:
                effects.append(_send(client_id, messages.PeerDisconnected(peer_id, "shutdown")))
                if client_id < peer_id:
                    effects.append(Record(serve.Unpaired(client_id, peer_id, "shutdown")))
        self._peers = dict.fromkeys(self._peers)
        return effects

    def _pair(self, client_id: str, target_id: str) -> list[Effect]:
        shown = target_id[:SHOWN_ID]
        requested = Record(serve.PairRequested(client_id, shown))
        if refusal := self._why_not(client_id, target_id):
            return [
                requested,
                Record(serve.PairRefused(client_id, shown, refusal.code)),
                _send(client_id, messages.error_frame(refusal)),
            ]
        self._peers[client_id], self._peers[target_id] = target_id, client_id
        return [
            requested,
            Record(serve.Paired(client_id, target_id)),
            _send(client_id, messages.Paired(target_id, is_initiator=True)),
            _send(target_id, messages.Paired(client_id, is_initiator=False)),
        ]

    def _why_not(self, client_id: str, target_id: str) -> Refusal | None:
        """Return the first rule that stands against a pairing, in the protocol's order."""
        if target_id == client_id:
            code, reason = "self_pair", "You cannot pair with yourself"
        elif self._peers[client_id] is not None:
            code, reason = "already_paired", "You are already paired"
        elif not self._may_ask(client_id, target_id):
            code, reason = "unauthorized", "Your token does not let you ask for this client"
        elif target_id not in self._peers:
            code, reason = "target_not_found", "Target client not found"
        elif self._peers[target_id] is not None:
            code, reason = "target_already_paired", "Target client is already paired"
        else:
            return None
        return Refusal(code, reason, in_reply_to="pair_request", target_id=target_id)

    def _may_ask(self, client_id: str, target_id: str) -> bool:
        permit = self._permits.get(client_id)
        return permit is None or permit.may_ask(target_id)

    def _relay(self, client_id: str, frame: PeerFrame) -> list[Effect]:
        peer_id = self._peers[client_id]
        if peer_id is None:
            reason = f"You are not paired, so this {frame.type} went nowhere"
            return self._relay_refused(client_id, frame, None, Refusal("not_paired", reason, in_reply_to=frame.type))
        if frame.peer_id is not None and frame.peer_id != peer_id:
            reason = f"This {frame.type} is for somebody who is not your present peer, so it went nowhere"
            refusal = Refusal("peer_unreachable", reason, in_reply_to=frame.type)
            return self._relay_refused(client_id, frame, frame.peer_id[:SHOWN_ID], refusal)
        sdp = messages.sdp_of(frame) if self._log_sdp and frame.type != "candidate" else UNSET
        relayed = serve.Relayed(frame.type, client_id, peer_id, frame.size, sdp)
        return [Deliver(peer_id, messages.mark_from_peer(frame), relayed, frame.unnumbered)]

    def _relay_refused(self, client_id: str, frame: PeerFrame, peer_id: str | None, refusal: Refusal) -> list[Effect]:
        return [
            _send(client_id, messages.error_frame(refusal)),
            Record(serve.RelayRefused(frame.type, client_id, peer_id, refusal.code)),
        ]

    def _unpair(self, client_id: str) -> list[Effect]:
        peer_id = self._peers[client_id]
        if peer_id is None:
            reason = "You are not paired, so there is nothing to unpair"
            return self.refuse(client_id, Refusal("not_paired", reason, in_reply_to="unpair"))
        return [_send(client_id, messages.Unpaired(peer_id)), *self._part(client_id, "left")]

    def _part(self, client_id: str, reason: DisconnectReason) -> list[Effect]:
        peer_id = self._peers[client_id]
        if peer_id is None:
            return []
        self._peers[client_id] = self._peers[peer_id] = None
        return [
            Record(serve.Unpaired(client_id, peer_id, reason)),
            _send(peer_id, messages.PeerDisconnected(client_id, reason)),
        ]


def _send(client_id: str, message: Struct) -> Deliver:
    return Deliver(client_id, messages.encode(message))
