"""The events of `sdpx serve`."""

import re
from typing import ClassVar, Final

from msgspec import UNSET, UnsetType

from sdpx.events import Event, Level

PLAIN: Final = re.compile(r"[ !#-\[\]-~]*")  # what JSON writes as it is


class ServerListening(Event, frozen=True):
    """One for each address that the relay listens on."""

    sentence: ClassVar[str] = "Server listening on {e.url}"
    url: str
    host: str
    port: int
    tls: bool
    pid: int


class MetricsListening(Event, frozen=True):
    """The numbers have a port of their own; one for each address of it."""

    sentence: ClassVar[str] = "Metrics at {e.url}"
    url: str
    host: str
    port: int


class ClientConnected(Event, frozen=True):
    """A client has its ID; its WebSocket opens."""

    sentence: ClassVar[str] = "Client {e.client_id} connected from {e.remote}"
    client_id: str
    remote: str

    def render(self) -> str:
        """Spell the line's end out: no ID and no address needs an escape."""
        return (
            f'"Client {self.client_id} connected from {self.remote}",'
            f'"client_id":"{self.client_id}","remote":"{self.remote}"'
        )


class ClientDisconnected(Event, frozen=True):
    """A client is gone; its ID is free."""

    sentence: ClassVar[str] = "Client {e.client_id} disconnected"
    client_id: str
    code: int
    reason: str
    ms: float

    def render(self) -> str | None:
        """Spell the line's end out, where the reason needs no escape."""
        if not PLAIN.fullmatch(self.reason):
            return None
        return (
            f'"Client {self.client_id} disconnected",'
            f'"client_id":"{self.client_id}","code":{self.code},"reason":"{self.reason}","ms":{self.ms}'
        )


class ClientSuspended(Event, frozen=True):
    """A client with numbers lost its socket without a close frame; it is held."""

    sentence: ClassVar[str] = "Client {e.client_id} lost its connection; it may come back"
    client_id: str
    code: int
    reason: str


class ClientResumed(Event, frozen=True):
    """A client came back on a new socket, and `again` frames that it had missed are sent to it."""

    sentence: ClassVar[str] = "Client {e.client_id} came back from {e.remote}"
    client_id: str
    remote: str
    again: int


class ConnectionRefused(Event, frozen=True):
    """A connection ended before it became a WebSocket. `status` is the HTTP answer, null where none was owed.

    `detail` is there for credentials and origins: what was wrong, as the client was told. `client_id` is the ID that was asked
    for, or that a token is for whose signature is good.
    """

    level: ClassVar[Level] = "warning"
    sentence: ClassVar[str] = "Connection from {e.remote} refused: {e.reason}"
    remote: str
    status: int | None
    reason: str
    detail: str | UnsetType = UNSET
    client_id: str | UnsetType = UNSET


class TlsHandshakeFailed(Event, frozen=True):
    """A client and the relay found no TLS that both speak, or the client did not believe the certificate."""

    level: ClassVar[Level] = "warning"
    sentence: ClassVar[str] = "TLS with {e.remote} failed: {e.reason}"
    remote: str
    reason: str


class AuthenticationDisabled(Event, frozen=True):
    """Nothing but the network keeps anybody out, and the relay listens to more than this machine."""

    level: ClassVar[Level] = "warning"
    sentence: ClassVar[str] = (
        "Anybody who reaches {e.host} may connect, and so may every web page: "
        "see --auth-secret-file, --auth-webhook and --allow-origin"
    )
    host: str


class WeakSecret(Event, frozen=True):
    """The secret for tokens is short enough to be guessed from a token, at leisure."""

    level: ClassVar[Level] = "warning"
    sentence: ClassVar[str] = (
        "The secret in {e.path} is shorter than 32 bytes and may be guessed from a token: make one by `openssl rand -base64 48`"
    )
    path: str


class AuthWebhookFailed(Event, frozen=True):
    """The service that says who may come in gives no answer: nobody comes in meanwhile."""

    level: ClassVar[Level] = "error"
    sentence: ClassVar[str] = "Nobody can come in, for --auth-webhook gives no answer: {e.reason}"
    reason: str


class Reloaded(Event, frozen=True):
    """SIGHUP came; the files of these options were read again and are in force for new connections."""

    sentence: ClassVar[str] = "Reloaded the files of {e.options}"
    options: str


class ReloadFailed(Event, frozen=True):
    """SIGHUP came, and the new file of this option cannot be used; the old one stays in force."""

    level: ClassVar[Level] = "error"
    sentence: ClassVar[str] = "The new file of {e.option} is not in force, the old one is: {e.reason}"
    option: str
    reason: str


class InternalError(Event, frozen=True):
    """A fault of the relay's own in serving one client; the others are served on."""

    level: ClassVar[Level] = "error"
    sentence: ClassVar[str] = "A fault while serving {e.remote}: {e.reason}"
    remote: str
    reason: str


