"""Network paths with a delay and loss: two network namespaces, each with a TUN device, joined by link.c. Linux, as root."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).with_name("link.c")
NAMESPACES: Final = ("sdpx0", "sdpx1")
ADDRESSES: Final = ("198.18.0.1", "198.18.0.2")  # RFC 2544
Prefixes = tuple[tuple[str, ...], tuple[str, ...]]


def missing() -> str | None:
    """Return why there can be no paths; None if there can."""
    for program in ("cc", "ip"):
        if shutil.which(program) is None:
            return f"there is no program '{program}'"
    probe = subprocess.run(["ip", "netns", "add", "sdpx-probe"], capture_output=True, text=True, check=False)
    if probe.returncode:
        return f"there are no network namespaces: {probe.stderr.strip()}"
    run("ip", "netns", "delete", "sdpx-probe")
    return None if Path("/dev/net/tun").exists() else "there is no /dev/net/tun"


def run(*command: str) -> None:
    subprocess.run(command, check=True)


@contextmanager
def path(folder: Path, delay_ms: float, loss_percent: float, seed: int) -> Iterator[Prefixes]:
    """Yield the prefixes of commands at both ends of a path, with this delay and loss in each direction."""
    program = folder / "link"
    if not program.exists():
        run("cc", "-O2", "-o", str(program), str(SOURCE))
    arguments = [str(program), str(delay_ms), str(loss_percent), str(seed)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as link:
        assert link.stdout is not None
        assert link.stdin is not None
        if not link.stdout.readline():
            raise RuntimeError("the path could not be built; see the error above")
        try:
            for name, own, other in zip(NAMESPACES, ADDRESSES, ADDRESSES[::-1], strict=True):
                run("ip", "netns", "add", name)
                run("ip", "link", "set", name, "netns", name)
                within = ("ip", "-n", name)
                run(*within, "link", "set", "lo", "up")
                run(*within, "address", "add", own, "peer", other, "dev", name)
                run(*within, "link", "set", name, "up", "txqueuelen", "10000")
            yield tuple(("ip", "netns", "exec", name) for name in NAMESPACES)  # type: ignore[misc]
        finally:
            for name in NAMESPACES:
                subprocess.run(["ip", "netns", "delete", name], check=False)
            link.stdin.close()
