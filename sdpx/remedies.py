"""Remedies of problems: one table of codes for the peer's diagnoses, `sdpx doctor` and the relay's page. Pure."""

from typing import Final, Literal

from msgspec import Struct

from sdpx.errors import ExitStatus


class Remedy(Struct, frozen=True):
    """The remedy of a problem, as a clause, and the exit status of a program that the problem ends.

    A problem with the `result` `warning` ends none.
    """

    status: ExitStatus
    remedy: str
    result: Literal["failed", "warning"] = "failed"


_TURN: Final = "or give a TURN server (--turn, or sdpx serve --turn-url)"
_E: Final = ExitStatus
REMEDIES: Final[dict[str, Remedy]] = {
    # ---- the connection of two peers ----
    "fingerprint_mismatch": Remedy(
        _E.DTLS_FAILED,
        "do not trust this connection, since the description was changed on the way, or another party answers; check the relay",
    ),
    "receiver_overrun": Remedy(_E.CHANNEL_LOST, "read the output of this side without pauses, or pace the sender"),
    "peer_silent": Remedy(_E.CHANNEL_LOST, "check its process, its machine, and the network between"),
    "dtls_failed": Remedy(_E.DTLS_FAILED, "check that the other program completes DTLS; read its log"),
    "channel_closed": Remedy(_E.CHANNEL_LOST, "read the log of the other side"),
    "unconfirmed": Remedy(_E.CHANNEL_LOST, "read the log of the other side: is its output read?"),
    "bad_description": Remedy(_E.NO_CONNECTION, "check the program that made the description"),
    "no_channel": Remedy(_E.NO_CONNECTION, "open a data channel there"),
    "data_rejected": Remedy(_E.NO_CONNECTION, "check that its program takes data channels"),
    "no_answer": Remedy(
        _E.NO_ANSWER, "check that its program answers offers, does not hang, and has a relay that it reaches"
    ),
    "no_offer": Remedy(_E.NO_ANSWER, "check that its program sends an offer once it is paired, and does not hang"),
    "only_mdns": Remedy(_E.NO_COMMON_CANDIDATES, f"give both sides a STUN server, {_TURN}"),
    "no_common_candidates": Remedy(_E.NO_COMMON_CANDIDATES, f"check the networks of both sides, {_TURN}"),
    "ice_failed": Remedy(_E.ICE_FAILED, f"check that the networks of both sides reach each other by UDP, {_TURN}"),
    "no_connection": Remedy(_E.NO_CONNECTION, "check the relay, and the network to it"),
    "pairing_lost": Remedy(
        _E.PAIRING_LOST, "it may have declined, being connected to another peer; request it again later"
    ),
    "no_turn": Remedy(
        _E.NO_COMMON_CANDIDATES, "give one that answers (--turn), or configure it at the relay (sdpx serve --turn-url)"
    ),
    "no_network": Remedy(_E.NO_COMMON_CANDIDATES, "bring up a network interface: Wi-Fi, cable or VPN"),
    "turn_refused": Remedy(
        _E.ICE_FAILED,
        "check user name and password (--turn, or --ice-server and --turn-secret-file of the relay), and whether the "
        "credentials have expired; for a code other than 401 ask its operator",
    ),
    "stun_silent": Remedy(
        _E.ICE_FAILED,
        "check the address of the STUN server (--stun, or --ice-server of the relay), and that the network lets UDP out",
        "warning",
    ),
    # ---- the relay ----
    "name_unresolved": Remedy(_E.RELAY, "check the host in the URL, and this machine's DNS"),
    "port_closed": Remedy(
        _E.RELAY,
        "start the relay on that machine (sdpx serve; beyond loopback with --host), or correct host and port of the URL",
    ),
    "no_route": Remedy(_E.RELAY, "check this machine's network and the firewalls between"),
    "no_ipv6": Remedy(_E.RELAY, "give the relay an IPv4 address, too, or this machine IPv6"),
    "certificate_expired": Remedy(_E.RELAY, "renew the certificate of the relay, or correct this machine's clock"),
    "certificate_name": Remedy(_E.RELAY, "use a URL with a name that is in the certificate"),
    "certificate_untrusted": Remedy(
        _E.RELAY, "name the authority that signed it (--cafile), or give the relay a certificate with its full chain"
    ),
    "certificate_expires": Remedy(_E.OK, "renew the certificate of the relay", "warning"),
    "certificate_unverified": Remedy(_E.OK, "use --cafile in place of --insecure", "warning"),
    "tls_failed": Remedy(
        _E.RELAY, "use a ws:// URL if the relay has no TLS; otherwise check the port, and the log of the relay"
    ),
    "token_expires": Remedy(_E.OK, "get a new token before that", "warning"),
    "slow_relay": Remedy(_E.OK, "look at the load of the relay, and at the network between", "warning"),
    "clock_skew": Remedy(_E.OK, "synchronize the clocks, by which tokens and TURN credentials expire", "warning"),
    "websocket_refused": Remedy(  # of the page only: a browser does not tell why
        _E.RELAY,
        "read the log of the relay (token, --allow-origin, limits), and let a proxy pass the headers Upgrade and Connection",
    ),
    "frames_changed": Remedy(_E.NO_ANSWER, "look for a proxy that rewrites WebSocket messages"),
    "idle_closed": Remedy(_E.OK, "raise the idle timeout of the proxy above --ping-interval of the relay", "warning"),
    # ---- STUN and TURN servers, each alone ----
    "udp_blocked": Remedy(
        _E.OK, "let UDP out at the firewall of this network, or use a TURN server by tcp or tls", "warning"
    ),
    "stun_no_route": Remedy(
        _E.OK, "name a STUN server with an address that this machine has a route to, or check its network", "warning"
    ),
    "stun_unresolved": Remedy(_E.OK, "check the host of --stun, and this machine's DNS", "warning"),
    "nat_symmetric": Remedy(_E.OK, "give both sides a TURN server, since a direct path is unlikely", "warning"),
    "turn_unresolved": Remedy(_E.ICE_FAILED, "check the host of the TURN server, and this machine's DNS"),
    "turn_no_route": Remedy(
        _E.ICE_FAILED, "name a TURN server with an address that this machine has a route to, or check its network"
    ),
    "turn_unreachable": Remedy(_E.ICE_FAILED, "start the TURN server, and check its port and the firewalls between"),
    "turn_unknown": Remedy(  # of the page only
        _E.ICE_FAILED,
        "check that the TURN server runs and can be reached, its user name and password, and whether they have expired; "
        "sdpx doctor shows which",
    ),
    "turn_certificate": Remedy(_E.ICE_FAILED, "give the TURN server a certificate for its name that is trusted"),
    "turn_no_data": Remedy(
        _E.ICE_FAILED,
        "open the relay ports of the TURN server, and let it relay to its own address, as two of its clients need",
    ),
    "turn_expires": Remedy(
        _E.OK, "get new credentials before that; --turn-ttl of the relay sets their lifetime", "warning"
    ),
}
