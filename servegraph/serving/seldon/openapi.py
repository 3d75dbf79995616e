"""The OpenAPI documents of components (``/seldon.json``) and of deployments (``/api/v1.0/doc/``)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Final

_BOTH: Final = ("get", "post")
_POST: Final = ("post",)

_PATHS: Final[tuple[tuple[str, tuple[str, ...], str, str, str], ...]] = (
    ("/predict", _BOTH, "predict", "SeldonMessage", "The component's prediction for a message"),
    ("/api/v1.0/predictions", _POST, "predict", "SeldonMessage", "The same as /predict"),
    ("/api/v0.1/predictions", _POST, "predict", "SeldonMessage", "The same as /predict"),
    ("/transform-input", _BOTH, "transformInput", "SeldonMessage", "A message as the nodes below are to see it"),
    ("/transform-output", _BOTH, "transformOutput", "SeldonMessage", "A message as the caller is to see it"),
    ("/route", _BOTH, "route", "SeldonMessage", "The index of the child that a message goes to"),
    ("/aggregate", _BOTH, "aggregate", "SeldonMessageList", "One message of those of all children"),
    ("/send-feedback", _BOTH, "sendFeedback", "Feedback", "Tell how good an answer was"),
    ("/api/v1.0/feedback", _POST, "sendFeedback", "Feedback", "The same as /send-feedback"),
    ("/api/v0.1/feedback", _POST, "sendFeedback", "Feedback", "The same as /send-feedback"),
)
"""Path, methods, operation, request and summary of each operation."""
_DEPLOYMENT_POSTS: Final = (
    ("predictions", "SeldonMessage", "The answer of a predictor"),
    ("feedback", "Feedback", "Tell the nodes that answered how good an answer was"),
)
_DEPLOYMENT_PAGES: Final = (
    ("/api/v1.0/status", "Any", "Whether all nodes can answer"),
    ("/api/v1.0/status/{node}", "Any", "Whether a node can answer"),
    ("/api/v1.0/health/status", "SeldonMessage", "Whether all nodes can answer"),
    ("/api/v1.0/metadata", "Any", "What all nodes say of themselves"),
    ("/api/v1.0/metadata/{node}", "SeldonModelMetadata", "What a node says of itself"),
    ("/api/v1.0/doc/", "Any", "This document"),
    ("/ready", "Any", "Whether all nodes can answer, without a body"),
    ("/live", "Any", "Whether the process answers, without a body"),
)


@functools.cache
def seldon_json() -> dict[str, Any]:
    """The OpenAPI 3.0 document of a component's REST interface; the same for all components."""
    paths: dict[str, Any] = {}
    used: dict[str, int] = {}
    for path, methods, operation, request, summary in _PATHS:
        paths[path] = {}
        for method in methods:
            used[operation] = number = used.get(operation, 0) + 1
            paths[path][method] = {
                "operationId": operation if number == 1 else f"{operation}{number}",
                "summary": summary,
                "responses": _answers("SeldonMessage"),
                **(_body(request) if method == "post" else _query(request)),
            }
    for path, schema, summary in (
        ("/health/status", "SeldonMessage", "How the component is"),
        ("/api/v1.0/health/status", "SeldonMessage", "How the component is"),
        ("/metadata", "SeldonModelMetadata", "What the component is"),
        ("/api/v1.0/metadata", "SeldonModelMetadata", "What the component is"),
    ):
        paths[path] = {"get": {"summary": summary, "responses": _answers(schema)}}
    pong = {"description": "The process answers", "content": {"text/html": {"schema": {"type": "string"}}}}
    paths["/health/ping"] = {"get": {"summary": "Whether the process answers", "responses": {"200": pong}}}
    here = {"description": "This document", "content": {"application/json": {"schema": {"type": "object"}}}}
    paths["/seldon.json"] = {"get": {"summary": "This document", "responses": {"200": here}}}
    return _document("Seldon component", paths)


def deployment_json(name: str, prefix: str, nodes: Sequence[str]) -> dict[str, Any]:
    """The OpenAPI 3.0 document of a deployment: its outer paths, by themselves and below a prefix.

    Args:
        name: the deployment's name.
        prefix: ``/seldon/NAMESPACE/NAME``.
        nodes: the names of its nodes.
    """
    node = {"name": "node", "in": "path", "required": True, "schema": {"type": "string", "enum": list(nodes)}}
    paths: dict[str, Any] = {}
    for base in ("", prefix):
        for version in ("v1.0", "v0.1"):
            for what, request, summary in _DEPLOYMENT_POSTS:
                operation = {"summary": summary, "responses": _answers("SeldonMessage"), **_body(request)}
                paths[f"{base}/api/{version}/{what}"] = {"post": operation}
        for path, schema, summary in _DEPLOYMENT_PAGES:
            operation = {"summary": summary, "responses": _answers(schema)}
            paths[f"{base}{path}"] = {"get": {**operation, "parameters": [node]} if "{node}" in path else operation}
    return _document(name, paths)


def _document(title: str, paths: dict[str, Any]) -> dict[str, Any]:
    return {
        "openapi": "3.0.3",
        "info": {"title": title, "description": "Served by servegraph.", "version": "v1.0"},
        "paths": paths,
        "components": {"schemas": _SCHEMAS},
    }


