"""Tracking records: what is kept of a prediction, and the documented shape it is written in.

`snapshot` runs on the request path, `record_data` and `batch_data` behind it. A snapshot is the JSON of request and
response at the moment of the call: whatever the caller, a later step or the model does to these objects afterwards,
the record is right. Making that JSON at once is also the cheapest way: less work than a deep copy, a fraction of its
memory, nothing for the garbage collector to walk through, and no second pass when it is written.

The shapes are in `record_schema.py`, and described in ``docs/reference/tracking.md``.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import orjson
from orjson import Fragment

from servegraph import jsoncodec
from servegraph.graph.context import Prediction
from servegraph.monitoring.budget import Charge
from servegraph.monitoring.described import described, needs_description
from servegraph.streams import Record

HEADERS = ("request", "op", "resp", "when", "microsec", "metrics")
"""The columns of a batched record."""

MAX_ERROR_CHARS = 4000
_LOOK_FROM = 16 * 1024
"""Bytes of JSON from which a value is looked at for large tensors."""
_SCALARS = frozenset({int, float, str, bool, type(None)})


@dataclass(frozen=True, slots=True, eq=False)
class Origin:
    """What all records of one recorder have in common. Compared by identity: it is part of a cache's key."""

    worker: int
    """Number of the worker process."""
    host: str
    """Name of the machine or pod."""
    function_uri: str
    """``project/name[:tag]``."""
    sampling_percentage: float
    """Share of the rows that is recorded, above 0 and at most 100."""


@dataclass(slots=True)
class Snapshot:
    """One prediction, kept in a form that nobody can change any more. A source of its record for the tap."""

    origin: Origin
    model: str
    version: str
    model_class: str
    endpoint_uid: str
    key: str | None
    """Partition key."""
    labels: Mapping[str, str] | None
    op: str
    when_ns: int
    microsec: int
    request: bytes
    """JSON."""
    response: bytes
    """JSON; empty for a failed call."""
    metrics: bytes
    """JSON; empty when there are none."""
    rows: int
    """Samples in the record."""
    error: str | None = None
    charge: Charge | None = None
    """Its share of the memory that waiting records may hold."""

    @property
    def size(self) -> int:
        """Bytes that it holds."""
        return len(self.request) + len(self.response) + len(self.metrics)

    def to_record(self) -> Record:
        """Its record."""
        data = record_data(self)
        return Record(data, self.key) if self.charge is None else ChargedRecord(data, self.key, charge=self.charge)


@dataclass(frozen=True, slots=True)
class ChargedRecord(Record):
    """A record that gives back its share of a budget when it is written or given up."""

    charge: Charge | None = None
    """The share; nobody reads it, it ends with the record."""


def snapshot(prediction: Prediction, origin: Origin) -> Snapshot | None:
    """What is recorded of a prediction, ``None`` when sampling picks none of its rows. Changes nothing it is given.

    Raises:
        Exception: whatever the model's ``logged_results`` raises; a `TypeError` when it returns no pair.
    """
    p = prediction
    request, response, rows = p.request, p.response, 1
    percentage = origin.sampling_percentage
    if p.error is not None:
        return _kept(p, origin, _encoded(_request(p), "inputs"), b"", 1, _message(p.error))
    if p.logged is not None or percentage < 100.0 or type(request) is not dict or type(response) is not dict:
        picked = _prepared(p, percentage)
        if picked is None:
            return None
        request, response, rows = picked
    else:  # the usual way, without a copy where none is needed
        inputs = request.get("inputs")
        if type(inputs) is list and inputs and type(inputs[0]) is list and "tensors" not in request:
            if not request.get("id"):
                request = {**request, "id": p.request_id}
            rows = len(inputs)
        else:
            request = _request(p)
            rows = _shape_inputs(request)
    return _kept(p, origin, _encoded(request, "inputs"), _encoded(response, "outputs"), rows, None)


def record_data(kept: Snapshot) -> Fragment:
    """The record of one prediction or one error, as JSON that is put together from what is JSON already."""
    start = _start(kept)
    op = _text(kept.op)
    when = timestamp(kept.when_ns).encode()
    if kept.error is not None:
        text = b'%b,"request":%b,"op":%b,"when":"%b","error":%b}'
        return Fragment(text % (start, kept.request, op, when, jsoncodec.dumps(kept.error)))
    metrics = b',"metrics":' + kept.metrics if kept.metrics else b""
    text = b'%b,"request":%b,"op":%b,"resp":%b,"when":"%b","microsec":%d%b,"effective_sample_count":%d}'
    return Fragment(text % (start, kept.request, op, kept.response, when, kept.microsec, metrics, kept.rows))


def batch_data(batch: Sequence[Snapshot]) -> Fragment:
    """One record that holds several predictions of the same model."""
    rows = b",".join(
        b'[%b,%b,%b,"%b",%d,%b]'
        % (k.request, _text(k.op), k.response, timestamp(k.when_ns).encode(), k.microsec, k.metrics or b"null")
        for k in batch
    )
    text = b'%b,"headers":%b,"values":[%b],"effective_sample_count":%d}'
    return Fragment(text % (_start(batch[0]), jsoncodec.dumps(HEADERS), rows, sum(k.rows for k in batch)))


def timestamp(when_ns: int) -> str:
    """A time as records hold it: ``YYYY-mm-dd HH:MM:SS.ffffff+00:00``, UTC."""
    seconds, rest = divmod(when_ns, 1_000_000_000)
    return f"{_second(seconds)}.{rest // 1000:06d}+00:00"


