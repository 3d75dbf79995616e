"""Several branches at the same time: the first failure in their order counts, and ends those behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


async def together(work: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """What several coroutines give, in their order.

    When one fails, those behind it are cancelled; those before it may still fail and then count. None is left
    running.

    Raises:
        Exception: what the first of them in order raised.
    """
    tasks = [asyncio.ensure_future(coroutine) for coroutine in work]
    for index, task in enumerate(tasks):
        task.add_done_callback(_ends(tasks[index + 1 :]))
    try:
        return [await task for task in tasks]
    finally:
        if not all(task.done() for task in tasks):
            for task in tasks:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _ends(later: Sequence[asyncio.Future[T]]) -> Callable[[asyncio.Future[T]], None]:
    def ended(task: asyncio.Future[T]) -> None:
        if task.cancelled() or task.exception() is not None:
            for other in later:
                other.cancel()

    return ended
