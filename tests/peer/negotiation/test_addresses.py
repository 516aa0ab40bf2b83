"""The addresses that ICE uses: local ones in turn, and no remote one that another party could suffer from."""

import pytest

from sdpx.peer.negotiation.addresses import (
    MAX_LOCAL,
    choose_local,
    is_group_address,
    is_loopback_url,
    refuse_remote,
)


def test_local_addresses_are_taken_in_turn_from_each_interface() -> None:
    """An interface with hundreds of addresses does not crowd the others out; at most 16 are used."""
    many = [f"10.9.0.{number}" for number in range(260)]
    chosen = choose_local([("lo", many), ("eth0", ["192.0.2.1", "2001:db8::1"])])
    assert chosen[:4] == [many[0], "192.0.2.1", many[1], "2001:db8::1"]
    assert len(chosen) == MAX_LOCAL


@pytest.mark.parametrize("name", ["docker0", "br-0123456789ab", "veth1a2b", "virbr0", "cni0", "kube-ipvs0", "vmnet8"])
def test_virtual_interfaces_are_skipped_unless_there_are_no_others(name: str) -> None:
    assert choose_local([(name, ["172.17.0.1"]), ("br0", ["10.0.0.1"])]) == ["10.0.0.1"]
    assert choose_local([(name, ["172.17.0.1"]), ("eth0", [])]) == ["172.17.0.1"]


@pytest.mark.parametrize(
    "address",
    [
        *("224.0.0.251", "239.1.2.3", "255.255.255.255", "240.0.0.1", "0.0.0.0", "0.1.2.3"),
        *("ff02::1", "::", "::ffff:224.0.0.1"),
    ],
)
def test_no_group_address_gets_checks(address: str) -> None:
    assert is_group_address(address)
    assert refuse_remote(address, 5000, ["192.0.2.1"], allow_loopback=True)


@pytest.mark.parametrize("address", ["10.0.0.1", "192.168.1.9", "100.64.0.1", "fd00::1", "2001:db8::1", "203.0.113.9"])
def test_private_and_public_addresses_get_checks(address: str) -> None:
    assert not refuse_remote(address, 5000, [], allow_loopback=False)


def test_link_local_addresses_are_for_machines_that_have_one() -> None:
    """169.254.169.254 is the metadata service of cloud providers."""
    assert "link-local" in refuse_remote("169.254.169.254", 5000, ["192.0.2.1", "fe80::1"], allow_loopback=True)
    assert not refuse_remote("169.254.7.7", 5000, ["169.254.1.1"], allow_loopback=True)
    assert "link-local" in refuse_remote("fe80::1", 5000, ["169.254.1.1"], allow_loopback=True)


def test_loopback_addresses_are_for_a_relay_on_loopback() -> None:
    for address in ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"):
        assert "loopback" in refuse_remote(address, 5000, [], allow_loopback=False)
        assert not refuse_remote(address, 5000, [], allow_loopback=True)
    assert [is_loopback_url(f"ws://{host}:1/") for host in ("127.0.0.1", "[::1]", "localhost", "example.com")] == [
        *(True, True, True, False)
    ]


@pytest.mark.parametrize(
    ("port", "used"), [(53, False), (19, False), (1023, False), (443, True), (80, True), (1024, True)]
)
def test_ports_of_other_services_get_no_checks(port: int, used: bool) -> None:
    assert (refuse_remote("192.0.2.9", port, [], allow_loopback=False) == "") == used
