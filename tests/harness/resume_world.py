"""Resume without I/O: the rules of the relay and of the client, joined by simulated connections that are lost anywhere.

A `Socket` is two queues of frames in transit: each side takes them one by one, when the test says so. When a socket is cut,
an arbitrary part of either queue is the last that arrives; each side notices the loss when it gets there, or much later. A
connection attempt that the client has given up may reach the relay late, as attempts through proxies do.
"""

import json
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final
from urllib.parse import parse_qs, urlencode

from sdpx.errors import Refusal
from sdpx.peer.signaling.resume import ResumeResult, ResumeState, SequenceCheck
from sdpx.protocol import codec, sequence
from sdpx.protocol.messages import DisconnectReason, Pong, YourId
from sdpx.protocol.messages import Frame as RelayedFrame
from sdpx.relay.core.limits import Limits
from sdpx.relay.core.pairing import Effect, PairingTable, Send
from sdpx.relay.core.replay_buffer import FrameVerdict, ReplayBuffer
from sdpx.relay.core.sessions import Eviction, SessionStore
from sdpx.relay.http.responses import HttpError
from sdpx.relay.http.upgrade import parse_resume_request

Frame = dict[str, Any]
SUPERSEDED: Final = 4001


@dataclass(eq=False, repr=False)
class Socket:
    """A connection attempt, then a connection. `up` and `down` are the frames in transit; a closed side handles no more."""

    query: str
    name: str | None
    up: deque[str] = field(default_factory=deque)
    down: deque[str] = field(default_factory=deque)
    accepted: bool = False
    refused: int | None = None
    token: str | None = None
    is_cut: bool = False
    relay_closed: int | None = None  # the code; 0 when the relay saw the loss
    client_closed: bool = False
    welcomed: bool = False

    def cut(self, up: int, down: int) -> None:
        """Lose the connection: only the first `up` and `down` frames in transit arrive."""
        self.is_cut = True
        for queue, whole in ((self.up, up), (self.down, down)):
            while len(queue) > whole:
                queue.pop()


@dataclass(eq=False)
class ResumableSession:
    """A client's session at the relay."""

    client_id: str
    stream: ReplayBuffer | None
    socket: Socket | None


