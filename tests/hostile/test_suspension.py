"""The relay itself is stopped while its clients run: SIGSTOP, as a laptop's lid or a paused virtual machine does."""

import signal
from typing import Final

import pytest
import trio

from tests.harness.frames import upgrade_request
from tests.hostile.attack import Attack, usable
from tests.hostile.conftest import ALL_SERVERS

pytestmark = pytest.mark.e2e
SERVERS: Final = ALL_SERVERS
OPTIONS: Final = (
    "--ping-interval",
    "0.5",
    "--idle-timeout",
    "1.5",
    "--resume-window",
    "1.5",
    "--handshake-timeout",
    "1.5",
)

STOPPED: Final = 2.6  # longer than all of these


async def test_clients_outlive_a_stopped_relay(attack: Attack) -> None:
    """Afterwards each is connected still, a suspended session can be resumed, and an event has the duration."""
    pairs = [await attack.paired() for _ in range(10)]
    lost = await attack.connect()
    token = (await lost.open("/?seq=1"))["resume_token"]
    await lost.stream.aclose()
    await attack.wait_for_events(1, "client_suspended")
    again = await attack.connect()
    attack.server.process.send_signal(signal.SIGSTOP)
    await again.send(upgrade_request(f"/?seq=1&resume={token}"))
    await trio.sleep(STOPPED)
    attack.server.process.send_signal(signal.SIGCONT)
    assert (await again.response())[0] == 101
    assert (await again.receive())["resumed"]
    await trio.sleep(1)
    for a, b in pairs:
        await usable(a, b)
    assert not attack.events("client_disconnected")
    suspended = attack.events("process_suspended")[0]
    assert suspended["ms"] == pytest.approx(STOPPED * 1000, abs=1000)
    attack.pair.slowest = 0.0  # of which the stop was a part
