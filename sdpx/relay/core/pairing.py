"""The pairing table: the clients of a relay and their pairings. All pairing rules, and nothing else.

- A client is in the table from `join` to `leave`, under an ID that no other client has meanwhile.
- Two clients are a pair or they are not: each names the other, or neither does. Only a `pair_request` of a free client for
  another free client makes a pair, and the requesting client is the initiator.
- A frame goes to the sender's present peer and to no other client (`route`). A frame that names another client is refused.
- A pairing ends by `unpair`, by either client leaving, or by the relay stopping; the other side is notified once.
- Every refused message is answered by one `error`, to its sender.

Each method decides at once and returns the effects, in order. The caller executes them without a checkpoint in between, so
there is no lock and no race: concurrent requests are as if they had come one after the other.
"""

from collections.abc import Callable, Sequence
from typing import Final

from msgspec import UNSET, Struct, UnsetType

from sdpx.errors import Refusal
from sdpx.events import Event, serve
from sdpx.ice_servers import RtcIceServer
from sdpx.protocol import messages

LOGGED_ID_LENGTH: Final = 64


class Send(Struct, frozen=True):
    """Send this message to that client."""

    client_id: str
    message: messages.ServerMessage


Effect = Send | Event  # an event is to be logged


PairPolicy = Callable[[str], bool]  # whether a client's credentials let it ask for a pairing with this ID