class RelayEnd:
    """The relay: executes the rules of the core."""

    def __init__(self, limits: Limits) -> None:
        numbers = count(1)
        self.now = 0.0
        self.table = PairingTable()
        self.store = SessionStore(limits, lambda size: next(numbers).to_bytes(size))
        self.members: dict[str, ResumableSession] = {}
        self.void: set[str] = set()
        self.issued: dict[str, list[str]] = {}
        self._ids = (f"id{number}" for number in count(1))

    def accept(self, socket: Socket) -> None:
        """Answer a connection attempt."""
        socket.accepted = True
        wish = parse_resume_request(parse_qs(socket.query))
        assert not isinstance(wish, HttpError)
        stream = self.store.find(wish.token, wish.last) if wish.token else None
        if stream is not None:
            assert wish.token is not None
            assert wish.token not in self.void, "a token that is void gave the ID away"
            self._resume(socket, stream, wish.token, wish.last)
        elif socket.name in self.members:
            socket.refused = 409
        else:
            self._open(socket, numbered=wish.numbered)

    def _resume(self, socket: Socket, stream: ReplayBuffer, token: str, last: int | None) -> None:
        member = self.members[stream.client_id]
        if member.socket is not None:
            member.socket.relay_closed = SUPERSEDED
        back = self.store.resume(token, last)
        member.socket = socket
        self._issue(socket, stream.client_id, back.token)
        peer_id = self.table.peer_of(stream.client_id)
        first = YourId(stream.client_id, back.token, resumed=True, client_seq=back.client_seq, peer_id=peer_id)
        self._send(socket, [codec.encode(first).decode(), *(data.decode() for data in back.frames)])

    def _open(self, socket: Socket, *, numbered: bool) -> None:
        client_id = socket.name or next(self._ids)
        member = self.members[client_id] = ResumableSession(client_id, None, socket)
        effects = self.table.join(client_id)
        if numbered:
            member.stream, token = self.store.open(client_id)
            self._issue(socket, client_id, token)
            effects = [Send(client_id, YourId(client_id, token, resumed=False))]
        self.do(effects)

    def _issue(self, socket: Socket, client_id: str, token: str) -> None:
        socket.token = token
        self.issued.setdefault(client_id, []).append(token)

    def read(self, socket: Socket) -> None:
        """Handle one frame, if the socket is still the one of its session."""
        text = socket.up.popleft()
        member = next((each for each in self.members.values() if each.socket is socket), None)
        if member is None or socket.relay_closed is not None:
            return
        try:
            if member.stream is not None and not self._is_for_the_lobby(member, member.stream, text):
                return
            message = codec.parse(text.encode())
            if isinstance(message, RelayedFrame):
                self._forward(member.client_id, message)
                return
            effects = self.table.handle(member.client_id, message)
        except Refusal as refusal:
            effects = self.table.refuse(member.client_id, refusal)
        self.do(effects)

    def _is_for_the_lobby(self, member: ResumableSession, stream: ReplayBuffer, text: str) -> bool:
        assert member.socket is not None
        own = member.socket.token
        self.void.update(token for token in self.issued[member.client_id] if token != own)
        turn = self.store.check(stream, text.encode(), self.now)
        assert turn is not FrameVerdict.GAP, "a client of ours left a gap"
        return turn is FrameVerdict.ACCEPT

    def suspend(self, socket: Socket) -> None:
        """Notice that a connection is lost."""
        if socket.relay_closed is None:
            socket.relay_closed = 0
            for member in list(self.members.values()):
                if member.socket is socket:
                    self._lose(member)

    def _lose(self, member: ResumableSession) -> None:
        member.socket = None
        if member.stream is None:
            self.leave(member, "closed")
        else:
            self._let_go(self.store.suspend(member.stream, "closed", self.now))

    def leave(self, member: ResumableSession, reason: DisconnectReason) -> None:
        """End a session."""
        del self.members[member.client_id]
        if member.stream is not None:
            self.store.end(member.stream)
            self.void.update(self.issued.pop(member.client_id))
        if member.socket is not None:
            member.socket.relay_closed = 1008
        self.do(self.table.leave(member.client_id, reason))

    def _let_go(self, gone: Iterable[Eviction]) -> None:
        for stream, reason in gone:
            self.leave(self.members[stream.client_id], reason)

    def tick(self, now: float) -> None:
        """Advance the clock: send the acks and end the sessions that are due."""
        self.now = now
        for stream, ack in self.store.acks(now):
            socket = self.members[stream.client_id].socket
            assert socket is not None
            self._send(socket, [codec.encode(ack).decode()])
        self._let_go(self.store.expired(now))
        due = self.store.next_due
        assert due is None or due > now

    def do(self, effects: Iterable[Effect]) -> None:
        """Execute effects of the pairing table."""
        for effect in effects:
            if isinstance(effect, Send) and effect.client_id in self.members:
                is_numbered = not isinstance(effect.message, YourId | Pong)
                body = codec.encode(effect.message)[:-1]
                self._deliver(self.members[effect.client_id], body, codec.END, is_numbered=is_numbered)
        self._let_go(self.store.over_budget())

    def _forward(self, client_id: str, frame: RelayedFrame) -> None:
        receiver_id = self.table.route(client_id, frame)
        if receiver_id is None:
            self.do(self.table.refuse_frame(client_id, frame))
            return
        receiver, body = self.members[receiver_id], frame.body
        if receiver.stream is not None and frame.body_without_seq is not None:
            body = frame.body_without_seq
        self._deliver(receiver, body, codec.FROM_PEER, is_numbered=True)
        self._let_go(self.store.over_budget())

    def _deliver(self, member: ResumableSession, body: bytes, end: bytes, *, is_numbered: bool) -> None:
        if member.stream is not None and is_numbered:
            end = sequence.with_seq(end, member.stream.sent + 1)
            if not member.stream.append(body + end):
                self.leave(member, "slow")
                return
        if member.socket is not None:
            self._send(member.socket, [(body + end).decode()])

    @staticmethod
    def _send(socket: Socket, texts: Iterable[str]) -> None:
        if socket.relay_closed is None and not socket.is_cut:
            socket.down.extend(texts)


