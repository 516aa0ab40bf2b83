"""Returns free heap memory to the system."""

import ctypes
from typing import Final

import trio

TRIM_INTERVAL: Final = 5.0


async def trim_heap_periodically() -> None:
    """Call `malloc_trim` for ever; returns at once where the C library has none (musl, macOS).

    Thousands of small frames leave holes in the heap, which glibc by itself returns only at the upper end. A call takes 10 ms
    after a burst of 100 MiB, and 0.25 ms if there is nothing to return.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return
    while True:
        await trio.sleep(TRIM_INTERVAL)
        trim(0)
