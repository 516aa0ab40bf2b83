"""The events of `sdpx serve`."""

from msgspec import UNSET, UnsetType

from sdpx.events import ErrorEvent, Event, WarningEvent


class ServerListening(Event, frozen=True):
    """The relay listens on an address; one event for each."""

    sentence = "Server listening on {e.url}"
    url: str
    host: str
    port: int
    tls: bool
    pid: int


class MetricsListening(Event, frozen=True):
    """The metrics have a separate port; one event for each of its addresses."""

    sentence = "Metrics at {e.url}"
    url: str
    host: str
    port: int


class ClientConnected(Event, frozen=True):
    """A client was accepted and has its ID."""

    sentence = "Client {e.client_id} connected from {e.remote}"
    client_id: str
    remote: str


class ClientDisconnected(Event, frozen=True):
    """A client disconnected; its ID is free."""

    sentence = "Client {e.client_id} disconnected"
    client_id: str
    code: int
    reason: str
    ms: float


class ClientSuspended(Event, frozen=True):
    """A resumable client lost its connection, or a proxy closed it; its session is kept for `--resume-window`."""

    sentence = "Client {e.client_id} lost its connection; its session is kept"
    client_id: str
    code: int
    reason: str


class ClientResumed(Event, frozen=True):
    """A client resumed its session on a new socket; `again` is the number of frames sent again."""

    sentence = "Client {e.client_id} resumed from {e.remote}"
    client_id: str
    remote: str
    again: int


class ConnectionRefused(WarningEvent, frozen=True):
    """A connection was refused before the WebSocket opened. `status` is the HTTP status, null if no response was sent.

    `detail` explains refused credentials and origins, as in the response. `client_id` is the requested ID, or the ID in a
    token with a valid signature.
    """

    sentence = "Connection from {e.remote} refused: {e.reason}"
    remote: str
    status: int | None
    reason: str
    detail: str | UnsetType = UNSET
    client_id: str | UnsetType = UNSET


class TlsHandshakeFailed(WarningEvent, frozen=True):
    """A TLS handshake failed: no common version or cipher, or the client rejected the certificate."""

    sentence = "TLS handshake with {e.remote} failed: {e.reason}"
    remote: str
    reason: str


class AuthenticationDisabled(WarningEvent, frozen=True):
    """The relay listens on a non-loopback address without authentication."""

    sentence = (
        "Every client and every web page that reaches {e.host} can connect: "
        "use --auth-secret-file or --auth-webhook, and --allow-origin"
    )
    host: str


class WeakSecret(WarningEvent, frozen=True):
    """The token secret is short enough for an offline brute-force attack on a token."""

    sentence = (
        "The secret in {e.path} is shorter than 32 bytes and can be found by brute force: "
        "generate one with `openssl rand -base64 48`"
    )
    path: str


class KeyIgnored(WarningEvent, frozen=True):
    """A key of the JWK set cannot be used and is ignored; `number` is its place in the set, from 1."""

    sentence = "Key {e.number} of '{e.path}' is ignored: it {e.reason}"
    path: str
    number: int
    reason: str


class ProxyNotTrusted(WarningEvent, frozen=True):
    """A request from an address that is no trusted proxy has X-Forwarded-For or Forwarded; logged once."""

    sentence = (
        "{e.host} forwards the addresses of clients, but is not trusted, so that all of its clients count as one: "
        "if it is your proxy, use --trusted-proxy {e.host}"
    )
    host: str


class AuthWebhookFailed(ErrorEvent, frozen=True):
    """The authentication webhook is unavailable; new connections are refused meanwhile."""

    sentence = "Authentication webhook unavailable, refusing new connections: {e.reason}"
    reason: str


class Reloaded(Event, frozen=True):
    """On SIGHUP the files of these options were read again; they apply to new connections."""

    options: str

    def message(self) -> str:
        """Return the options, or that there are none."""
        return f"Reloaded the files of {self.options}" if self.options else "Nothing to reload: no option names a file"


class ReloadFailed(ErrorEvent, frozen=True):
    """On SIGHUP the new file of this option could not be used; the previous one stays in use."""

    sentence = "Cannot reload the file of {e.option}, the previous one stays in use: {e.reason}"
    option: str
    reason: str


class InternalError(ErrorEvent, frozen=True):
    """An internal error occurred while one client was served; other clients are not affected."""

    sentence = "Internal error while serving {e.remote}: {e.reason}"
    remote: str
    reason: str


class HttpRequest(Event, frozen=True):
    """An HTTP request for health, readiness or metrics was answered."""

    level = "debug"
    sentence = "Served {e.path} to {e.remote}"
    remote: str
    path: str
    status: int


class AcceptFailed(ErrorEvent, frozen=True):
    """The system refused to accept a connection; the relay tries again, and existing clients are not affected."""

    sentence = "Cannot accept connections: {e.reason}. Trying again; existing clients are not affected."
    reason: str


class EpollUnavailable(WarningEvent, frozen=True):
    """The system has no epoll: trio-websocket serves the connections."""

    sentence = "This system has no epoll: connections are served by trio-websocket, which is slower"


class SlowMasking(WarningEvent, frozen=True):
    """The C extension of the package websockets is missing."""

    sentence = "Masks are applied in Python, which is slow: the C extension of websockets is missing"


