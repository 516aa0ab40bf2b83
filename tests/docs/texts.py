"""Meanings of the codes in the generated tables. Each table covers exactly the codes that the generator finds in the code."""

from typing import Final

EXIT_STATUSES: Final = {
    0: "Success, or end by a signal with nothing left undelivered",
    1: (
        "`serve` could not listen; the log could not be written; a step of `demo` failed; the figures of `bench` are invalid; "
        "an internal error"
    ),
    2: "Usage error; nothing was started",
    3: "The relay was unreachable, or the connection to it was lost",
    4: "The relay refused the pairing that `--pair` requested",
    5: "A session description was missing or unusable, or the connection failed for a reason without a code of its own",
    6: "The relay answered the WebSocket request with an HTTP error: ID in use (409), bad token (401), relay full (503), ...",
    7: "The peer left before the connection was established",
    8: "No answer, or no offer, arrived",
    9: "No pair of candidates could be formed",
    10: "ICE failed: candidate pairs were checked, none succeeded",
    11: "ICE succeeded, the DTLS handshake failed",
    12: (
        "The connection was established, and the other side closed it too early or became unreachable; "
        "or at the end messages had not been sent or not been confirmed"
    ),
    13: "The `--expect` condition was not met, and no phase had failed",
    14: "`sdpx doctor` found nothing that failed, but warnings",
    15: "Messages of the input were rejected, and nothing else failed",
    16: "A transfer is incomplete: not everything has arrived and is right",
    17: "A transfer was refused, or the other side does not take part in it",
}

# Wire, relay to client: type -> (notes on the keys, when the frame is sent).
SERVER_MESSAGES: Final = {
    "your_id": (
        "First frame of every connection. `ice_servers`, if present, is a list of RTCIceServer dictionaries; "
        "`resume_token`, `resumed`, `client_seq` and `peer_id` belong to [session resumption](#session-resumption)"
    ),
    "ice_servers": "Replacement for the list in `your_id`: the credentials in the earlier list are about to expire",
    "paired": "Sent to both clients of a new pairing; the client that requested it is the initiator",
    "offer": "Relayed from the peer, with `from_peer`: true",
    "answer": "Relayed from the peer, with `from_peer`: true",
    "candidate": "Relayed from the peer, with `from_peer`: true",
    "peer_disconnected": "Sent once when the other side ends the pairing",
    "unpaired": "Reply to `unpair`",
    "error": "A frame was refused; the connection stays open. `target_id` and `in_reply_to` are present where they apply",
    "pong": "Reply to `ping`; `t` is echoed if the ping had it",
    "ack": "Sequenced clients only: all frames of the client up to `client_seq` have been accepted",
}

# Wire, client to relay: type -> (keys, reply).
CLIENT_MESSAGES: Final = {
    "pair_request": ("`target_id`", "`paired` to both clients, or `error`"),
    "offer": ("`sdp`; optional `peer_id`: the receiver (null: absent)", "Relayed to the peer"),
    "answer": ("`sdp`; optional `peer_id`: the receiver (null: absent)", "Relayed to the peer"),
    "candidate": (
        "`candidate`: an RTCIceCandidateInit, or null for end-of-candidates; optional `peer_id`: the receiver (null: absent)",
        "Relayed to the peer",
    ),
    "unpair": ("", "`unpaired`; the peer receives `peer_disconnected`, and both clients are free"),
    "ping": ("optional `t`: any JSON value", "`pong`"),
    "pong": ("", "None; counts as activity"),
    "ack": ("`seq`", "None; sequenced clients only: the frames up to `seq` have been received"),
}

DISCONNECT_REASONS: Final = {
    "left": "The peer sent `unpair`",
    "closed": "The peer's connection was closed or lost",
    "timeout": "The peer exceeded the idle timeout",
    "slow": "The peer did not read its frames, or its session was evicted for memory",
    "shutdown": "The relay is stopping",
    "refused": "The relay disconnected the peer for protocol violations or flooding",
    "node_lost": "The node of a cluster that served the peer is lost, or this client's own node cannot reach the others",
}

# In order of precedence: the first code that applies is sent.
ERROR_CODES: Final = {
    "bad_json": "The text is not valid JSON: syntax, NaN, excessive nesting, a lone surrogate",
    "bad_message": "Not an object, no string `type`, a key is missing or has the wrong type, or a binary frame",
    "unknown_type": "The `type` is unknown, or reserved for the relay",
    "rate_limited": "The client exceeded `--rate` or `--unknown-target-rate`; the frame was not processed",
    "self_pair": "The target is the client itself: 'You cannot pair with yourself'",
    "already_paired": "The client has a peer: 'You are already paired'",
    "unauthorized": "The token does not permit this target",
    "engine_unavailable": "The relay is a node of a cluster that cannot be reached now; try again after a second",
    "target_not_found": "No client has this ID: 'Target client not found'",
    "target_already_paired": "The target has a peer: 'Target client is already paired'",
    "not_paired": "The client has no peer (frames for the peer, and `unpair`)",
    "peer_unreachable": (
        "`peer_id` does not name the current peer, or a former peer disconnected before reading all frames; in a cluster "
        "also: the frame could not be brought to the peer's node"
    ),
}

