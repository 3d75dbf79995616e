"""Where a server's own output goes: queues of a graph, and the error stream."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from servegraph.monitoring.tap import Tap
from servegraph.streams import OutputStream, Record, open_stream


class QueueWriter:
    """Writes the events that reach a queue to its stream; opened with the first one."""

    def __init__(self, uri: str, **options: Any) -> None:
        self.uri = uri
        self._options = options
        self._stream: OutputStream | None = None
        self._opening = threading.Lock()

    def push_data(self, data: Any, key: str | None = None) -> None:
        """Write one event's data, before this returns; raises `StreamError` when that fails."""
        if self._stream is None:
            with self._opening:
                if self._stream is None:
                    self._stream = open_stream(self.uri, **self._options)
        self._stream.push([Record(data, key=key)])

    def close(self) -> None:
        """Write what is left and close the stream."""
        if self._stream is not None:
            self._stream.close()


class ErrorSink:
    """Takes the records of failed steps to the error stream, behind the requests."""

    def __init__(self, uri: str) -> None:
        self._tap = Tap(lambda: open_stream(uri), flush_interval_s=0.2)

    def put(self, record: Mapping[str, Any]) -> None:
        """Hand a record over; never waits."""
        self._tap.put(Record(dict(record)))

    def close(self) -> None:
        """Write what is left."""
        self._tap.close(5.0)
