"""When a worker that died is started again: at once the first time, later and later while it goes on dying."""

from __future__ import annotations

from collections import deque

_FIRST_S = 0.5
_LAST_S = 30.0
_HEALTHY_S = 3.0
_WINDOW_S = 60.0
_MANY = 5


class Restarts:
    """Back-off of one worker: 0.5 s doubling up to 30 s, from the start again after it was well for 3 s."""

    def __init__(self) -> None:
        self._delay = _FIRST_S

    def next_delay(self, healthy_s: float) -> float:
        """Seconds to wait before the next start of a worker that was ready for ``healthy_s`` seconds."""
        if healthy_s >= _HEALTHY_S:
            self._delay = _FIRST_S
        delay, self._delay = self._delay, min(self._delay * 2, _LAST_S)
        return delay


class CrashLoop:
    """Notices when workers die more than five times in a minute."""

    def __init__(self) -> None:
        self._times: deque[float] = deque()

    def add(self, now: float) -> bool:
        """Count a crash at a monotonic time; whether there were too many in the last minute."""
        self._times.append(now)
        while self._times[0] < now - _WINDOW_S:
            self._times.popleft()
        return len(self._times) > _MANY
