"""Results of checks: exit status, summary, report."""

from typing import Any, Final

import pytest

from sdpx.doctor.check import Check, exit_status, passed, problem, refused, shorten_addresses, skipped, summarize
from sdpx.errors import Ending, ExitStatus
from sdpx.remedies import REMEDIES

OK = passed("tcp", "relay:443", "1 ms")
WARNING = problem("clock", "relay", "clock_skew", "60 s behind")
FAILED = problem("turn", "turn:relay", "turn_refused", "It answered 401")
REFUSED = refused("upgrade", "relay", Ending("unauthorized", "A token is needed (--token)", ExitStatus.REFUSED))
SKIPPED = skipped("tls", "relay", "ws://")


@pytest.mark.parametrize(
    ("checks", "status"),
    [
        ([OK, SKIPPED], ExitStatus.OK),
        ([OK, WARNING], ExitStatus.WARNINGS),
        ([WARNING, REFUSED, FAILED], ExitStatus.REFUSED),
        ([FAILED, REFUSED], ExitStatus.ICE_FAILED),
    ],
)
def test_exit_status_is_that_of_the_first_failure_and_14_for_warnings(checks: list[Check], status: ExitStatus) -> None:
    assert exit_status(checks) is status


@pytest.mark.parametrize(
    ("checks", "sentence"),
    [
        ([OK, SKIPPED], "No problem found"),
        ([WARNING, FAILED], "Failed: turn turn:relay. First: check user name and password"),
        ([REFUSED, FAILED], "Failed: upgrade relay (1 more). First: a token is needed (--token)"),
        ([OK, WARNING], "Warning: clock relay. First: synchronize the clocks"),
    ],
)
def test_summary_says_what_to_do_first(checks: list[Check], sentence: str) -> None:
    assert summarize(checks).startswith(sentence)


def test_every_remedy_is_a_clause_that_fits_behind_a_colon() -> None:
    for code, remedy in REMEDIES.items():
        assert remedy.remedy[0].islower(), code
        assert not remedy.remedy.endswith("."), code
        assert (remedy.result == "failed") <= (remedy.status is not ExitStatus.OK), code


SHORTENED: Final = [
    ("It sees ipv4: 203.0.113.7:40000", "It sees ipv4: 203.0.x.x:40000"),
    ("203.0.113.7,198.51.100.4 10.0.0.1", "203.0.x.x,198.51.x.x 10.0.x.x"),
    ("[2001:db8:1:2::3]:3478 of 2001:db8::9", "[2001:db8::x]:3478 of 2001:db8::x"),
    ("127.0.0.1 and ::1", None),
    ("ws://203.0.113.7:8765/signal", "ws://203.0.x.x:8765/signal"),
    ("10:20:30 is a time, and 1.2.3 a version", None),
]  # the page has the same function


@pytest.mark.parametrize(
    ("value", "shortened"),
    [
        *SHORTENED,
        ("fe80::1%eth0, 127.0.0.1 and ::1", "fe80:0::x%eth0, 127.0.0.1 and ::1"),
        ("300.1.1.1 is no address", None),
        ({"a": ["192.0.2.1"], "n": 5, "198.51.100.4": None}, {"a": ["192.0.x.x"], "n": 5, "198.51.x.x": None}),
    ],
)
def test_report_has_shortened_addresses(value: Any, shortened: Any) -> None:
    assert shorten_addresses(value) == (value if shortened is None else shortened)
