"""Many requests on their way at once, so many at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

Thing = TypeVar("Thing")
Made = TypeVar("Made")


async def together(
    work: Callable[[Thing], Awaitable[Made]], things: Iterable[Thing], at_once: int = 16
) -> list[Made]:
    """What the work gives for each thing, in their order; the first error ends the others."""
    some = asyncio.Semaphore(at_once)

    async def one(thing: Thing) -> Made:
        async with some:
            return await work(thing)

    running = [asyncio.ensure_future(one(thing)) for thing in things]
    try:
        return await asyncio.gather(*running)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
