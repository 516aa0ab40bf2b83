"""The ICE servers that each client is told of, and when their credentials have to be renewed. Pure: secret and clock are given.

Credentials hold for `ttl` seconds. A client that stays gets new ones once `RENEW_AT` of that is over, as a frame of type
`ice_servers`, so that what it has never ends while it is here; connections that stand are not touched by it.
"""

from collections.abc import Callable, Sequence
from typing import Final

from sdpx.relay.auth.turn import IceServer, turn_server

RENEW_AT: Final = 0.8
AT_A_TIME: Final = 200


class IceServerIssuer:
    """`fixed` ones are for everybody; with `turn_urls` each client also gets credentials, under what `secret` returns.

    `clock` returns seconds since the epoch.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        fixed: Sequence[IceServer] = (),
        turn_urls: Sequence[str] = (),
        ttl: int = 0,
        secret: Callable[[], bytes] = bytes,
    ) -> None:
        self._clock = clock
        self._fixed = fixed
        self._turn_urls = turn_urls
        self._ttl = ttl
        self._secret = secret
        # Who has credentials, since when, and what else; the oldest first.
        self._told: dict[str, tuple[float, Sequence[IceServer]]] = {}

    @property
    def seconds_between_looks(self) -> float | None:
        """How often to ask who is `due`; None where nobody ever is."""
        return max(self._ttl * (1 - RENEW_AT) / 4, 0.05) if self._turn_urls else None

    def tell(self, client_id: str, own: Sequence[IceServer] = ()) -> list[IceServer]:
        """Return what this client is to know now; `own` are those that somebody else gave it."""
        if self._turn_urls:
            self._told.pop(client_id, None)
            self._told[client_id] = self._clock(), own
        return self._servers(client_id, own)

    def reissue(self, client_id: str, own: Sequence[IceServer] = ()) -> list[IceServer]:
        """Do so for one that comes back; it is due when it was: behind these may come a frame with those from before."""
        if client_id in self._told:
            self._told[client_id] = self._told[client_id][0], own
        return self._servers(client_id, own)

    def _servers(self, client_id: str, own: Sequence[IceServer]) -> list[IceServer]:
        if not self._turn_urls:
            return [*self._fixed, *own]
        minted = turn_server(self._secret(), self._turn_urls, client_id, int(self._clock()) + self._ttl)
        return [*self._fixed, *own, minted]

    def forget(self, client_id: str) -> None:
        """Let a client go."""
        self._told.pop(client_id, None)

    def expire_all(self) -> None:
        """Make everybody due: the secret has changed."""
        self._told = {client_id: (float("-inf"), own) for client_id, (_, own) in self._told.items()}

    def due(self) -> list[tuple[str, list[IceServer]]]:
        """Return some of those whose credentials have to be renewed, each with what it is to know now."""
        renew_before = self._clock() - self._ttl * RENEW_AT
        due: list[str] = []
        for client_id, (since, _) in self._told.items():
            if since > renew_before or len(due) == AT_A_TIME:
                break
            due.append(client_id)
        return [(client_id, self.tell(client_id, self._told[client_id][1])) for client_id in due]
