"""The ICE servers of each client, with TURN credentials that expire. Pure: secret and clock are given.

TURN credentials follow "A REST API For Access To TURN Services" (draft-uberti-behave-turn-rest), coturn's `use-auth-secret`:
the user name is `expiry:id`, the expiry in seconds since the epoch; the password is the base64 of the HMAC-SHA1 of the user
name under the secret that relay and TURN server share.

A connected client gets new credentials, in an `ice_servers` message, after `RENEW_AT` of their lifetime, or when the secret
has changed. Connections that are established are not affected.
"""

import hmac
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from sdpx.ice_servers import RtcIceServer, parse_server

RENEW_AT: Final = 0.8
RENEWALS_PER_CHECK: Final = 200


def turn_server(secret: bytes, urls: Sequence[str], client_id: str, expiry: int) -> RtcIceServer:
    """Return a TURN server with this client's credentials, which expire at `expiry`, in seconds since the epoch."""
    username = f"{expiry}:{client_id}"
    digest = hmac.digest(secret, username.encode(), "sha1")
    return {"urls": list(urls), "username": username, "credential": b64encode(digest).decode()}


def validate_turn_url(url: str) -> str | None:
    """Return the problem of a TURN server's URL (RFC 7065); None if it is valid."""
    try:
        server = parse_server(url)
    except ValueError as error:
        return str(error)
    if not server.is_turn or server.username is not None:
        return f"'{url}' is not the URL of a TURN server; use turn:HOST, turn:HOST:PORT?transport=tcp or turns:HOST"
    return None


@dataclass(slots=True, eq=False, repr=False)
class IceServerIssuer:
    """Issues ICE servers: `fixed` ones for every client, and with `turn_urls` credentials that last `ttl` seconds.

    `clock` returns seconds since the epoch. `secret` returns the TURN secret that is in force.
    """

    _clock: Callable[[], float]
    _fixed: Sequence[RtcIceServer] = ()
    _turn_urls: Sequence[str] = ()
    _ttl: int = 0
    _secret: Callable[[], bytes] = bytes
    _used_secret: bytes = b""
    # Clients with credentials: when they were issued, and the client's own servers; the oldest first.
    _issued: dict[str, tuple[float, Sequence[RtcIceServer] | None]] = field(default_factory=dict)

    @property
    def check_interval(self) -> float | None:
        """Seconds between calls of `renew`; None if there is nothing to renew."""
        return max(self._ttl * (1 - RENEW_AT) / 4, 0.05) if self._turn_urls else None

    def issue(self, client_id: str, own: Sequence[RtcIceServer] | None = None) -> list[RtcIceServer] | None:
        """Return a client's ICE servers, None if none are configured; `own` are those that the webhook gave it."""
        servers = self._servers(client_id, own)
        if self._turn_urls:
            self._issued.pop(client_id, None)
            self._issued[client_id] = self._clock(), own
        return servers

    def reissue(self, client_id: str, own: Sequence[RtcIceServer] | None = None) -> list[RtcIceServer] | None:
        """Return the ICE servers of a client that resumes its session; the time of its next renewal stays.

        A message with earlier credentials may follow from its replay buffer.
        """
        if client_id in self._issued:
            self._issued[client_id] = self._issued[client_id][0], own
        return self._servers(client_id, own)

    def forget(self, client_id: str) -> None:
        """Renew nothing for a client that has disconnected."""
        self._issued.pop(client_id, None)

    def renew(self, send: Callable[[str, list[RtcIceServer]], None]) -> None:
        """Send new credentials to the clients that need them, `RENEWALS_PER_CHECK` at most."""
        self._read_secret()
        renew_before = self._clock() - self._ttl * RENEW_AT
        due: list[tuple[str, Sequence[RtcIceServer] | None]] = []
        for client_id, (issued_at, own) in self._issued.items():
            if issued_at > renew_before or len(due) == RENEWALS_PER_CHECK:
                break
            due.append((client_id, own))
        renewed = [(client_id, self.issue(client_id, own) or []) for client_id, own in due]
        for client_id, servers in renewed:  # last, because a full send queue may make the relay `forget` a client
            send(client_id, servers)

    def _servers(self, client_id: str, own: Sequence[RtcIceServer] | None) -> list[RtcIceServer] | None:
        servers = [*self._fixed, *(own or ())]
        if self._turn_urls:
            expiry = int(self._clock()) + self._ttl
            servers.append(turn_server(self._read_secret(), self._turn_urls, client_id, expiry))
        return None if own is None and not servers else servers

    def _read_secret(self) -> bytes:
        """Return the secret; a new one makes all credentials that were issued under the old one due for renewal."""
        secret = self._secret()
        if secret != self._used_secret:
            self._used_secret = secret
            self._issued = {client_id: (float("-inf"), own) for client_id, (_, own) in self._issued.items()}
        return secret
