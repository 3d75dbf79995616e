"""What a component's method gives where no event loop waits for it: while it is loaded, and in tests."""

from __future__ import annotations

import asyncio
import inspect
from concurrent.futures import ThreadPoolExecutor
from typing import Any


def waited_for(result: Any) -> Any:
    """A method's result; of a coroutine function what its coroutine gives, run to its end on a loop of its own."""
    if not inspect.isawaitable(result):
        return result

    async def finish() -> Any:
        return await result

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(finish())
    with ThreadPoolExecutor(1) as other:  # in a notebook, whose own loop waits for this call
        return other.submit(asyncio.run, finish()).result()