HTTP_CODES: Final = {
    "bad_request": "The request is not a valid HTTP request or WebSocket upgrade",
    "bad_id": "The requested `id` is not a valid client ID",
    "bad_resume": "The parameters `seq`, `resume` and `last` are not valid",
    "unauthorized": "The token is missing, invalid or expired, or the webhook denied the client",
    "origin": "The `Origin` header is not in `--allow-origin`",
    "forbidden": "`/stats.json` or `/clients/ID` without the permission",
    "not_found": "No page at this path",
    "method_not_allowed": "Method other than GET and HEAD",
    "timeout": "The request head did not arrive within `--handshake-timeout`",
    "id_taken": "Another client has this ID",
    "upgrade_required": "Plain GET of `/`: the body describes the service",
    "too_many_connections": "`--max-clients-per-ip` is reached for this address",
    "too_many_attempts": "`--auth-rate` is exceeded for this address",
    "shutting_down": "The relay is stopping",
    "full": "`--max-clients` is reached",
    "auth_unavailable": "The authentication webhook failed or timed out",
    "engine_unavailable": "The relay is a node of a cluster that cannot be reached now",
}

# The codes of the relay's own close frames (RFC 6455, 7.4).
CLOSE_CODES: Final = {
    1001: "The relay is stopping",
    1002: "WebSocket protocol error, or a gap in `client_seq`",
    1007: "Invalid UTF-8 in a text frame",
    1008: "The client is too slow, silent or flooding, or sent too many fragments",
    1009: "Message larger than `--max-message-size`",
    1012: "The node of the cluster is stopping: the client resumes on another one at once; or another client has its ID",
    4001: "Superseded: the client resumed its session on another connection",
}

LIMITS: Final = {
    "max_clients": "Concurrent clients. Past it: HTTP 503",
    "max_clients_per_ip": (
        "Clients from one address (IPv6: one /64). Past it: HTTP 429. As many pending connections; past it the oldest is closed"
    ),
    "pending": "Connections without a completed handshake; as many that wait for the webhook. Past it: the oldest one of "
    "the address with most is closed",
    "rate": (
        "Messages per second and client, control frames and fragments included, with a burst of 5 s. "
        "Past it: `rate_limited`; a client that continues is disconnected with 1008"
    ),
    "unknown_target_rate": (
        "Pairing requests for unknown IDs per second and address, with a burst of 20; each client has 3 free requests, "
        "and one more every 5 s. Past it: as for `rate`"
    ),
    "handshake_timeout": "Seconds for the request head. Past it: HTTP 408, or the connection is closed",
    "head_bytes": "Bytes of the request head, which has 512 lines at most. Past it: HTTP 431",
    "max_message_size": "Bytes of a message. Past it: close code 1009",
    "max_fragments": "Fragments of a message. Past it: close code 1008",
    "max_partial_bytes": (
        "Bytes of incomplete messages of all clients. Past it: the client with the largest product of bytes and "
        "time since its message began is disconnected with 1008"
    ),
    "send_queue_frames": "Frames in one send queue. Past it: the client is disconnected, its peer receives `slow`",
    "send_queue_bytes": "Memory of one send queue, in bytes. Past it: as for `send_queue_frames`",
    "max_queued_bytes": (
        "Memory of all send queues, and separately of all replay buffers, in bytes. Past it: the client whose send queue has "
        "the largest product of bytes and age of its first frame is disconnected, or the session with the largest replay "
        "buffer, of those of the address with most bytes, is ended; its peer receives `slow`"
    ),
    "write_timeout": "Seconds for one frame to be written. Past it: as for `send_queue_frames`",
    "ping_interval": "Seconds of silence before the relay sends a WebSocket ping",
    "idle_timeout": (
        "Seconds without a complete frame, pongs included. Past it: close code 1008, the peer receives `timeout`"
    ),
    "close_timeout": "Seconds for the close handshake. Past it: the socket is closed",
    "drain_timeout": "Seconds for queued frames to be written at shutdown. Past it: the socket is closed",
    "resume_window": "Seconds that a suspended session is kept. Past it: the peer receives the reason of the loss",
    "max_suspended_sessions": "Suspended sessions. Past it: the oldest one of the address with most is evicted, "
    "its peer receives `slow`",
    "max_suspended_per_address": "Suspended sessions per address. Past it: the oldest is evicted, its peer receives `slow`",
}

