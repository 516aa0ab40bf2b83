"""The other WebRTC stacks: which there are, what each needs, how its process is started and ended."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from tests.harness.processes import environment
from tests.interop.stage import HERE, Stage, stage

PACKAGES: Final = HERE.parent.parent / ".interop"
JOIN_SECONDS: Final = 40.0
END_SECONDS: Final = 5.0
SETUP: Final = "run 'just setup-interop'"

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

# What would reach out to the network, or stop for a person, at a first start.
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
    return [_found("chromium"), *CHROMIUM_FLAGS, *hiding, f"--user-data-dir={profile}", url]


def _firefox(url: str, profile: Path, *, mdns: bool) -> list[str]:
    preferences = FIREFOX_PREFERENCES | {"media.peerconnection.ice.obfuscate_host_addresses": mdns}
    lines = [f'user_pref("{name}", {_literal(value)});\n' for name, value in preferences.items()]
    (profile / "user.js").write_text("".join(lines))
    return [_found("firefox"), "--headless", "--no-remote", "--profile", str(profile), url]


def _literal(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else f'"{value}"'


def _node(stack: str) -> Callable[[str, Path], list[str]]:
    return lambda url, _profile: [_found("node"), str(HERE / "node.mjs"), str(PACKAGES), stack, url]


def _gstreamer(url: str, _profile: Path) -> list[str]:
    return [SYSTEM_PYTHON, str(HERE / "gstreamer.py"), url]


PROGRAMS: Final = {"chromium": ("chromium",), "firefox": ("firefox-esr", "firefox"), "node": ("node",)}


def _found(program: str) -> str:
    return next(filter(None, map(shutil.which, PROGRAMS[program])), "")


def _no_program(program: str) -> str | None:
    return None if _found(program) else f"there is no {PROGRAMS[program][0]} on the PATH"


def _no_package(name: str) -> str | None:
    if flaw := _no_program("node"):
        return flaw
    return None if (PACKAGES / "node_modules" / name).is_dir() else f"npm's {name} is not in {PACKAGES.name}/"


def _no_gstreamer() -> str | None:
    if not Path(SYSTEM_PYTHON).exists():
        return f"there is no {SYSTEM_PYTHON}"
    probe = subprocess.run([SYSTEM_PYTHON, str(HERE / "gstreamer.py")], capture_output=True, text=True, check=False)
    return probe.stderr.strip().rpartition("\n")[2] if probe.returncode else None


@dataclass(frozen=True)
class Stack:
    """A WebRTC stack: `command(url, profile)` starts it, `lack()` says what is missing here, if something is."""

    name: str
    command: Callable[[str, Path], list[str]]
    lack: Callable[[], str | None]


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
def lack(name: str) -> str | None:
    """Return what is missing for a stack, with what to do about it; None if nothing is."""
    flaw = STACKS[name].lack()
    return f"no {name} to meet: {flaw}; {SETUP}" if flaw else None


@contextmanager
def relay_process() -> Iterator[str]:
    """Run one `sdpx serve` for many meetings; yields its URL. Of its log only the first line is read: it can bear that."""
    command = [sys.executable, "-m", "sdpx", "serve", "--port", "0", "--log-level", "info"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment()) as process:
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())["url"]
        finally:
            process.kill()


@contextmanager
def started(name: str) -> Iterator[Stage]:
    """Start a stack's process, with a fresh profile, and wait until it asks for its first scene."""
    with stage() as made, tempfile.TemporaryDirectory(prefix="sdpx-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        log = home / "log"
        (home / "profile").mkdir()
        command = STACKS[name].command(made.url, home / "profile")
        with log.open("wb") as output, _process(command, output.fileno(), home) as process:
            watch = threading.Thread(target=_watch, args=(process, made, name, log))
            watch.start()
            try:
                if not made.joined.wait(JOIN_SECONDS) or made.dead:
                    raise RuntimeError(made.dead or f"{name} did not come within {JOIN_SECONDS:g} s: {_tail(log)}")
                yield made
            finally:
                made.dismiss()
                _end_group(process)
                watch.join()


def _watch(process: "subprocess.Popen[bytes]", made: Stage, name: str, log: Path) -> None:
    status = process.wait()
    made.bury(f"the process of {name} ended with status {status}: {_tail(log)}")


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:]


@contextmanager
def _process(command: list[str], output: int, home: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a process in a group of its own, which is ended as a whole: a browser is a dozen processes."""
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
