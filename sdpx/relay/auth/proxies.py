"""The address of the client behind a reverse proxy. Pure.

Each proxy appends the address of its own client to `X-Forwarded-For`, or to `Forwarded` (RFC 7239); the values that the
client itself wrote come first. So the list is read from its end, and the first address that is not a trusted proxy is that
of the client.
A proxy that sets one of the two headers may pass on the client's other one: if both are present, they must agree.
"""

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

# RFC 7239, 4: elements separated by `,`, each of pairs separated by `;`; a quoted value may contain both.
_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[,;]|[^",;]+')
_FOR: Final = re.compile(r'\s*for=(?:"(?P<quoted>[^"]*)"|(?P<bare>[^"]*))\s*', re.IGNORECASE)
_V4_WITH_PORT: Final = re.compile(r"(?P<host>[0-9.]+)(?::[0-9]{1,5})?")
_V6_WITH_PORT: Final = re.compile(r"\[(?P<host>[^\]]*)\](?::[0-9]{1,5})?")

MAPPED_BITS: Final = 96  # the prefix of an IPv4-mapped IPv6 address
Address = IPv4Address | IPv6Address


class Proxies:
    """The networks of trusted proxies. An empty list trusts none."""

    def __init__(self, networks: Sequence[str] = ()) -> None:
        self._networks = [_network(each) for each in networks]

    def trust(self, host: str) -> bool:
        """Return whether a connection from `host` comes from a trusted proxy."""
        address = _address(host)
        return address is not None and self._trusts(address)

    def client(self, host: str, x_forwarded_for: Sequence[str], forwarded: Sequence[str]) -> str:
        """Return the address of the client behind the connection from `host`, given the values of the two headers.

        The address is `host` itself if that is not a trusted proxy, or if the headers are missing, malformed or contradictory.
        """
        if not self.trust(host):
            return host
        lists = (
            [node.strip() for line in x_forwarded_for for node in line.split(",")],
            [node for line in forwarded for node in _nodes_of_line(line)],
        )
        clients = {self._last_untrusted(nodes) for nodes in lists if nodes}
        return host if len(clients) != 1 else str(clients.pop() or host)

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self._networks)

    def _last_untrusted(self, nodes: Sequence[str]) -> Address | None:
        """Return the last address that is not a proxy's; the first if all are; None if the last node is not an address."""
        found = None
        for node in reversed(nodes):
            address = _address(node)
            if address is None:
                break
            found = address
            if not self._trusts(address):
                break
        return found


def _network(text: str) -> IPv4Network | IPv6Network:
    """Return a network; an IPv4-mapped IPv6 network (RFC 4291, 2.5.5.2) becomes an IPv4 network."""
    network = ip_network(text, strict=False)
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    if mapped is None or network.prefixlen < MAPPED_BITS:
        return network
    return IPv4Network((mapped, network.prefixlen - MAPPED_BITS))


def validate_network(text: str) -> str | None:
    """Return the problem of a network to trust; None if it is valid."""
    try:
        ip_network(text, strict=False)
    except ValueError:
        return f"'{text}' is not a network; use 10.0.0.0/8, 2001:db8::/32 or a single address"
    return None


def _nodes_of_line(line: str) -> list[str]:
    """Return the `for` nodes of a line; one empty node if a quoted string does not end, which a client may have begun."""
    elements, at = [[""]], 0
    while at < len(line):
        token = _TOKEN.match(line, at)
        if token is None:
            return [""]
        at = token.end()
        match token[0]:
            case ",":
                elements.append([""])
            case ";":
                elements[-1].append("")
            case word:
                elements[-1][-1] += word
    return [_node_of(pairs) for pairs in elements]


def _node_of(pairs: Sequence[str]) -> str:
    found = [found for pair in pairs if (found := _FOR.fullmatch(pair))]
    return (found[0]["quoted"] or found[0]["bare"] or "").strip() if len(found) == 1 else ""


def _address(node: str) -> Address | None:
    found = _V6_WITH_PORT.fullmatch(node) or _V4_WITH_PORT.fullmatch(node)
    try:
        address = ip_address((found["host"] if found else node).partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