# code -> meaning; sdpx/remedies.py has the remedy.
DIAGNOSES: Final = {
    "fingerprint_mismatch": "The DTLS certificate contradicts the fingerprint in the description (an attack?); not retried",
    "receiver_overrun": "The other side sent faster than this side's output was read, and cannot be held back: one was lost",
    "peer_silent": "No packet arrived for three seconds: the peer's process, host or network is down",
    "dtls_failed": "The DTLS handshake failed or timed out",
    "channel_closed": "The connection was established, and the other side closed it",
    "unconfirmed": "At the end the other side had not confirmed all messages",
    "bad_description": "An offer or answer could not be created or used",
    "no_channel": "The connection was established, and no data channel opened within `--timeout`",
    "data_rejected": "The answer rejects the data section, or has none",
    "no_answer": "No answer arrived; the message says whether the offer was sent",
    "no_offer": "The initiator sent no offer",
    "no_turn": "`--ice-transport relay` is set, and no TURN server allocated an address; reported once all have been asked",
    "no_network": "This machine has no address to offer",
    "only_mdns": "The other side offered only mDNS candidates (`.local` names), and none was reachable",
    "no_common_candidates": "The other side offered no candidate, or none that matches (IPv4 and IPv6, UDP and TCP)",
    "turn_refused": "No candidate pair succeeded, and a TURN server answered with an error (401: wrong or expired credentials)",
    "stun_silent": "No candidate pair succeeded, and a STUN server did not answer, so no public address was offered",
    "ice_failed": "No candidate pair succeeded",
    "no_connection": "The answer was not sent, because the connection to the relay was down",
    "pairing_lost": "The other peer left, or declined, before the connection was established",
}

COMMANDS: Final = {
    '{"send": TEXT}': (
        "Send a text message of at most 256 KiB. Up to 1024 messages, or 4 MiB, wait for the data channel to open, and "
        "then the input waits; between two pairings the command is rejected with `not_paired`"
    ),
    '{"send_base64": TEXT}': "Send a binary message",
    '{"send": TEXT, "channel": LABEL}': (
        "Send a message, text or with `send_base64`, over the data channel with this label; the default is the first one. "
        "`not_open` if it does not open within a second of the message's turn"
    ),
    '{"send_file": PATH}': (
        "Send a file or directory to the peer, an `sdpx peer` with `--files DIR` or an `sdpx receive`; up to 256 wait for a "
        "connection. `transfer_complete` or `transfer_failed` follows; see [transfer.md](transfer.md#beside-messages)"
    ),
    '{"pair": ID}': "Request a pairing as initiator, and wait for the relay's reply",
    '{"unpair": true}': "Leave the pairing once all messages are confirmed; unsendable messages are dropped and reported",
    '{"close": true}': "As `unpair`, then end the program",
}

NEGOTIATION_ERRORS: Final = {
    "not_ready": "The message arrived in a state that cannot use it",
    "bad_sdp": "The session description is invalid",
    "bad_candidate": "The candidate is invalid",
    "wrong_state": "The RTCPeerConnection is in the wrong signaling state",
    "timeout": "The step did not complete in time",
}

INPUT_REJECTIONS: Final = {
    "bad_id": "The ID to pair with is not a valid client ID",
    "too_long": "The line or message exceeds its maximum",
    "not_utf8": "The line is not UTF-8",
    "bad_json": "The line is not JSON (`--stdin json`)",
    "bad_command": "The line is not a command (`--stdin json`)",
    "duplicate_key": "The command has a key more than once",
    "bad_base64": "The value of `send_base64` is not base64",
    "not_open": "No data channel is open, and no more messages can wait",
    "not_sent": "The message could not be sent before its channel closed, or the program ended",
    "already_paired": "A pairing exists or is being requested",
    "not_paired": "No pairing exists",
    "no_relay": "The relay is not connected",
    "no_files": "The peer takes no files",
    "too_many": "Too many files wait already",
}

# Events with a message built in code: values of the fields that select another sentence.
MESSAGE_VARIANTS: Final[dict[str, dict[str, object]]] = {
    "paired": {"is_initiator": False},
    "webrtc_started": {"is_initiator": False},
    "relay_refused": {"peer_id": None},
    "reconnecting": {"delay_ms": 0.0},
    "pair_retry_scheduled": {"code": "target_not_found"},
    "server_error": {"code": "target_not_found"},
    "reloaded": {"options": ""},
    "demo_finished": {"ok": False, "phases": {}},
}
