"""The JSON Schema (draft 2020-12) of tracking records: a prediction, an error, several predictions, the end of a batch.

Consumers may rely on it; fields are only ever added.
"""

from __future__ import annotations

from typing import Any, Final

_TEXT: Final = {"type": "string"}
_TIME: Final = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}\+00:00$"}
_WHEN: Final = {**_TIME, "description": "UTC time at which the call began."}
_MICROSEC: Final = {
    "type": "integer",
    "minimum": 0,
    "description": "Time spent in the call: whole microseconds, in total, of a monotonic clock.",
}
_OP: Final = {"type": "string", "minLength": 1, "description": "infer, predict, infer_dict, predict_dict or explain."}
_METRICS: Final = {"type": "object", "description": "What the model passed to set_metric during this call."}
_ROWS: Final = {
    "type": "integer",
    "minimum": 0,
    "description": "Samples in the record. Divided by the share of sampling_percentage: an estimate of all of them.",
}
_REQUEST: Final = {
    "type": "object",
    "required": ["id"],
    "properties": {
        "id": {"type": ["string", "number", "null"], "description": "The request's id."},
        "inputs": {"description": "The samples, one item each, or a table of them."},
    },
}
_RESPONSE: Final = {
    "type": "object",
    "properties": {"outputs": {"description": "What the model gave, one item for each sample as a rule."}},
}
_BASE: Final[dict[str, Any]] = {
    "class": {**_TEXT, "description": "Name of the model's class."},
    "worker": {"type": "integer", "minimum": 0, "description": "Number of the worker process."},
    "model": {**_TEXT, "description": "The model's name, without its version."},
    "version": {**_TEXT, "description": "The model's version; empty when it has none."},
    "host": {**_TEXT, "description": "Machine or pod."},
    "function_uri": {**_TEXT, "description": "project/name[:tag]."},
    "endpoint_id": {**_TEXT, "description": "The model endpoint's id; empty when it has none."},
    "sampling_percentage": {"type": "number", "exclusiveMinimum": 0, "maximum": 100},
    "labels": {"type": "object", "minProperties": 1},
}
_BASE_REQUIRED: Final = [name for name in _BASE if name != "labels"]


def _record(title: str, required: list[str], properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "title": title,
        "type": "object",
        "required": [*_BASE_REQUIRED, *required],
        "properties": {**_BASE, **properties},
        "additionalProperties": False,
    }


PREDICTION: Final = _record(
    "prediction or explanation",
    ["request", "op", "resp", "when", "microsec", "effective_sample_count"],
    {
        "request": _REQUEST,
        "op": _OP,
        "resp": _RESPONSE,
        "when": _WHEN,
        "microsec": _MICROSEC,
        "metrics": {**_METRICS, "minProperties": 1},
        "effective_sample_count": _ROWS,
    },
)
"""One call that succeeded."""

ERROR: Final = _record(
    "error",
    ["request", "op", "when", "error"],
    {
        "request": _REQUEST,
        "op": _OP,
        "when": _WHEN,
        "error": {"type": "string", "pattern": "^[^:]+: ", "description": "Type and message of the exception."},
    },
)
"""One call that failed."""

BATCH: Final = _record(
    "batch of predictions",
    ["headers", "values", "effective_sample_count"],
    {
        "headers": {"const": ["request", "op", "resp", "when", "microsec", "metrics"]},
        "values": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "array",
                "prefixItems": [_REQUEST, _OP, _RESPONSE, _WHEN, _MICROSEC, {**_METRICS, "type": ["object", "null"]}],
                "minItems": 6,
                "maxItems": 6,
            },
        },
        "effective_sample_count": _ROWS,
    },
)
"""Several calls of one model that succeeded."""

BATCH_COMPLETE: Final[dict[str, Any]] = {
    "title": "end of a batch",
    "type": "object",
    "required": [
        "kind",
        "project",
        "function_uri",
        "first_timestamp",
        "last_timestamp",
        "batch_completion_time",
        "endpoint_id",
    ],
    "properties": {
        "kind": {"const": "batch_complete"},
        "project": {**_TEXT, "description": "The function's project."},
        "function_uri": _BASE["function_uri"],
        "first_timestamp": {**_TIME, "description": "UTC time of the earliest row; of the run's begin without times."},
        "last_timestamp": {**_TIME, "description": "UTC time of the latest row; of the run's end without times."},
        "batch_completion_time": {**_TIME, "description": "UTC time at which this record was written."},
        "endpoint_id": _BASE["endpoint_id"],
        "model": _BASE["model"],
        "version": _BASE["version"],
    },
    "dependentRequired": {"model": ["version"], "version": ["model"]},
    "additionalProperties": False,
}
"""All rows of a batch are done for one model; without ``model`` where the graph has none."""

RECORD_SCHEMA: Final[dict[str, Any]] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "servegraph tracking record",
    "oneOf": [PREDICTION, ERROR, BATCH, BATCH_COMPLETE],
}
"""Any record of a tracking stream."""