class App:
    """A client, plain or resumable: its connection, its rules, and the frames that it received.

    One that is `forgetful` goes by acks alone: it sends again what `your_id` said to have been taken, and says to have nothing.
    """

    def __init__(self, name: str, *, numbered: bool, forgetful: bool = False) -> None:
        self.name = name
        self.numbered = numbered
        self.forgetful = forgetful
        self.rules = ResumeState()
        self.socket: Socket | None = None
        self.refused = False
        self.client_id: str | None = None
        self.received: list[Frame] = []
        self.results: list[ResumeResult] = []
        self.undecided: list[str] = []

    def dial(self, *, asks_for_name: bool = True) -> Socket:
        """Connect, and give up an earlier connection."""
        self.refused = False
        if self.socket is not None:
            self.socket.client_closed = True
        asks = [(key, "0" if key == "last" and self.forgetful else value) for key, value in self.rules.query()]
        query = urlencode(asks) if self.numbered else ""
        self.socket = Socket(query, self.name if asks_for_name else None)
        return self.socket

    def send(self, frame: Frame | str) -> None:
        """Send a frame, or keep it until there is a connection."""
        text = frame if isinstance(frame, str) else json.dumps(frame)
        if self.numbered:
            text = self.rules.send(text)
        if self.socket is not None and self.socket.welcomed:
            self._write([text])

    def read(self, now: float) -> None:
        """Handle one frame from the socket."""
        assert self.socket is not None
        text = self.socket.down.popleft()
        frame = json.loads(text)
        if not self.socket.welcomed:
            self._take_welcome(text)
        elif not self.numbered:
            self.received.append(frame)
        elif frame["type"] == "ack":
            assert self.rules.confirm(frame["client_seq"]), "the relay acknowledges frames that were not sent"
        else:
            arrival = self.rules.receive(text, now)
            assert arrival is not SequenceCheck.GAP, "a relay of ours left a gap"
            if arrival is SequenceCheck.NEW:
                self.received.append(frame)

    def _take_welcome(self, text: str) -> None:
        assert self.socket is not None
        your_id = codec.parse_server(text)
        assert isinstance(your_id, YourId)
        self.socket.welcomed = True
        self.client_id = your_id.id
        if self.numbered:
            unconfirmed = list(self.rules._unconfirmed)
            result = self.rules.on_your_id(your_id)
            self.results.append(result)
            if result is not ResumeResult.RESUMED:
                self.undecided += unconfirmed
                return
            if not self.forgetful and self.rules.ack_due is not None:
                self._write([self.rules.ack()])
            self._write(unconfirmed if self.forgetful else self.rules._unconfirmed)

    def tick(self, now: float) -> None:
        """Send an ack, if one is due."""
        due = self.rules.ack_due
        if self.numbered and due is not None and due <= now and self.socket is not None and self.socket.welcomed:
            self._write([self.rules.ack()])

    def _write(self, texts: Iterable[str]) -> None:
        assert self.socket is not None
        if not self.socket.is_cut and not self.socket.client_closed and self.socket.relay_closed is None:
            self.socket.up.extend(texts)

    def gone(self) -> bool:
        """Return whether the socket has ended and all its frames are handled, so that the client connects again."""
        socket = self.socket
        if socket is None or socket.client_closed or socket.refused:
            return True
        ended = socket.is_cut or socket.relay_closed is not None
        return ended and not socket.down

    def of(self, *types: str) -> list[Frame]:
        """Return the received frames of some types."""
        return [frame for frame in self.received if frame["type"] in types]


class World:
    """A relay, clients, and all sockets with frames in transit."""

    def __init__(self, apps: Iterable[App], limits: Limits) -> None:
        self.relay = RelayEnd(limits)
        self.apps = list(apps)
        self.sockets: list[Socket] = []
        self.now = 0.0

    def dial(self, app: App) -> Socket:
        """Let a client connect, whatever it had before."""
        self.sockets.append(app.dial())
        return self.sockets[-1]

    def pass_time(self, seconds: float) -> None:
        """Advance the clock of the relay and of all clients."""
        self.now += seconds
        self.relay.tick(self.now)
        for app in self.apps:
            app.tick(self.now)
            if app.refused:
                self.dial(app)

    def step(self, socket: Socket, side: str) -> None:
        """Let one thing happen at one side of a socket: an attempt is answered, a frame is handled, or an end is noticed."""
        app = next((each for each in self.apps if each.socket is socket), None)
        if side == "relay":
            if not socket.accepted:
                self.relay.accept(socket)
            elif socket.up:
                self.relay.read(socket)
            elif socket.is_cut or socket.client_closed:
                self.relay.suspend(socket)
        elif app is not None and socket.down and not socket.client_closed:
            app.read(self.now)
        elif app is not None and socket.accepted and app.gone() and not socket.client_closed:
            if socket.refused is None:
                self.dial(app)
            else:
                app.refused = True  # it waits a little
        self.sockets = [each for each in self.sockets if not self._is_over(each)]

    @staticmethod
    def _is_over(socket: Socket) -> bool:
        over_here = socket.relay_closed is not None or socket.refused is not None
        return socket.accepted and over_here and socket.client_closed

    def settle(self) -> None:
        """Lose no more connections and let all frames and acks arrive."""
        for _ in range(20):
            self._arrive()
            self.pass_time(0.2)
        self._arrive()

    def _arrive(self) -> None:
        for app in self.apps:
            if app.socket is None:
                self.dial(app)
        for _ in range(300):
            before = self._state()
            for socket in list(self.sockets):
                self.step(socket, "relay")
                self.step(socket, "client")
            if self._state() == before:
                return
        raise AssertionError("frames are exchanged without end")

    def _state(self) -> list[object]:
        ends = [(id(each), len(each.up), len(each.down), each.accepted, each.relay_closed) for each in self.sockets]
        return [ends, [len(app.received) for app in self.apps]]
