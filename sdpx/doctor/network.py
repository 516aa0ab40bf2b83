"""Conclusions about a network from the addresses of this machine, and from those that STUN servers see. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address, ip_network
from typing import Final, Literal

from sdpx.doctor.check import Check, passed, problem
from sdpx.peer.negotiation.addresses import is_virtual

CGNAT: Final = ip_network("100.64.0.0/10")  # RFC 6598
_VPN: Final = ("tun", "tap", "wg", "utun", "ppp", "tailscale", "zt", "nebula")

AddressKind = Literal["public", "private", "cgnat", "link_local", "unique_local"]


def kind_of(text: str) -> AddressKind:
    """Return the kind of an address that is not loopback."""
    address = ip_address(text.partition("%")[0])
    if address.is_link_local:
        return "link_local"
    if address.version == 4 and address in CGNAT:  # noqa: PLR2004
        return "cgnat"
    if address.is_private:
        return "private" if address.version == 4 else "unique_local"  # noqa: PLR2004
    return "public"


def describe_addresses(interfaces: Mapping[str, Sequence[str]]) -> Check:
    """Return the check of this machine's addresses, by interface; loopback addresses are left out."""
    rows: list[dict[str, str]] = []
    for interface, addresses in interfaces.items():
        role = "bridge" if is_virtual(interface) else "vpn" if interface.startswith(_VPN) else "network"
        rows += [
            {"address": address, "interface": interface, "role": role, "kind": kind_of(address)}
            for address in addresses
            if not ip_address(address.partition("%")[0]).is_loopback
        ]
    usable = [row for row in rows if row["role"] != "bridge" and row["kind"] != "link_local"]
    if not usable:
        return problem("addresses", "", "no_network", "This machine has no address but loopback ones", addresses=rows)
    kinds = ", ".join(
        f"{row['address']} ({row['kind']}{'' if row['role'] == 'network' else ', ' + row['role']})" for row in usable
    )
    return passed("addresses", "", kinds, addresses=rows)


def describe_nat(seen: Mapping[str, str], local: Iterable[str]) -> Check | None:
    """Return the check of the NAT (RFC 4787, 4.1) from the mappings that servers saw of one IPv4 socket; None without answers.

    `seen` has the mapped HOST:PORT by the HOST:PORT of the server, `local` this machine's addresses.
    """
    if not seen:
        return None
    hosts = {mapped.rpartition(":")[0] for mapped in seen.values()}
    evidence = {"mapped": dict(seen)}
    if hosts & set(local):
        return passed("nat", "", "No NAT: STUN servers see an address of this machine", kind="none", **evidence)
    if len({server.rpartition(":")[0] for server in seen}) == 1:
        sentence = "There is a NAT; a second STUN server (--stun) would show of which kind"
        return passed("nat", "", sentence, kind="unknown", **evidence)
    if len(set(seen.values())) > 1:
        sentence = "The NAT maps each destination to another port (address-dependent mapping)"
        return problem("nat", "", "nat_symmetric", sentence, kind="address_dependent", **evidence)
    sentence = "The NAT keeps one port for all destinations (endpoint-independent mapping): a direct path is likely"
    return passed("nat", "", sentence, kind="endpoint_independent", **evidence)
