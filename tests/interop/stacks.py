"""The other WebRTC stacks: the requirements of each, and the start and the end of its process."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from tests.harness.processes import environment
from tests.harness.programs import PACKAGES, SETUP
from tests.interop.control import HERE, ControlServer, control_server

JOIN_SECONDS: Final = 40.0
END_SECONDS: Final = 5.0

# The system's own Python has the bindings that apt installs.
SYSTEM_PYTHON: Final = "/usr/bin/python3"

CHROMIUM_FLAGS: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--mute-audio",
)
SHOW_ADDRESSES: Final = "--disable-features=WebRtcHideLocalIpsWithMdns"

# Turn off network access and questions at the first start.
FIREFOX_PREFERENCES: Final[dict[str, object]] = {
    "app.normandy.enabled": False,
    "app.update.enabled": False,
    "browser.aboutwelcome.enabled": False,
    "browser.newtabpage.enabled": False,
    "browser.region.update.enabled": False,
    "browser.safebrowsing.downloads.enabled": False,
    "browser.safebrowsing.malware.enabled": False,
    "browser.safebrowsing.phishing.enabled": False,
    "browser.search.update": False,
    "browser.shell.checkDefaultBrowser": False,
    "browser.startup.homepage_override.mstone": "ignore",
    "datareporting.policy.dataSubmissionEnabled": False,
    "extensions.systemAddon.update.enabled": False,
    "extensions.update.enabled": False,
    "media.gmp-manager.updateEnabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "services.settings.server": "http://127.0.0.1:9",
    "startup.homepage_welcome_url": "",
    "toolkit.telemetry.enabled": False,
    "toolkit.telemetry.reportingpolicy.firstRun": False,
}


def _chromium(url: str, profile: Path, *, mdns: bool) -> list[str]:
    hiding = () if mdns else (SHOW_ADDRESSES,)
    return [_find("chromium"), *CHROMIUM_FLAGS, *hiding, f"--user-data-dir={profile}", url]


def _firefox(url: str, profile: Path, *, mdns: bool) -> list[str]:
    preferences = FIREFOX_PREFERENCES | {"media.peerconnection.ice.obfuscate_host_addresses": mdns}
    lines = [f'user_pref("{name}", {_literal(value)});\n' for name, value in preferences.items()]
    (profile / "user.js").write_text("".join(lines))
    return [_find("firefox"), "--headless", "--no-remote", "--profile", str(profile), url]


def _literal(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else f'"{value}"'


def _node(stack: str) -> Callable[[str, Path], list[str]]:
    return lambda url, _profile: [_find("node"), str(HERE / "node.mjs"), str(PACKAGES), stack, url]


def _gstreamer(url: str, _profile: Path) -> list[str]:
    return [SYSTEM_PYTHON, str(HERE / "gstreamer.py"), url]


PROGRAMS: Final = {"chromium": ("chromium",), "firefox": ("firefox-esr", "firefox"), "node": ("node",)}


def _find(program: str) -> str:
    return next(filter(None, map(shutil.which, PROGRAMS[program])), "")


def _no_program(program: str) -> str | None:
    return None if _find(program) else f"{PROGRAMS[program][0]} is not on the PATH"


def _no_package(name: str) -> str | None:
    if problem := _no_program("node"):
        return problem
    return None if (PACKAGES / "node_modules" / name).is_dir() else f"npm's {name} is not in {PACKAGES.name}/"


def _no_gstreamer() -> str | None:
    if not Path(SYSTEM_PYTHON).exists():
        return f"{SYSTEM_PYTHON} does not exist"
    probe = subprocess.run([SYSTEM_PYTHON, str(HERE / "gstreamer.py")], capture_output=True, text=True, check=False)
    return probe.stderr.strip().rpartition("\n")[2] if probe.returncode else None


@dataclass(frozen=True)
class Stack:
    """A WebRTC stack: `command(url, profile)` starts it, `missing()` returns the part that is not installed, or None."""

    name: str
    command: Callable[[str, Path], list[str]]
    missing: Callable[[], str | None]


STACKS: Final = {
    stack.name: stack
    for stack in (
        Stack("chromium", lambda *at: _chromium(*at, mdns=False), lambda: _no_program("chromium")),
        Stack("firefox", lambda *at: _firefox(*at, mdns=False), lambda: _no_program("firefox")),
        Stack("werift", _node("werift"), lambda: _no_package("werift")),
        Stack("node-datachannel", _node("node-datachannel"), lambda: _no_package("node-datachannel")),
        Stack("wrtc", _node("wrtc"), lambda: _no_package("@roamhq/wrtc")),
        Stack("gstreamer", _gstreamer, _no_gstreamer),
        Stack("chromium-mdns", lambda *at: _chromium(*at, mdns=True), lambda: _no_program("chromium")),
        Stack("firefox-mdns", lambda *at: _firefox(*at, mdns=True), lambda: _no_program("firefox")),
    )
}


@cache
def missing(name: str) -> str | None:
    """Return the part of a stack that is not installed, and the remedy; None if it can run."""
    problem = STACKS[name].missing()
    return f"{name} cannot run: {problem}; {SETUP}" if problem else None


@contextmanager
def relay_process() -> Iterator[str]:
    """Run one `sdpx serve` for all scenarios; yields its URL. A relay that ends before its time is an error, with its log."""
    command = [sys.executable, "-m", "sdpx", "serve", "--port", "0", "--log-level", "info"]
    with tempfile.TemporaryDirectory(prefix="sdpx-") as folder:
        log = Path(folder) / "log"
        with (
            log.open("wb") as output,
            subprocess.Popen(command, stdout=output, stderr=output, env=environment()) as relay,
        ):
            try:
                yield _listening_url(relay, log)
                status = relay.poll()
            finally:
                relay.kill()
        if status is not None:
            raise RuntimeError(f"the relay ended with status {status}: {_tail(log)}")


def _listening_url(relay: "subprocess.Popen[bytes]", log: Path) -> str:
    """Wait until the relay listens, and return its URL."""
    deadline = time.monotonic() + JOIN_SECONDS
    while relay.poll() is None and time.monotonic() < deadline:
        for line in log.read_text().splitlines(keepends=True):
            if line.endswith("}\n") and (event := json.loads(line))["event"] == "server_listening":
                return str(event["url"])
        time.sleep(0.02)
    raise RuntimeError(f"the relay did not start: {_tail(log)}")


@contextmanager
def running_stack(name: str) -> Iterator[ControlServer]:
    """Start the process of a stack, with a new profile, and wait until it requests its first scenario."""
    with control_server() as control, tempfile.TemporaryDirectory(prefix="sdpx-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        log = home / "log"
        (home / "profile").mkdir()
        command = STACKS[name].command(control.url, home / "profile")
        with log.open("wb") as output, _process(command, output.fileno(), home) as process:
            watch = threading.Thread(target=_watch_process, args=(process, control, name, log))
            watch.start()
            try:
                if not control.connected.wait(JOIN_SECONDS) or control.failure:
                    raise RuntimeError(
                        control.failure or f"{name} did not connect within {JOIN_SECONDS:g} s: {_tail(log)}"
                    )
                yield control
            finally:
                control.close()
                _end_group(process)
                watch.join()


def _watch_process(process: "subprocess.Popen[bytes]", control: ControlServer, name: str, log: Path) -> None:
    status = process.wait()
    control.fail_all(f"the process of {name} ended with status {status}: {_tail(log)}")


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:]


@contextmanager
def _process(command: list[str], output: int, home: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a process in its own process group, which is ended as a whole: a browser has a dozen processes."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env=os.environ | {"HOME": str(home)},
        start_new_session=True,
    )
    try:
        yield process
    finally:
        _end_group(process)


def _end_group(process: "subprocess.Popen[bytes]") -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            continue
    process.wait()
