"""`sdpx peer` at a terminal, as a person sees it: text, a prompt, Ctrl-D, and jobs of a shell in the background."""

import os
import pty
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from sdpx.child_process import environment
from tests.harness.processes import peer, relay

pytestmark = pytest.mark.e2e

SDPX = [sys.executable, "-m", "sdpx"]


class Terminal:
    """A pseudo-terminal with a program in it."""

    def __init__(self, process: trio.Process, fd: int) -> None:
        self.process = process
        self._fd = fd
        self.screen = b""

    def type(self, keys: bytes) -> None:
        os.write(self._fd, keys)

    async def read_until(self, words: bytes) -> None:
        while words not in self.screen:
            await trio.lowlevel.wait_readable(self._fd)
            self.screen += os.read(self._fd, 65_536)


@asynccontextmanager
async def terminal(*command: str) -> AsyncIterator[Terminal]:
    """Start a program that has a terminal of its own, as its controlling one; it is killed at the end of the block."""
    ours, theirs = pty.openpty()
    variables = environment() | {"TERM": "xterm", "PS1": "$ "}
    attach = (
        "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execvp(sys.argv[1], sys.argv[1:])"
    )
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            process = await nursery.start(
                lambda task_status: trio.run_process(
                    [sys.executable, "-c", attach, *command],
                    stdin=theirs,
                    stdout=theirs,
                    stderr=theirs,
                    check=False,
                    env=variables,
                    start_new_session=True,
                    task_status=task_status,
                )
            )
            os.close(theirs)
            try:
                yield Terminal(process, ours)
            finally:
                process.kill()
                os.close(ours)


async def test_peer_at_a_terminal_shows_text_and_a_prompt_and_leaves_on_ctrl_d() -> None:
    """Lines that are typed are messages; there is no JSON; the exit status is 0."""
    async with (
        relay() as (_, url),
        peer(url, "--id", "bob") as (bob, _),
        terminal(*SDPX, "peer", "bob", "--url", url, "--no-stun") as person,
    ):
        await person.read_until(b"you> ")
        person.type(b"hello\n")
        await bob.wait_for("channel_message", text="hello")
        await bob.say("hi there")
        await person.read_until(b"bob> hi there\r\n")
        person.type(b"\x04")
        await bob.wait_for("ready")
        assert await person.process.wait() == 0
        assert b"paired with bob" in person.screen
        assert b'{"ts"' not in person.screen


async def test_background_job_of_a_shell_is_not_stopped_and_reads_again_in_the_foreground() -> None:
    """The job has no input meanwhile: `sdpx peer &`, then `fg`."""
    async with (
        relay() as (_, url),
        peer(url, "--id", "bob") as (bob, _),
        terminal("bash", "--norc", "-i") as shell,
    ):
        await shell.read_until(b"$ ")
        shell.type(f"{' '.join(SDPX)} peer bob --url {url} --no-stun &\n".encode())
        await bob.wait_for("channel_open")
        await trio.sleep(0.2)
        shell.type(b"jobs\n")
        await shell.read_until(b"Running ")
        shell.type(b"fg\n")
        await shell.read_until(b"fg\r\n")
        await trio.sleep(0.2)
        shell.type(b"hello\n")
        await bob.wait_for("channel_message", text="hello")
