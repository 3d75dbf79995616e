"""Tracking of a batch: no faster than its stream takes records, and a record at the end that the batch is complete."""

from __future__ import annotations

import datetime as dt
import logging
from typing import Any, Final

from servegraph.errors import StreamError
from servegraph.runtimes.server import GraphServer
from servegraph.streams import Record, open_stream

logger = logging.getLogger("servegraph.batch")

FLUSH_S: Final = 30.0


class BatchTracking:
    """What a run does for the tracking of its server; nothing where predictions are not recorded."""

    def __init__(self, server: GraphServer) -> None:
        self._server = server
        self._recorder = server.recorder
        tracking = server.function.spec.tracking
        self._tracking = tracking if self._recorder is not None else None
        queue = self._tracking.max_queue if self._tracking is not None else 0
        self._every = max(1, queue // 8)
        self._most = queue // 2
        self._since = 0

    def pace(self, rows: int) -> None:
        """Wait for the stream when half of the records' queue is used: a batch has the time, and records that do not
        fit are lost. A stream that does not keep up within half a minute is waited for no more.
        """
        if self._recorder is None:
            return
        self._since += rows
        if self._since < self._every:
            return
        self._since = 0
        if self._recorder.stats.queued > self._most and not self._server.flush(FLUSH_S):
            logger.warning("batch: the tracking stream does not keep up; records that find no room will be lost")
            self._every = 2**63

    def complete(self, first: dt.datetime, last: dt.datetime, model: str | None) -> None:
        """Write what was recorded, then a ``batch_complete`` record for each model. Failures are logged.

        Args:
            first: the time of the earliest row.
            last: the time of the latest row.
            model: the only model (its key among the server's) that got rows; ``None`` for all of the graph.
        """
        if self._recorder is None or self._tracking is None:
            return
        if not self._server.flush(FLUSH_S):
            logger.warning("batch: the tracking stream has not taken all records")
        records = self._records(first, last, model)
        stream = self._recorder.stream
        try:
            if stream is not None:
                stream.push(records)
            else:
                with open_stream(self._recorder.uri, **self._tracking.stream_args) as own:
                    own.push(records)
        except StreamError as exc:
            logger.warning("batch: the record that the batch is complete could not be written: %s", exc)

    @property
    def lost(self) -> int:
        """Records that could not be written."""
        return 0 if self._recorder is None else self._recorder.stats.dropped + self._recorder.stats.failed

    def _records(self, first: dt.datetime, last: dt.datetime, model: str | None) -> list[Record]:
        context = self._server.context
        base = {
            "kind": "batch_complete",
            "project": context.project,
            "function_uri": context.function_uri,
            "first_timestamp": _text(first),
            "last_timestamp": _text(last),
            "batch_completion_time": _text(dt.datetime.now(dt.UTC)),
        }
        chosen: list[Any] = [m for k, m in self._server.models.items() if model is None or k == model]
        endpoints = [
            ({"endpoint_id": m.model_endpoint_uid, "model": m.name, "version": m.version}, m.model_endpoint_uid)
            for m in chosen
        ]
        return [Record({**base, **more}, key or None) for more, key in endpoints or [({"endpoint_id": ""}, "")]]


def _text(when: dt.datetime) -> str:
    """A time as tracking records hold it."""
    return when.astimezone(dt.UTC).isoformat(sep=" ", timespec="microseconds")