@lru_cache(maxsize=16)
def _second(seconds: int) -> str:
    """The text of a second, which many records share."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _start(kept: Snapshot) -> bytes:
    """The fields that all shapes begin with."""
    start = _identity(kept.origin, kept.model, kept.version, kept.model_class, kept.endpoint_uid)
    return start + b',"labels":' + jsoncodec.dumps(kept.labels) if kept.labels else start


@lru_cache(maxsize=1024)
def _identity(origin: Origin, model: str, version: str, model_class: str, endpoint_uid: str) -> bytes:
    fields = {
        "class": model_class,
        "worker": origin.worker,
        "model": model,
        "version": version,
        "host": origin.host,
        "function_uri": origin.function_uri,
        "endpoint_id": endpoint_uid,
        "sampling_percentage": origin.sampling_percentage,
    }
    return jsoncodec.dumps(fields)[:-1]


@lru_cache(maxsize=256)
def _text(text: str) -> bytes:
    return jsoncodec.dumps(text)


def _kept(p: Prediction, origin: Origin, request: bytes, response: bytes, rows: int, error: str | None) -> Snapshot:
    return Snapshot(
        origin,
        p.model,
        p.version,
        p.model_class,
        p.endpoint_uid,
        p.key,
        dict(p.labels) if p.labels else None,
        p.op,
        p.when_ns,
        p.microsec,
        request,
        response,
        _encoded(p.metrics) if p.metrics else b"",
        rows,
        error,
    )


def _prepared(p: Prediction, percentage: float) -> tuple[dict[str, Any], dict[str, Any], int] | None:
    """Request and response as they are recorded, in dicts of their own, and how many samples they hold."""
    request = _request(p)
    response = dict(p.response) if isinstance(p.response, Mapping) else {"outputs": p.response}
    if p.logged is not None:
        _replace(p, request, response)
    rows = _shape_inputs(request)
    if percentage >= 100.0 or not rows:
        return request, response, rows
    picked = [i for i in range(rows) if random.random() * 100.0 < percentage]
    if not picked:
        return None
    if len(picked) < rows:
        request["inputs"] = _picked(request["inputs"], picked, rows)
        if "outputs" in response:
            response["outputs"] = _picked(response["outputs"], picked, rows)
    return request, response, len(picked)


def _shape_inputs(request: dict[str, Any]) -> int:
    """Make flat inputs one sample of several features, as MLRun reads them; how many samples there are then."""
    if "inputs" not in request:
        return 1
    inputs = request["inputs"]
    if _is_flat(inputs):
        request["inputs"] = [inputs]
        return 1
    return _row_count(inputs)


def _request(p: Prediction) -> dict[str, Any]:
    """The request as an object of its own, with its rows under ``inputs`` and with its id."""
    given = p.request
    if isinstance(given, Mapping):
        request: dict[str, Any] = dict(given)
        if "inputs" not in request:
            if "instances" in request:
                request["inputs"] = request.pop("instances")
        elif "tensors" in request:  # the same rows once more, by name
            del request["tensors"]
    else:
        request = {"inputs": given if isinstance(given, list) else [given]}
    if not request.get("id"):
        request["id"] = p.request_id
    return request


def _replace(p: Prediction, request: dict[str, Any], response: dict[str, Any]) -> None:
    """Put what the model's ``logged_results`` gives in place of the real inputs and outputs."""
    assert p.logged is not None
    result = p.logged(p.request, p.response, p.op)
    if not isinstance(result, tuple) or len(result) != 2:
        if hasattr(result, "close"):  # a coroutine, which would complain that nobody awaited it
            result.close()
        raise TypeError(
            f"{p.model_class}.logged_results must return a pair (inputs, outputs), not {type(result).__name__}"
        )
    inputs, outputs = result
    if inputs is not None or outputs is not None:
        request["inputs"] = [] if inputs is None else inputs
        response["outputs"] = [] if outputs is None else outputs


def _is_flat(inputs: Any) -> bool:
    """Whether inputs are the features of one sample, and not a list of samples."""
    if type(inputs) is list:
        if not inputs:
            return False
        first = inputs[0]
        kind = type(first)
        return kind is not list and (kind in _SCALARS or getattr(first, "shape", None) == ())
    shape = getattr(inputs, "shape", None)
    return isinstance(shape, tuple) and len(shape) == 1


def _row_count(inputs: Any) -> int:
    if isinstance(inputs, (list, tuple)):
        return len(inputs)
    shape = getattr(inputs, "shape", None)
    return int(shape[0]) if isinstance(shape, tuple) and shape else 1


def _picked(values: Any, picked: Iterable[int], rows: int) -> Any:
    """The picked rows of a value, as a new one; the value itself where it does not have these rows."""
    if isinstance(values, (list, tuple)):
        return [values[i] for i in picked] if len(values) == rows else values
    if isinstance(values, Mapping):
        return {name: _picked(value, picked, rows) for name, value in values.items()}
    shape = getattr(values, "shape", None)
    if isinstance(shape, tuple) and shape and shape[0] == rows:
        by_position = getattr(values, "iloc", values)
        return by_position[list(picked)]
    return values


def _encoded(value: Any, rows: str = "") -> bytes:
    """The JSON of a value, with descriptions of what has no place in it.

    Args:
        value: a mapping.
        rows: the key of the part that holds the samples.
    """
    try:
        # Without the codec's options this takes less than half the time, and refuses what it would write otherwise.
        text = orjson.dumps(value)
    except TypeError:
        text = b""
    if text and (len(text) < _LOOK_FROM or not needs_description(value.get(rows))):
        return text
    if needs_description(value.get(rows)):
        value = {**value, rows: described(value[rows])}
    try:
        return jsoncodec.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return jsoncodec.dumps(described(value))


def _message(error: BaseException) -> str:
    text = f"{type(error).__name__}: {error}"
    return text if len(text) <= MAX_ERROR_CHARS else text[:MAX_ERROR_CHARS] + "…"
