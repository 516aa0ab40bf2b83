"""Notifications to a service manager, such as systemd, by the protocol of sd_notify(3); none without NOTIFY_SOCKET."""

import os
import socket
from collections.abc import Callable, Mapping

import trio

from sdpx.errors import describe_os_error
from sdpx.events.serve import NotificationFailed


class ServiceManager:
    """The service manager that started this process: it is notified when the relay is ready, stops, and runs.

    A notification that fails is logged, and the relay goes on.
    """

    def __init__(self, environ: Mapping[str, str], log_event: Callable[[NotificationFailed], None]) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        self._log_event = log_event
        is_watched = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        microseconds = environ.get("WATCHDOG_USEC", "")
        self.watchdog_seconds = int(microseconds) / 1e6 if is_watched and microseconds.isdecimal() else 0.0

    def notify(self, *assignments: str) -> None:
        """Send assignments such as `READY=1`."""
        if not self._address:
            return
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as notifications:
                notifications.sendto("\n".join(assignments).encode(), address)
        except OSError as error:
            self._log_event(NotificationFailed(describe_os_error(error)))

    async def run_watchdog(self) -> None:
        """Report for ever that the event loop runs, twice in the time that the watchdog allows; returns if there is none."""
        while self._address and self.watchdog_seconds:
            self.notify("WATCHDOG=1")
            await trio.sleep(self.watchdog_seconds / 2)