class FdLimitLow(WarningEvent, frozen=True):
    """The limit on file descriptors is below --max-clients."""

    sentence = "Only {e.limit} file descriptors for {e.max_clients} clients: raise 'ulimit -Hn' or lower --max-clients"
    limit: int
    max_clients: int


class PairRequested(Event, frozen=True):
    """A client requested a pairing."""

    sentence = "Client {e.client_id} requests pairing with {e.target_id}"
    client_id: str
    target_id: str


class Paired(Event, frozen=True):
    """Two clients were paired; `client_id` is the initiator."""

    sentence = "Pairing successful: {e.client_id} <-> {e.peer_id}"
    client_id: str
    peer_id: str


class PairRefused(WarningEvent, frozen=True):
    """A pairing was refused."""

    sentence = "Pairing of {e.client_id} with {e.target_id} refused: {e.code}"
    client_id: str
    target_id: str
    code: str


class Relayed(Event, frozen=True):
    """A frame was relayed from a client to its peer."""

    type: str
    client_id: str
    peer_id: str
    bytes: int
    sdp: str | UnsetType = UNSET

    def message(self) -> str:
        """Return the sentence of the original design."""
        return f"Relaying '{self.type}' message from {self.client_id} to {self.peer_id}"

    @staticmethod
    def rendered(kind: str, client_id: str, peer_id: str) -> str:
        """Return the JSON of message and keys up to the number of bytes, for `Log.emit_rendered`: no value needs an escape."""
        return (
            f"\"Relaying '{kind}' message from {client_id} to {peer_id}\","
            f'"type":"{kind}","client_id":"{client_id}","peer_id":"{peer_id}","bytes":'
        )


class RelayRefused(WarningEvent, frozen=True):
    """A frame could not be relayed: its sender is not paired, or the peer has disconnected."""

    type: str
    client_id: str
    peer_id: str | None
    code: str

    def message(self) -> str:
        """Return the sentence of the original design for the case."""
        if self.peer_id is None:
            return f"Client {self.client_id} attempted to relay message but has no peer."
        return f"Cannot relay message to peer {self.peer_id}: Client not found or disconnected."


class MessageRefused(WarningEvent, frozen=True):
    """A frame violated the protocol."""

    sentence = "Message from {e.client_id} refused: {e.code}"
    client_id: str
    code: str


class Unpaired(Event, frozen=True):
    """A pairing ended; `client_id` is the client that ended it."""

    sentence = "Unpaired: {e.client_id} left {e.peer_id} ({e.reason})"
    client_id: str
    peer_id: str
    reason: str


class ProcessSuspended(WarningEvent, frozen=True):
    """The process did not run for a while: SIGSTOP, a paused virtual machine, a machine that is too busy.

    Silent clients get a full `--idle-timeout`, and suspended sessions a full `--resume-window`, from now on.
    """

    sentence = "The relay did not run for {e.ms:.0f} ms: its clients get their full timeouts from now on"
    ms: float


class ClusterJoined(Event, frozen=True):
    """The relay is a node of a cluster of `nodes`; its name is new at every start, and after its lease was over."""

    sentence = "Joined the cluster as {e.node}; nodes: {e.nodes}"
    node: str
    nodes: int


class ClusterDegraded(ErrorEvent, frozen=True):
    """The engine of the cluster cannot be reached: pairs on this node go on, new IDs and pairings are refused."""

    sentence = "The cluster cannot be reached: {e.reason}"
    reason: str


class ClusterRestored(Event, frozen=True):
    """The engine can be reached again, after `ms`; `lost` pairings with other nodes ended at once.

    `state` is `kept`, `forgotten` if the engine lost its data, or `removed` if the other nodes had given this one up. After
    `forgotten` the pairings with other nodes are confirmed within a second.
    """

    sentence = "The cluster can be reached again ({e.state})"
    node: str
    ms: float
    state: str
    lost: int


class LeaseExpired(WarningEvent, frozen=True):
    """This node could not renew its lease, nor within 5 s after its end: its `lost` pairings with other nodes have ended."""

    sentence = "The lease of this node is over; pairings with other nodes that ended: {e.lost}"
    node: str
    lost: int


class NodeLost(WarningEvent, frozen=True):
    """A node did not renew its lease; its clients' peers are notified. Logged by the node that removed it."""

    sentence = "Node {e.node} is lost, with {e.clients} clients"
    node: str
    clients: int


class SessionMoved(Event, frozen=True):
    """A session left for another node (`out`), or came from one (`in`); `frames` waited for it meanwhile."""

    sentence = "Session of {e.client_id} moved {e.result}"
    client_id: str
    result: str
    frames: int


class ServerStopping(Event, frozen=True):
    """A signal requested the shutdown; clients are notified."""

    sentence = "Server stopping on {e.signal}: closing {e.clients} clients"
    signal: str
    clients: int


class ServerStopped(Event, frozen=True):
    """The relay has shut down; the last line of its log."""

    sentence = "Server stopped."
    ms: float


class NotificationFailed(WarningEvent, frozen=True):
    """The service manager that started the relay (NOTIFY_SOCKET) could not be notified."""

    sentence = "Cannot notify the service manager: {e.error}. Check the unit's Type and NotifyAccess"
    error: str
