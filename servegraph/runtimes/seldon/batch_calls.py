"""Sends the lines of a batch: tries again what may succeed, and makes one outcome for each line."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from servegraph import jsoncodec
from servegraph.runtimes.seldon.batch_options import SeldonBatchOptions
from servegraph.runtimes.seldon.batch_rows import Group, Row, alone, cut, grouped
from servegraph.serving.seldon.client import SeldonClient, SeldonClientException
from servegraph.serving.seldon.client.results import Result

FAILURE_START: Final = b'{"status":{"info":"FAILURE"'
"""How the output of every failed line begins, and of no other."""
_FIRST_WAIT_S: Final = 0.1
_LONGEST_WAIT_S: Final = 5.0
_LONGEST_ASKED_S: Final = 60.0
# A server that gave one of these is not there, or has too much to do: what the lines hold is not the reason.
_UNAVAILABLE: Final = frozenset(
    ("", "408", "429", "502", "503", "504", "UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED")
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The output of one line."""

    line: bytes
    failed: bool


class Caller:
    """Sends rows; used by all workers.

    Args:
        client: the client of the run.
        options: the run.
        batch_id: its name.
        stop: set when the run is given up, so that nobody goes on waiting.
    """

    def __init__(self, client: SeldonClient, options: SeldonBatchOptions, batch_id: str, stop: threading.Event) -> None:
        self._client = client
        self._options = options
        self._batch_id = batch_id
        self._stop = stop
        self._worker = threading.local()

    def outcomes(self, rows: Sequence[Row]) -> list[Outcome]:
        """One outcome for each row, in their order."""
        found: dict[int, Outcome] = {}
        sendable = [row for row in rows if row.problem is None]
        groups = (
            grouped(sendable, self._options.data_type)
            if self._options.batch_size > 1
            else [alone(row) for row in sendable]
        )
        for group in groups:
            found.update(self._sent(group))
        for row in rows:
            if row.problem is not None:
                found[row.index] = self._failure(row, str(uuid.uuid1()), row.problem)
        return [found[row.index] for row in rows]

    def _sent(self, group: Group) -> dict[int, Outcome]:
        puid = str(uuid.uuid1())
        try:
            result = self._tried(lambda: self._call(group, puid))
        except SeldonClientException as exc:
            result = Result(success=False, msg=str(exc))
            result.code = "not sent"
        if len(group.rows) == 1:
            row = group.rows[0]
            return {row.index: self._outcome(row, puid, result, result.response)}
        parts = cut(result.response, group.counts) if result.success else None
        if parts is None and result.code not in _UNAVAILABLE and not self._stop.is_set():
            # Some line may be to blame, or the model does not answer row by row: each gets its own answer.
            return {index: outcome for row in group.rows for index, outcome in self._sent(alone(row)).items()}
        return {
            row.index: self._outcome(row, f"{puid}-item-{i}", result, parts[i] if parts is not None else None)
            for i, row in enumerate(group.rows)
        }

    def _tried(self, call: Callable[[], Result]) -> Result:
        wait_s = _FIRST_WAIT_S
        tries = 1
        while True:
            self._keep_interval()
            result = call()
            if result.success or not result.retryable or tries >= self._options.retries:
                return result
            asked_s = min(result.retry_after_s or 0.0, _LONGEST_ASKED_S)
            if self._stop.wait(max(asked_s, wait_s * random.uniform(0.5, 1.0))):
                return result
            wait_s = min(wait_s * 2, _LONGEST_WAIT_S)
            tries += 1

    def _keep_interval(self) -> None:
        """Wait until this worker may send again."""
        interval = self._options.batch_interval
        if interval:
            self._stop.wait(max(0.0, getattr(self._worker, "next", 0.0) - time.monotonic()))
            self._worker.next = time.monotonic() + interval

    def _call(self, group: Group, puid: str) -> Result:
        headers = {"seldon-puid": puid}
        if self._options.method == "feedback":
            return self._client.feedback(raw_request=group.value, headers=headers)
        index = group.rows[0].index if len(group.rows) == 1 else None
        tags = self._tags(puid, index)
        kind = self._options.data_type
        if kind == "raw":
            meta = group.value.get("meta", {})
            raw = {**group.value, "meta": {**meta, "tags": {**meta.get("tags", {}), **tags}}}
            return self._client.predict(raw_data=raw, headers=headers)
        if kind == "json":
            # A bare null counts as nothing given, so that it goes as a whole message.
            raw = {"jsonData": group.value, "meta": {"tags": tags}}
            return self._client.predict(raw_data=raw, headers=headers)
        if kind == "str":
            return self._client.predict(str_data=group.value, meta=tags, headers=headers)
        return self._client.predict(data=group.value, meta=tags, headers=headers)

    def _tags(self, instance_id: str, index: int | None) -> dict[str, Any]:
        tags: dict[str, Any] = {"batch_id": self._batch_id, "batch_instance_id": instance_id}
        return tags if index is None else {**tags, "batch_index": index}

    def _outcome(self, row: Row, instance_id: str, result: Result, answer: Any) -> Outcome:
        if not result.success:
            return self._failure(row, instance_id, _reason(result))
        meta = answer.get("meta")
        meta = meta if isinstance(meta, dict) else {}
        old = meta.get("tags")
        tags = {**(old if isinstance(old, dict) else {}), **self._tags(instance_id, row.index)}
        return Outcome(jsoncodec.dumps({**answer, "meta": {**meta, "tags": tags}}), False)

    def _failure(self, row: Row, instance_id: str, reason: str) -> Outcome:
        status = {"info": "FAILURE", "reason": reason, "status": 1}
        body = {"status": status, "meta": {"tags": self._tags(instance_id, row.index)}}
        return Outcome(jsoncodec.dumps(body), True)


def _reason(result: Result) -> str:
    """Why a call failed, with what the server says of it."""
    status = result.response.get("status") if isinstance(result.response, dict) else None
    info = status.get("info") if isinstance(status, dict) else None
    return f"{result.msg}: {info}" if info else result.msg
