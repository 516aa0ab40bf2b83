"""Addresses and NATs."""

import pytest

from sdpx.doctor.network import describe_addresses, describe_nat, kind_of


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("192.168.1.2", "private"),
        ("100.64.0.1", "cgnat"),
        ("100.128.0.1", "public"),
        ("8.8.8.8", "public"),
        ("169.254.1.1", "link_local"),
        ("fe80::1%eth0", "link_local"),
        ("fd00::1", "unique_local"),
        ("2606:4700::1", "public"),
    ],
)
def test_addresses_have_kinds(address: str, kind: str) -> None:
    assert kind_of(address) == kind


def test_addresses_are_listed_with_interface_and_role() -> None:
    check = describe_addresses(
        {"lo": ["127.0.0.1", "::1"], "eth0": ["192.168.1.2"], "docker0": ["172.17.0.1"], "wg0": ["10.8.0.2"]}
    )
    assert check.result == "ok"
    assert check.sentence == "192.168.1.2 (private), 10.8.0.2 (private, vpn)"
    assert [(row["interface"], row["role"]) for row in check.evidence["addresses"]] == [
        ("eth0", "network"),
        ("docker0", "bridge"),
        ("wg0", "vpn"),
    ]


@pytest.mark.parametrize("others", [{}, {"docker0": ["172.17.0.1"]}, {"eth0": ["fe80::1"]}])
def test_machine_without_an_address_fails(others: dict[str, list[str]]) -> None:
    assert describe_addresses({"lo": ["127.0.0.1"], **others}).code == "no_network"


@pytest.mark.parametrize(
    ("seen", "kind", "result"),
    [
        ({"192.0.2.1:3478": "192.168.1.2:5000"}, "none", "ok"),
        ({"192.0.2.1:3478": "203.0.113.1:5000"}, "unknown", "ok"),
        ({"192.0.2.1:3478": "203.0.113.1:5000", "192.0.2.1:3479": "203.0.113.1:5000"}, "unknown", "ok"),
        ({"192.0.2.1:3478": "203.0.113.1:5000", "192.0.2.2:3478": "203.0.113.1:5000"}, "endpoint_independent", "ok"),
        ({"192.0.2.1:3478": "203.0.113.1:5000", "192.0.2.2:3478": "203.0.113.1:5001"}, "address_dependent", "warning"),
        ({"192.0.2.1:3478": "203.0.113.1:5000", "192.0.2.2:3478": "203.0.113.9:5000"}, "address_dependent", "warning"),
    ],
)
def test_kind_of_the_nat_follows_from_two_servers(seen: dict[str, str], kind: str, result: str) -> None:
    check = describe_nat(seen, ["192.168.1.2"])
    assert check is not None
    assert (check.evidence["kind"], check.result) == (kind, result)


def test_no_answer_says_nothing_about_the_nat() -> None:
    assert describe_nat({}, ["192.168.1.2"]) is None