class PairingTable:
    """The clients of one relay."""

    def __init__(self) -> None:
        self._peers: dict[str, str | None] = {}
        self._policies: dict[str, PairPolicy] = {}

    def __contains__(self, client_id: str) -> bool:
        return client_id in self._peers

    def __len__(self) -> int:
        return len(self._peers)

    def peer_of(self, client_id: str) -> str | None:
        """Return the client's peer."""
        return self._peers[client_id]

    @property
    def pairs(self) -> int:
        """The number of pairs."""
        return sum(peer is not None for peer in self._peers.values()) // 2

    def is_visible(self, client_id: str, target_id: str) -> bool:
        """Return whether the target is connected, as far as this client may know."""
        return target_id in self._peers and self._may_ask(client_id, target_id)

    def join(
        self,
        client_id: str,
        ice_servers: Sequence[RtcIceServer] | None = None,
        policy: PairPolicy | None = None,
        resume_token: str | UnsetType = UNSET,
        resumed: bool | UnsetType = UNSET,
    ) -> list[Effect]:
        """Add a client, whose ID must be free. Without a `policy` it may ask for every client."""
        assert client_id not in self._peers
        self._peers[client_id] = None
        self.set_policy(client_id, policy)
        servers = UNSET if ice_servers is None else list(ice_servers)
        return [Send(client_id, messages.YourId(client_id, resume_token, servers, resumed))]

    def set_policy(self, client_id: str, policy: PairPolicy | None) -> None:
        """Apply this policy to the client from now on."""
        self._policies.pop(client_id, None)
        if policy is not None:
            self._policies[client_id] = policy

    def handle(self, client_id: str, message: messages.ClientMessage) -> list[Effect]:
        """Handle one message of a client that is not for its peer."""
        match message:
            case messages.PairRequest(target_id):
                return self._pair(client_id, target_id)
            case messages.Unpair():
                return self._unpair(client_id)
            case messages.Ping(t):
                return [Send(client_id, messages.Pong(t))]
            case _:
                return []

    def route(self, sender_id: str, frame: messages.Frame) -> str | None:
        """Return the client that receives a frame; None if none does: then `refuse_frame` follows."""
        peer_id = self._peers[sender_id]
        return peer_id if frame.peer_id is None or frame.peer_id == peer_id else None

    def refuse_frame(self, sender_id: str, frame: messages.Frame) -> list[Effect]:
        """Answer a frame that has no receiver."""
        kind, named_id = frame.type, None
        if self._peers[sender_id] is None:
            code, reason = "not_paired", f"You are not paired; the relay dropped this {kind}"
        else:
            assert frame.peer_id is not None
            named_id = frame.peer_id[:LOGGED_ID_LENGTH]
            code = "peer_unreachable"
            reason = f"This {kind} names a client that is not your present peer; the relay dropped it"
        refusal = Refusal(code, reason, in_reply_to=kind)
        return [Send(sender_id, messages.error_frame(refusal)), serve.RelayRefused(kind, sender_id, named_id, code)]

    def refuse(self, client_id: str, refusal: Refusal) -> list[Effect]:
        """Answer a message that was refused."""
        return [Send(client_id, messages.error_frame(refusal)), serve.MessageRefused(client_id, refusal.code)]

    def leave(self, client_id: str, reason: messages.DisconnectReason) -> list[Effect]:
        """Remove a client; its ID is free from now on. `reason` is the one that its peer receives."""
        effects = self._end_pairing(client_id, reason)
        del self._peers[client_id]
        self._policies.pop(client_id, None)
        return effects

    def shut_down(self) -> list[Effect]:
        """End every pairing because the relay stops: both sides of each are notified."""
        effects: list[Effect] = []
        for client_id, peer_id in self._peers.items():
            if peer_id is not None:
                effects.append(Send(client_id, messages.PeerDisconnected(peer_id, "shutdown")))
                if client_id < peer_id:
                    effects.append(serve.Unpaired(client_id, peer_id, "shutdown"))
        self._peers = dict.fromkeys(self._peers)
        return effects

    def _pair(self, client_id: str, target_id: str) -> list[Effect]:
        logged_id = target_id[:LOGGED_ID_LENGTH]
        requested = serve.PairRequested(client_id, logged_id)
        if refusal := self._refusal_for(client_id, target_id):
            return [
                requested,
                serve.PairRefused(client_id, logged_id, refusal.code),
                Send(client_id, messages.error_frame(refusal)),
            ]
        self._peers[client_id], self._peers[target_id] = target_id, client_id
        return [
            requested,
            serve.Paired(client_id, target_id),
            Send(client_id, messages.Paired(target_id, is_initiator=True)),
            Send(target_id, messages.Paired(client_id, is_initiator=False)),
        ]

    def _refusal_for(self, client_id: str, target_id: str) -> Refusal | None:
        """Return the first rule that forbids a pairing, in the protocol's order."""
        if target_id == client_id:
            code, reason = "self_pair", "You cannot pair with yourself"
        elif self._peers[client_id] is not None:
            code, reason = "already_paired", "You are already paired"
        elif not self._may_ask(client_id, target_id):
            code, reason = "unauthorized", "Your token does not allow pairing with this client"
        elif target_id not in self._peers:
            code, reason = "target_not_found", "Target client not found"
        elif self._peers[target_id] is not None:
            code, reason = "target_already_paired", "Target client is already paired"
        else:
            return None
        return Refusal(code, reason, in_reply_to="pair_request", target_id=target_id)

    def _may_ask(self, client_id: str, target_id: str) -> bool:
        policy = self._policies.get(client_id)
        return policy is None or policy(target_id)

    def _unpair(self, client_id: str) -> list[Effect]:
        peer_id = self._peers[client_id]
        if peer_id is None:
            reason = "You are not paired, so there is nothing to unpair"
            return self.refuse(client_id, Refusal("not_paired", reason, in_reply_to="unpair"))
        return [Send(client_id, messages.Unpaired(peer_id)), *self._end_pairing(client_id, "left")]

    def _end_pairing(self, client_id: str, reason: messages.DisconnectReason) -> list[Effect]:
        peer_id = self._peers[client_id]
        if peer_id is None:
            return []
        self._peers[client_id] = self._peers[peer_id] = None
        return [
            serve.Unpaired(client_id, peer_id, reason),
            Send(peer_id, messages.PeerDisconnected(client_id, reason)),
        ]
