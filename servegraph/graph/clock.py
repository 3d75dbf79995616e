"""The text of a time, as responses and tracking records hold it."""

from __future__ import annotations

import time

_second: tuple[int, str] = (-1, "")
_last: tuple[int, str] = (-1, "")


def timestamp(when_ns: int) -> str:
    """A time as MLRun writes it: ``YYYY-mm-dd HH:MM:SS.ffffff+00:00``, UTC.

    Args:
        when_ns: nanoseconds since 1970.
    """
    # A call's response and its record ask for the same time; the text of a second serves many calls.
    global _second, _last
    last, text = _last
    if last == when_ns:
        return text
    seconds, rest = divmod(when_ns, 1_000_000_000)
    cached, start = _second
    if cached != seconds:
        start = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))
        _second = (seconds, start)
    text = f"{start}.{rest // 1000:06d}+00:00"
    _last = (when_ns, text)
    return text
