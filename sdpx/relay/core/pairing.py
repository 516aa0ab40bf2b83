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
# Why a pairing is refused, in the protocol's order.
REASONS: Final = {
    "self_pair": "You cannot pair with yourself",
    "already_paired": "You are already paired",
    "unauthorized": "Your token does not allow pairing with this client",
    "engine_unavailable": "The relay cannot reach its cluster; try again soon",
    "target_not_found": "Target client not found",
    "target_already_paired": "Target client is already paired",
}


class Send(Struct, frozen=True):
    """Send this message to that client."""

    client_id: str
    message: messages.ServerMessage


Effect = Send | Event  # an event is to be logged


PairPolicy = Callable[[str], bool]  # whether a client's credentials let it ask for a pairing with this ID


class PairingTable:
    """The clients of one relay. A table that is not `is_complete` is that of one node of a cluster: peers may be elsewhere."""

    def __init__(self, *, is_complete: bool = True) -> None:
        self._is_complete = is_complete
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
        return sum(peer is not None and (peer not in self._peers or each < peer) for each, peer in self._peers.items())

    def is_visible(self, client_id: str, target_id: str) -> bool:
        """Return whether the target is connected, as far as this client may know."""
        return (target_id in self._peers or not self._is_complete) and self._may_ask(client_id, target_id)

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

    def end_by_peer(self, client_id: str, reason: messages.DisconnectReason) -> list[Effect]:
        """End the pairing of a client with a client of another node, which has left it."""
        peer_id, self._peers[client_id] = self._peers[client_id], None
        return [] if peer_id is None else [Send(client_id, messages.PeerDisconnected(peer_id, reason))]

    def shut_down_one(self, client_id: str) -> list[Effect]:
        """End a client's pairing because the relay stops: both sides are notified."""
        peer_id = self._peers[client_id]
        notice: list[Effect] = (
            [] if peer_id is None else [Send(client_id, messages.PeerDisconnected(peer_id, "shutdown"))]
        )
        return notice + self._end_pairing(client_id, "shutdown")

    def move_in(self, client_id: str, peer_id: str | None) -> None:
        """Add a client whose session comes from another node, with its peer."""
        self._peers[client_id] = peer_id

    def move_out(self, client_id: str) -> None:
        """Remove a client whose session goes to another node; its pairing goes on."""
        del self._peers[client_id]
        self._policies.pop(client_id, None)

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
        requested = serve.PairRequested(client_id, target_id[:LOGGED_ID_LENGTH])
        if code := self.own_refusal(client_id, target_id) or self._target_refusal(target_id):
            return [requested, *self.refuse_pair(client_id, target_id, code)]
        paired = self.set_peer(client_id, target_id, is_initiator=True)
        return [requested, *paired, *self.set_peer(target_id, client_id, is_initiator=False)]

    def own_refusal(self, client_id: str, target_id: str) -> str | None:
        """Return the code of the first rule that forbids a client to ask for a pairing, whatever the target."""
        if target_id == client_id:
            return "self_pair"
        if self._peers[client_id] is not None:
            return "already_paired"
        return None if self._may_ask(client_id, target_id) else "unauthorized"

    def _target_refusal(self, target_id: str) -> str | None:
        if target_id not in self._peers:
            return "target_not_found"
        return None if self._peers[target_id] is None else "target_already_paired"

    def refuse_pair(self, client_id: str, target_id: str, code: str) -> list[Effect]:
        """Answer a `pair_request` that was refused."""
        refusal = Refusal(code, REASONS[code], in_reply_to="pair_request", target_id=target_id)
        logged = serve.PairRefused(client_id, target_id[:LOGGED_ID_LENGTH], code)
        return [logged, Send(client_id, messages.error_frame(refusal))]

    def set_peer(self, client_id: str, peer_id: str, *, is_initiator: bool) -> list[Effect]:
        """Give a client its peer, which may be a client of another node."""
        self._peers[client_id] = peer_id
        paired = Send(client_id, messages.Paired(peer_id, is_initiator))
        return [serve.Paired(client_id, peer_id), paired] if is_initiator else [paired]

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
        self._peers[client_id] = None
        if self._peers.get(peer_id) == client_id:
            self._peers[peer_id] = None
        return [
            serve.Unpaired(client_id, peer_id, reason),
            Send(peer_id, messages.PeerDisconnected(client_id, reason)),
        ]
