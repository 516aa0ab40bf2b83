"""`sdpx peer` at a terminal, as a person sees it: text, a prompt, Ctrl-D, and jobs of a shell in the background."""

import fcntl
import os
import pty
import struct
import sys
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pyte
import pytest
import trio

from sdpx.child_process import environment
from tests.harness.processes import Program, peer, relay

pytestmark = pytest.mark.e2e

SDPX = [sys.executable, "-m", "sdpx"]


class Terminal:
    """A pseudo-terminal with a program in it."""

    def __init__(self, process: trio.Process, fd: int) -> None:
        self.process = process
        self.fd = fd
        self.screen = b""
        self.columns = 80

    def resize(self, columns: int) -> None:
        self.columns = columns
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self.fd, keys)

    @property
    def rows(self) -> list[str]:
        """The rows of the screen that are not empty; the last one up to the cursor."""
        screen = pyte.Screen(self.columns, 24)
        pyte.ByteStream(screen).feed(self.screen)
        return [*(row for each in screen.display[: screen.cursor.y] if (row := each.rstrip())), self._last_row(screen)]

    @staticmethod
    def _last_row(screen: pyte.Screen) -> str:
        assert not any(row.strip() for row in screen.display[screen.cursor.y + 1 :]), screen.display
        return screen.display[screen.cursor.y][: screen.cursor.x]

    async def read_until(self, words: bytes) -> None:
        while words not in self.screen:
            await trio.lowlevel.wait_readable(self.fd)
            self.read()

    def read(self) -> None:
        self.screen += os.read(self.fd, 65_536)


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


@asynccontextmanager
async def conversation() -> AsyncIterator[tuple[Terminal, Program]]:
    """Yield a terminal with an `sdpx peer` that has an open channel to bob, and bob."""
    async with (
        relay() as (_, url),
        peer(url, "--id", "bob") as (bob, _),
        terminal(*SDPX, "peer", "bob", "--url", url, "--no-stun") as person,
    ):
        await person.read_until(b"you> ")
        yield person, bob


async def test_peer_at_a_terminal_shows_text_and_a_prompt_and_leaves_on_ctrl_d() -> None:
    """Lines that are typed are messages; there is no JSON; the exit status is 0."""
    async with conversation() as (person, bob):
        person.type(b"hello\n")
        await bob.wait_for("channel_message", text="hello")
        await bob.say("hi there")
        await person.read_until(b"bob> hi there\r\n")
        person.type(b"\x04")
        await bob.wait_for("ready")
        assert await person.process.wait() == 0
        assert b"paired with bob" in person.screen
        assert b'{"ts"' not in person.screen


async def test_message_that_comes_while_a_line_is_typed_leaves_it_on_the_screen() -> None:
    """Also on the last row of the screen, and if the message takes several rows; the line can be edited, and is sent."""
    async with conversation() as (person, bob):
        person.resize(40)
        person.type(b"half a linx")
        for count in range(30):
            await bob.say(f"message {count}")
        await bob.say("wide \u4f60\u597d " * 10)
        await bob.say("the last one")
        await person.read_until(b"the last one")
        with trio.move_on_after(30):
            while person.rows[-2:] != ["bob> the last one", "you> half a linx"]:
                await trio.lowlevel.wait_readable(person.fd)
                person.read()
        rows = person.rows
        assert rows[-2:] == ["bob> the last one", "you> half a linx"], person.screen
        assert rows[-6:-5] == ["bob> message 29"]
        assert "".join(rows[-5:-2]).replace(" ", "") == "bob>" + "wide\u4f60\u597d" * 10
        person.type(b"\x7fe\n")
        await bob.wait_for("channel_message", text="half a line")


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


async def test_pipe_at_a_terminal_warns_that_the_certificate_is_not_verified() -> None:
    async with terminal(*SDPX, "pipe", "--url", "wss://127.0.0.1:1", "--insecure", "--no-stun") as person:
        await person.read_until(b"TLS certificate verification is disabled")