class HttpRequest(Event, frozen=True):
    """A page was asked for by plain HTTP: health, readiness, metrics."""

    level: ClassVar[Level] = "debug"
    sentence: ClassVar[str] = "Page {e.path} served to {e.remote}"
    remote: str
    path: str
    status: int


class AcceptFailed(Event, frozen=True):
    """The system gave no socket for a new connection; those that are there are served on, and it is tried again."""

    level: ClassVar[Level] = "error"
    sentence: ClassVar[str] = (
        "Cannot accept connections: {e.reason}. Trying again; the clients that are here are served on."
    )
    reason: str


class FdLimitLow(Event, frozen=True):
    """The system lets this process have fewer descriptors than it may have clients."""

    level: ClassVar[Level] = "warning"
    sentence: ClassVar[str] = (
        "Only {e.limit} descriptors for {e.max_clients} clients: raise 'ulimit -Hn', or lower --max-clients"
    )
    limit: int
    max_clients: int


class PairRequested(Event, frozen=True):
    """A client asked to be paired."""

    sentence: ClassVar[str] = "Client {e.client_id} requests pairing with {e.target_id}"
    client_id: str
    target_id: str

    def render(self) -> str | None:
        """Spell the line's end out, where the target needs no escape."""
        if not PLAIN.fullmatch(self.target_id):
            return None
        return (
            f'"Client {self.client_id} requests pairing with {self.target_id}",'
            f'"client_id":"{self.client_id}","target_id":"{self.target_id}"'
        )


class Paired(Event, frozen=True):
    """Two clients are a pair; `client_id` is the initiator."""

    sentence: ClassVar[str] = "Pairing successful: {e.client_id} <-> {e.peer_id}"
    client_id: str
    peer_id: str

    def render(self) -> str:
        """Spell the line's end out: no ID needs an escape."""
        return (
            f'"Pairing successful: {self.client_id} <-> {self.peer_id}",'
            f'"client_id":"{self.client_id}","peer_id":"{self.peer_id}"'
        )


class PairRefused(Event, frozen=True):
    """A pairing did not come about."""

    level: ClassVar[Level] = "warning"
    sentence: ClassVar[str] = "Pairing of {e.client_id} with {e.target_id} refused: {e.code}"
    client_id: str
    target_id: str
    code: str


class Relayed(Event, frozen=True):
    """A frame went from one client of a pair to the other."""

    type: str
    client_id: str
    peer_id: str
    bytes: int
    sdp: str | UnsetType = UNSET

    def message(self) -> str:
        """Return the founding design's sentence."""
        return f"Relaying '{self.type}' message from {self.client_id} to {self.peer_id}"

    def render(self) -> str | None:
        """Spell the line's end out: it is the relay's most frequent, and no type and no ID needs an escape."""
        if self.sdp is not UNSET:
            return None
        return f"{self.render_prefix(self.type, self.client_id, self.peer_id)}{self.bytes}"

    @staticmethod
    def render_prefix(kind: str, client_id: str, peer_id: str) -> str:
        """Return what `render` does, up to the number of bytes."""
        return (
            f"\"Relaying '{kind}' message from {client_id} to {peer_id}\","
            f'"type":"{kind}","client_id":"{client_id}","peer_id":"{peer_id}","bytes":'
        )


class RelayRefused(Event, frozen=True):
    """A frame for the peer had nowhere to go."""

    level: ClassVar[Level] = "warning"
    type: str
    client_id: str
    peer_id: str | None
    code: str

    def message(self) -> str:
        """Return the sentence for no peer at all, or for the wrong one."""
        if self.peer_id is None:
            return f"Client {self.client_id} attempted to relay message but has no peer."
        return f"Cannot relay message to peer {self.peer_id}: Client not found or disconnected."


class MessageRefused(Event, frozen=True):
    """A frame broke a rule of the protocol."""

    level: ClassVar[Level] = "warning"
    sentence: ClassVar[str] = "Message from {e.client_id} refused: {e.code}"
    client_id: str
    code: str


class Unpaired(Event, frozen=True):
    """A pairing ended; `client_id` is the one that left it."""

    sentence: ClassVar[str] = "Unpaired: {e.client_id} left {e.peer_id} ({e.reason})"
    client_id: str
    peer_id: str
    reason: str

    def render(self) -> str:
        """Spell the line's end out: no ID and no reason of the protocol needs an escape."""
        return (
            f'"Unpaired: {self.client_id} left {self.peer_id} ({self.reason})",'
            f'"client_id":"{self.client_id}","peer_id":"{self.peer_id}","reason":"{self.reason}"'
        )


class ServerStopping(Event, frozen=True):
    """A signal came; the clients are told."""

    sentence: ClassVar[str] = "Server stopping on {e.signal}: closing {e.clients} clients"
    signal: str
    clients: int


class ServerStopped(Event, frozen=True):
    """The last line of an orderly end."""

    sentence: ClassVar[str] = "Server stopped."
    ms: float
