"""Tracking records: what is kept of a prediction, and the documented shape it is written in.

A record is made on the request path, as the JSON that the stream gets: whatever the caller, a later step or the model
does to request and response afterwards, the record is right. Making that JSON at once is also the cheapest way: less
work than a deep copy, a fraction of its memory, nothing for the garbage collector to walk through, and nothing left to
do for the thread that writes, which takes the interpreter's lock from the requests for as long as it runs.

The shapes are in `record_schema.py`, and described in ``docs/reference/tracking.md``.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson

from servegraph import jsoncodec
from servegraph.errors import summary
from servegraph.graph.clock import timestamp
from servegraph.graph.context import Prediction
from servegraph.monitoring.budget import Charge
from servegraph.monitoring.described import described, needs_description

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
class Row:
    """One prediction as a row of a batched record, in JSON that nobody can change any more."""

    start: bytes
    """The fields that the records of its model and labels begin with."""
    key: str | None
    """Partition key."""
    text: bytes
    """The row."""
    samples: int
    """Samples in the row."""
    charge: Charge | None = None
    """Its share of the memory that waiting records may hold."""


def record_of(prediction: Prediction, origin: Origin) -> bytes | None:
    """The JSON of the record of one prediction or one error, ``None`` when sampling picks none of its rows.

    Changes nothing it is given.

    Raises:
        Exception: whatever the model's ``logged_results`` raises; a `TypeError` when it returns no pair.
    """
    p = prediction
    when = timestamp(p.when_ns).encode()
    if p.error is not None:
        return b'%b,"request":%b,"op":%b,"when":"%b","error":%b}' % (
            _start(p, origin), _encoded(_request(p), "inputs"), _text(p.op), when, _shown(short_summary(p.error))
        )  # fmt: skip
    picked = _picked_parts(p, origin.sampling_percentage)
    if picked is None:
        return None
    request, response, samples = picked
    metrics = b',"metrics":' + _mapping(p.metrics, p, "metrics") if p.metrics else b""
    return b'%b,"request":%b,"op":%b,"resp":%b,"when":"%b","microsec":%d%b,"effective_sample_count":%d}' % (
        _start(p, origin), _encoded(request, "inputs"), _text(p.op), _encoded(response, "outputs"), when, p.microsec,
        metrics, samples,
    )  # fmt: skip


def row_of(prediction: Prediction, origin: Origin) -> Row | None:
    """A prediction as a row of a batched record, otherwise as `record_of`."""
    p = prediction
    picked = _picked_parts(p, origin.sampling_percentage)
    if picked is None:
        return None
    request, response, samples = picked
    text = b'[%b,%b,%b,"%b",%d,%b]' % (
        _encoded(request, "inputs"), _text(p.op), _encoded(response, "outputs"), timestamp(p.when_ns).encode(),
        p.microsec, _mapping(p.metrics, p, "metrics") if p.metrics else b"null",
    )  # fmt: skip
    return Row(_start(p, origin), p.key, text, samples)


def batch_of(rows: Sequence[Row]) -> bytes:
    """The JSON of one record that holds several predictions with the same start and key."""
    return b'%b,"headers":%b,"values":[%b],"effective_sample_count":%d}' % (
        rows[0].start, jsoncodec.dumps(HEADERS), b",".join(row.text for row in rows), sum(row.samples for row in rows)
    )  # fmt: skip


def _start(p: Prediction, origin: Origin) -> bytes:
    """The fields that all shapes begin with."""
    start = _identity(origin, p.model, p.version, p.model_class, p.endpoint_uid)
    return start + b',"labels":' + _mapping(p.labels, p, "labels") if p.labels else start


def _mapping(value: object, p: Prediction, name: str) -> bytes:
    if not isinstance(value, Mapping):
        raise TypeError(f"{p.model_class}.{name} must be a dict, not {type(value).__name__}")
    return _encoded(value)


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


def _picked_parts(p: Prediction, percentage: float) -> tuple[Mapping[str, Any], Mapping[str, Any], int] | None:
    """Request and response as they are recorded, and how many samples they hold; ``None`` for none at all."""
    request, response = p.request, p.response
    if p.logged is not None or percentage < 100.0 or type(request) is not dict or type(response) is not dict:
        return _prepared(p, percentage)
    # The usual way, without a copy where none is needed.
    inputs = request.get("inputs")
    if type(inputs) is list and inputs and type(inputs[0]) is list and "tensors" not in request:
        given = request.get("id")
        if given.__class__ is not str or not given:
            request = {**request, "id": _id(given, p)}
        return request, response, len(inputs)
    request = _request(p)
    return request, response, _shape_inputs(request)


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
    request["id"] = _id(request.get("id"), p)
    return request


def _id(given: Any, p: Prediction) -> str | int | float | None:
    """The id of a request: its own where it is text or a number, as text where it is something else."""
    own = given or p.request_id
    return own if own is None or own.__class__ in (str, int, float) else str(own)


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


def short_summary(error: BaseException) -> str:
    """Type and message of an exception, of which the message is cut where it is very long."""
    text = summary(error)
    return text if len(text) <= MAX_ERROR_CHARS else text[:MAX_ERROR_CHARS] + "…"


def _shown(text: str) -> bytes:
    """The JSON of a text; characters that no Unicode encoding has, as in some names of files, become ``?``."""
    return jsoncodec.dumps(text.encode("utf-8", "replace").decode())
