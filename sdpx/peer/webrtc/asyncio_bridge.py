"""The bridge from Trio to asyncio: the loop, and calls into it. Part of the wall."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import trio_asyncio

logger = logging.getLogger("aiortc")
T = TypeVar("T")


@asynccontextmanager
async def asyncio_loop() -> AsyncIterator[None]:
    """Run the asyncio loop that every connection needs. A task that dies unseen is logged as a library's error."""

    def on_fault(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        logger.error("%s: %r", context.get("message"), context.get("exception"))

    async with trio_asyncio.open_loop() as loop:
        loop.set_exception_handler(on_fault)
        yield


async def in_asyncio(function: Callable[..., T], *args: object) -> T:
    """Call a function in asyncio's world; returns what it returns."""

    async def call() -> T:
        return function(*args)

    result: T = await trio_asyncio.aio_as_trio(call)()
    return result
