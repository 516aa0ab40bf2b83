"""Whose address it is that a reverse proxy speaks for. Pure.

Each proxy adds the address that it was asked from at the end of `X-Forwarded-For`, or of `Forwarded` (RFC 7239). What a client
wrote there itself stands in front. So the list is read from its end, and the first address that is no trusted proxy's is the
client's. A proxy that uses one of the two headers lets a client's own other one through: where both come, they have to agree.
"""

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

# RFC 7239, 4: elements with , between them, each of pairs with ; between them; a value in quotes may hold all of these.
_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[,;]|[^",;]+')
_FOR: Final = re.compile(r'\s*for=(?:"(?P<quoted>[^"]*)"|(?P<bare>[^"]*))\s*', re.IGNORECASE)
_V4_WITH_PORT: Final = re.compile(r"(?P<host>[0-9.]+)(?::[0-9]{1,5})?")
_V6_WITH_PORT: Final = re.compile(r"\[(?P<host>[^\]]*)\](?::[0-9]{1,5})?")

MAPPED_BITS: Final = 96  # in front of an IPv4 address that is written as one of IPv6
Address = IPv4Address | IPv6Address


class Proxies:
    """The networks of the proxies that are believed; none means nobody is."""

    def __init__(self, networks: Sequence[str] = ()) -> None:
        self._networks = [_network(each) for each in networks]

    def __bool__(self) -> bool:
        return bool(self._networks)

    def trust(self, host: str) -> bool:
        """Tell whether the connection from `host` is a proxy's."""
        address = _address(host)
        return address is not None and self._trusts(address)

    def client(self, host: str, x_forwarded_for: Sequence[str], forwarded: Sequence[str]) -> str:
        """Return the address of the client behind the connection from `host`, given the lines of the two headers.

        It is `host` itself where that is no proxy, or where the headers say nothing, nonsense, or two different things.
        """
        if not self.trust(host):
            return host
        told = {
            self._nearest_stranger(nodes)
            for nodes in (_nodes_of_x_forwarded_for(x_forwarded_for), _nodes_of_forwarded(forwarded))
            if nodes
        }
        return host if len(told) != 1 else str(told.pop() or host)

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self._networks)

    def _nearest_stranger(self, nodes: Sequence[str]) -> Address | None:
        """Return the last address that is no proxy's; if all are, the first; None where the last word is no address."""
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
    """Return a network as addresses are compared with it: one of IPv4 in IPv6's words (RFC 4291, 2.5.5.2) is IPv4's."""
    network = ip_network(text, strict=False)
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    if mapped is None or network.prefixlen < MAPPED_BITS:
        return network
    return IPv4Network((mapped, network.prefixlen - MAPPED_BITS))


def validate_network(text: str) -> str | None:
    """Return what is wrong with a network that somebody wants to trust."""
    try:
        ip_network(text, strict=False)
    except ValueError:
        return f"'{text}' is no network; one is 10.0.0.0/8, 2001:db8::/32, or a single address"
    return None


def _nodes_of_x_forwarded_for(lines: Sequence[str]) -> list[str]:
    return [node.strip() for line in lines for node in line.split(",")]


def _nodes_of_forwarded(lines: Sequence[str]) -> list[str]:
    return [node for line in lines for node in _nodes_of_line(line)]


def _nodes_of_line(line: str) -> list[str]:
    """Return whom each element is for; nobody, where a quote has no end: a client may have begun it."""
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
