"""Which addresses ICE uses: those of this machine for its candidates, and those of the peer that may get checks. Pure."""

import ipaddress
import re
from collections.abc import Iterable, Sequence
from typing import Final
from urllib.parse import urlsplit

MAX_LOCAL: Final = 16
MAX_REMOTE: Final = 100
MAX_PAIRS: Final = 100  # RFC 8445, 6.1.2.5
PRIVILEGED_PORTS: Final = 1024
_OPEN_PORTS: Final = (80, 443)
# Bridges and endpoints that container and VM software makes: their addresses are known on this machine only.
_VIRTUAL: Final = re.compile(
    r"(docker|veth|virbr|vmnet|vboxnet|cni|flannel|cali|kube|lxcbr|lxdbr|podman)|br-[0-9a-f]{12}$"
)


def is_virtual(interface: str) -> bool:
    """Whether an interface is a bridge or an endpoint of containers or virtual machines."""
    return _VIRTUAL.match(interface) is not None


def choose_local(interfaces: Iterable[tuple[str, Sequence[str]]]) -> list[str]:
    """Return at most `MAX_LOCAL` addresses, in turn from each interface; those of virtual ones only if there are no others."""
    usable = [(name, addresses) for name, addresses in interfaces if addresses]
    real = [addresses for name, addresses in usable if not is_virtual(name)]
    chosen = real or [addresses for _, addresses in usable]
    return [each[turn] for turn in range(MAX_LOCAL) for each in chosen if turn < len(each)][:MAX_LOCAL]


def is_loopback_url(url: str) -> bool:
    """Whether the host of a URL is this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_group_address(address: str) -> bool:
    """Whether an address is multicast, broadcast, unspecified or reserved: no single machine has it."""
    ip = _parse(address)
    return ip.is_multicast or ip.is_unspecified or (ip.version == 4 and (ip.is_reserved or ip in _THIS_NETWORK))  # noqa: PLR2004


def refuse_remote(address: str, port: int, local: Sequence[str], *, allow_loopback: bool) -> str:
    """Return why a candidate of the peer gets no checks, which another party could suffer from; empty if it may."""
    ip = _parse(address)
    if is_group_address(address):
        return f"{address} is a multicast, broadcast or reserved address"
    if ip.is_link_local and not any(
        _parse(each).is_link_local and _parse(each).version == ip.version for each in local
    ):
        return f"{address} is link-local, and this machine has no such address"
    if ip.is_loopback and not allow_loopback:
        return f"{address} is a loopback address, and the relay is on another machine"
    if port < PRIVILEGED_PORTS and port not in _OPEN_PORTS:
        return f"port {port} of {address} belongs to another service"
    return ""


_THIS_NETWORK: Final = ipaddress.IPv4Network("0.0.0.0/8")


def _parse(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    ip = ipaddress.ip_address(address)
    return (ip.ipv4_mapped or ip) if isinstance(ip, ipaddress.IPv6Address) else ip
