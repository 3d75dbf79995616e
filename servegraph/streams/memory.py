"""``dummy://[name]``: records kept in memory, for tests and notebooks."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

from servegraph import jsoncodec
from servegraph.errors import StreamError
from servegraph.streams.base import Encoded, OutputStream, Record, count

DEFAULT_MAX_RECORDS = 10_000


class _Log:
    """The records behind a name; every stream of that name writes to it."""

    def __init__(self, max_records: int) -> None:
        self.lock = threading.Lock()
        self.records: deque[Record] = deque(maxlen=max_records)
        self.max_records = max_records
        self.dropped = 0

    def extend(self, records: Sequence[Record]) -> None:
        with self.lock:
            room = self.max_records - len(self.records)
            self.records.extend(records)
            self.dropped += max(0, len(records) - room)


_named: dict[str, _Log] = {}


class MemoryStream(OutputStream):
    """Records in memory, the newest ``max_records`` of them.

    Streams of the same name in one process share their records, which stay when a stream is closed.
    Data is kept as a reader of a real stream would decode it, so a later change to it does not show.
    """

    records_a_push = 5000

    def __init__(self, uri: str, *, max_records: int | None = None) -> None:
        super().__init__(uri)
        if max_records is not None:
            count(max_records, "max_records", uri)
        name = uri.partition("://")[2]
        self._log = _named_log(name, max_records, uri) if name else _Log(max_records or DEFAULT_MAX_RECORDS)

    @property
    def records(self) -> list[Record]:
        """The records now held, oldest first."""
        with self._log.lock:
            return list(self._log.records)

    @property
    def event_list(self) -> list[object]:
        """The data of the records now held, oldest first."""
        return [record.data for record in self.records]

    @property
    def dropped(self) -> int:
        """How many of the oldest records made room for newer ones."""
        return self._log.dropped

    def clear(self) -> None:
        """Forget all records of this name, and their drop count."""
        with self._log.lock:
            self._log.records.clear()
            self._log.dropped = 0

    def _write(self, batch: Sequence[Encoded]) -> None:
        self._log.extend([_as_read(record, payload) for record, payload in batch])

    def _forget(self) -> None:
        self._log.lock = threading.Lock()


def _as_read(record: Record, payload: bytes) -> Record:
    data = payload if record.is_bytes else jsoncodec.loads(payload)
    return Record(data, record.key, dict(record.headers) if record.headers is not None else None)


def _named_log(name: str, max_records: int | None, uri: str) -> _Log:
    log = _named.setdefault(name, _Log(max_records or DEFAULT_MAX_RECORDS))
    if max_records is not None and max_records != log.max_records:
        raise StreamError(f"{uri} is open with max_records={log.max_records}; it cannot be {max_records} as well")
    return log
