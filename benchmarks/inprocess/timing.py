"""How one call is timed: the same loop for both sides. Standard library alone, since it runs in every environment."""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable

REPEATS = 5
CLOCK = time.perf_counter


def measure(call: Callable[[], object], seconds: float) -> dict[str, float]:
    """Microseconds a call: the best and the median of the repeats, each `seconds` long."""
    calls = 1
    while True:  # doubles as the warm-up; the better of two, so that one hiccup does not end it early
        took = min(_loop(call, calls), _loop(call, calls))
        if took >= seconds / 4:
            break
        calls *= 2
    calls = max(1, round(calls * seconds / took))
    return _summary([_loop(call, calls) / calls for _ in range(REPEATS)], calls)


async def measure_awaited(call: Callable[[], Awaitable[object]], seconds: float) -> dict[str, float]:
    """The same for a call that is awaited, one after the other in the running loop."""
    calls = 1
    while True:
        took = min(await _awaited_loop(call, calls), await _awaited_loop(call, calls))
        if took >= seconds / 4:
            break
        calls *= 2
    calls = max(1, round(calls * seconds / took))
    return _summary([await _awaited_loop(call, calls) / calls for _ in range(REPEATS)], calls)


def _loop(call: Callable[[], object], calls: int) -> float:
    start = CLOCK()
    for _ in range(calls):
        call()
    return CLOCK() - start


async def _awaited_loop(call: Callable[[], Awaitable[object]], calls: int) -> float:
    start = CLOCK()
    for _ in range(calls):
        await call()
    return CLOCK() - start


def _summary(means: list[float], calls: int) -> dict[str, float]:
    return {"best_us": min(means) * 1e6, "median_us": statistics.median(means) * 1e6, "calls": calls}
