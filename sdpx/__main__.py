"""Entry point of the command `sdpx`, and of `python -m sdpx`."""

import gc
import os
import runpy
import signal
import sys
from types import FrameType

__all__ = ["main"]


def main() -> None:
    """Run the command line. A signal that comes before the program handles signals ends the process.

    The kernel ignores signals without a handler for process 1 of a container, and Python reports SIGINT by a traceback.
    """
    gc.disable()  # until `end_loading`
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _exit)
    if getattr(sys, "frozen", False) and sys.argv[1:2] == [
        "-m"
    ]:  # one executable file runs its own modules as Python does
        module = sys.argv[2]
        del sys.argv[1:3]
        if module != "sdpx":
            runpy.run_module(module, run_name="__main__")
            return
    from sdpx.cli.app import main as run_command_line  # noqa: PLC0415  takes a noticeable part of a second

    run_command_line()


def _exit(number: int, _: FrameType | None) -> None:
    os._exit(128 + number)


if __name__ == "__main__":
    main()
