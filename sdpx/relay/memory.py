"""Give memory back: what a burst took, the allocator would keep for the next one."""

import ctypes
from collections.abc import Callable
from typing import Final

import trio

EVERY_SECONDS: Final = 5.0


async def trim_heap_periodically() -> None:
    """Ask the C library, for ever, to return what is free to the system; does nothing where it cannot (musl, macOS).

    Small frames in their thousands leave a heap full of holes, which glibc trims at its upper end only. It takes some 10 ms
    for the 100 MiB that a burst left, and a quarter of one when there is nothing to give.
    """
    trim = _trim()
    while trim is not None:
        await trio.sleep(EVERY_SECONDS)
        trim(0)


def _trim() -> Callable[[int], int] | None:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return None