def _body(schema: str) -> dict[str, Any]:
    """A request's body: JSON, or JSON in the field ``json`` of a form; payloads may also come as parts of a form."""
    form = {"type": "object", "properties": {"json": {"type": "string", "description": "The message as JSON."}}}
    content = {
        "application/json": {"schema": _ref(schema)},
        "application/x-www-form-urlencoded": {"schema": form},
    }
    if schema == "SeldonMessage":
        content["multipart/form-data"] = {"schema": _ref("SeldonMessageForm")}
    return {"requestBody": {"required": True, "content": content}}


def _query(schema: str) -> dict[str, Any]:
    content = {"application/json": {"schema": _ref(schema)}}
    return {"parameters": [{"name": "json", "in": "query", "required": True, "content": content}]}


def _answers(schema: str) -> dict[str, Any]:
    failure = {"description": "Why there is no answer", "content": {"application/json": {"schema": _ref("Failure")}}}
    return {
        "200": {"description": "The answer", "content": {"application/json": {"schema": _ref(schema)}}},
        "default": failure,
    }


def _ref(schema: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{schema}"}


def _object(description: str, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "description": description, "properties": properties}


def _list(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _map(values: Any) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": values}


_TEXT: Final = {"type": "string"}
_NUMBER: Final = {"type": "number"}
_INTEGER: Final = {"type": "integer", "format": "int32"}
_BYTES: Final = {"type": "string", "format": "byte"}
_ANY: Final[dict[str, Any]] = {"description": "Any JSON value."}

_SCHEMAS: Final[dict[str, Any]] = {
    "Any": _ANY,
    "SeldonMessage": _object(
        "A payload, one of data, strData, binData and jsonData, with what travels beside it.",
        status=_ref("Status"),
        meta=_ref("Meta"),
        data=_ref("DefaultData"),
        binData=_BYTES,
        strData=_TEXT,
        jsonData=_ANY,
    ),
    "SeldonMessageForm": _object(
        "A message in parts: fields are JSON, but for strData, which is text; the file binData is bytes.",
        meta=_ref("Meta"),
        data=_ref("DefaultData"),
        binData={"type": "string", "format": "binary"},
        strData=_TEXT,
        jsonData=_ANY,
    ),
    "SeldonMessageList": {
        "description": "The messages of all children, in their order.",
        "oneOf": [
            {
                "type": "object",
                "required": ["seldonMessages"],
                "properties": {"seldonMessages": _list(_ref("SeldonMessage"))},
            },
            _list(_ref("SeldonMessage")),
        ],
    },
    "Feedback": _object(
        "How good an answer was: a reward, or the truth.",
        request=_ref("SeldonMessage"),
        response=_ref("SeldonMessage"),
        truth=_ref("SeldonMessage"),
        reward={"type": "number", "format": "float"},
    ),
    "DefaultData": _object(
        "Numbers or texts in rows, as one of tensor, ndarray and tftensor.",
        names={**_list(_TEXT), "description": "Names of the columns."},
        tensor=_ref("Tensor"),
        ndarray={**_list(_ANY), "description": "Nested lists."},
        tftensor={"type": "object", "description": "A tensorflow.TensorProto as protobuf writes it in JSON."},
    ),
    "Tensor": _object("Numbers in row-major order.", shape=_list(_INTEGER), values=_list(_NUMBER)),
    "Meta": _object(
        "What travels beside the payload.",
        puid={**_TEXT, "description": "Id of the request."},
        tags=_map(_ANY),
        routing={**_map(_INTEGER), "description": "For each router the child that it chose; -1 is all of them."},
        requestPath={**_map(_TEXT), "description": "For each node that was called its image."},
        metrics=_list(_ref("Metric")),
    ),
    "Metric": {
        "type": "object",
        "required": ["key"],
        "properties": {
            "key": _TEXT,
            "type": {"type": "string", "enum": ["COUNTER", "GAUGE", "TIMER"], "default": "COUNTER"},
            "value": {"type": "number", "format": "float"},
            "tags": _map(_TEXT),
        },
    },
    "Status": _object(
        "How the request went.",
        code=_INTEGER,
        info=_TEXT,
        reason=_TEXT,
        status={"description": "SUCCESS is 0, FAILURE is 1.", "oneOf": [_INTEGER, _TEXT]},
    ),
    "Failure": {"type": "object", "required": ["status"], "properties": {"status": _ref("Status")}},
    "SeldonModelMetadata": _object(
        "What the component is.",
        name=_TEXT,
        versions=_list(_TEXT),
        platform=_TEXT,
        inputs=_list(_ref("SeldonMessageMetadata")),
        outputs=_list(_ref("SeldonMessageMetadata")),
        custom=_map(_TEXT),
    ),
    "SeldonMessageMetadata": _object(
        "One input or output: a payload by its messagetype, or a tensor by name, datatype and shape.",
        messagetype=_TEXT,
        schema={"type": "object"},
        name=_TEXT,
        datatype=_TEXT,
        shape=_list({"type": "integer", "format": "int64"}),
    ),
}
