"""Notifications to a service manager, received on a socket as systemd does."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from sdpx.events.serve import NotificationFailed
from sdpx.relay.service_manager import ServiceManager
from tests.harness.processes import relay

Errors = list[NotificationFailed]


def fail(event: NotificationFailed) -> None:
    pytest.fail(event.message())


class Received:
    """The socket of a service manager."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.bind(address)

    def all(self) -> list[str]:
        found = []
        while True:
            try:
                found.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return found


@pytest.fixture(params=["path", "abstract"])
def received(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Received]]:
    """The value of NOTIFY_SOCKET, and the socket there."""
    if request.param == "path":
        value = address = str(tmp_path / "notify")
    else:
        value = f"@sdpx-test-{os.getpid()}"
        address = f"\0{value[1:]}"
    manager = Received(address)
    with manager.socket:
        yield value, manager


def test_assignments_arrive_in_one_datagram(received: tuple[str, Received]) -> None:
    errors: Errors = []
    ServiceManager({"NOTIFY_SOCKET": received[0]}, errors.append).notify("READY=1", "STATUS=Listening")
    assert (received[1].all(), errors) == (["READY=1\nSTATUS=Listening"], [])


async def test_watchdog_is_reported_to_twice_in_its_time(
    received: tuple[str, Received], autojump_clock: trio.testing.MockClock
) -> None:
    watchdog = {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}
    manager = ServiceManager({"NOTIFY_SOCKET": received[0], **watchdog}, fail)
    with trio.move_on_after(59):
        await manager.run_watchdog()
    assert received[1].all() == ["WATCHDOG=1"] * 4


@pytest.mark.parametrize(
    "environ",
    [{}, {"WATCHDOG_USEC": "x"}, {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}],
    ids=["none", "invalid", "of_another_process"],
)
async def test_watchdog_that_watches_no_or_another_process_gets_no_report(
    received: tuple[str, Received], environ: dict[str, str]
) -> None:
    await ServiceManager(environ | {"NOTIFY_SOCKET": received[0]}, fail).run_watchdog()
    assert received[1].all() == []


async def test_watchdog_without_a_service_manager_is_not_reported_to() -> None:
    with trio.move_on_after(1) as late:
        await ServiceManager({"WATCHDOG_USEC": "1000"}, fail).run_watchdog()
    assert not late.cancelled_caught


def test_failed_notification_is_logged_and_raises_nothing(tmp_path: Path) -> None:
    errors: Errors = []
    ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "gone")}, errors.append).notify("READY=1")
    assert "No such file" in errors[0].message()


@pytest.mark.e2e
async def test_relay_reports_readiness_life_and_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manager = Received(str(tmp_path / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "60000000")
    with manager.socket:
        async with relay() as (server, url):
            seen: list[str] = []
            while len(seen) < 2:
                await trio.lowlevel.wait_readable(manager.socket)
                seen += manager.all()
            assert seen == [f"READY=1\nSTATUS=Listening on {url.removeprefix('ws://')}", "WATCHDOG=1"]
            assert await server.end() == 0
        assert manager.all() == ["STOPPING=1\nSTATUS=Closing connections"]
