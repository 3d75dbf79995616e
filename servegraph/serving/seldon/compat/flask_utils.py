"""``seldon_core.flask_utils``: the exception that components raise, and what they do with the request of Flask."""

from __future__ import annotations

from typing import Any, Final

from servegraph import jsoncodec
from servegraph.graph.media import parse_media_type
from servegraph.importing import import_extra
from servegraph.serving.seldon.errors import SeldonMicroserviceException
from servegraph.serving.seldon.forms import multipart_value
from servegraph.serving.seldon.json_reading import read_json

ANNOTATIONS_FILE: Final = "/etc/podinfo/annotations"
ANNOTATION_GRPC_MAX_MSG_SIZE: Final = "seldon.io/grpc-max-message-size"
ANNOTATION_REST_TIMEOUT: Final = "seldon.io/rest-timeout"
DEFAULT_ANNOTATION_REST_TIMEOUT: Final = 5000
"""Seconds."""
_NO_JSON: Final = "Can't find JSON in data"


def get_multi_form_data_request() -> dict[str, Any]:
    """The message in the multipart form of the request that Flask shows.

    Raises:
        SeldonMicroserviceException: it cannot be read (400).
    """
    request = _flask().request
    return multipart_value(request.get_data(), request.content_type or "")


def get_request(skip_decoding: bool = False) -> Any:
    """The JSON of the request that Flask shows: of its multipart form, its field ``json``, its query or its body.

    Args:
        skip_decoding: give it as bytes or text.

    Raises:
        SeldonMicroserviceException: there is none that can be read (400).
    """
    request = _flask().request
    if parse_media_type(request.content_type or "").essence == "multipart/form-data":
        return get_multi_form_data_request()
    text = request.form.get("json") or request.args.get("json")
    if text is None:
        text = request.get_data() if request.is_json else b""
    if skip_decoding:
        return text
    try:
        value = read_json(text) if text else None
    except jsoncodec.JSONDecodeError as exc:
        raise SeldonMicroserviceException(f"{_NO_JSON}: {exc}") from exc
    if value is None:
        raise SeldonMicroserviceException(_NO_JSON)
    return value


def jsonify(response: Any, skip_encoding: bool = False) -> Any:
    """An answer for Flask: JSON with sorted keys, or with ``skip_encoding`` what is JSON already.

    Works outside of requests too.
    """
    body = response if skip_encoding else jsoncodec.dumps(response, sort_keys=True) + b"\n"
    return _flask().Response(body, mimetype="application/json")


def _flask() -> Any:
    return import_extra("flask", feature="A component that uses Flask's request", extra="flask")


__all__ = [
    "ANNOTATIONS_FILE",
    "ANNOTATION_GRPC_MAX_MSG_SIZE",
    "ANNOTATION_REST_TIMEOUT",
    "DEFAULT_ANNOTATION_REST_TIMEOUT",
    "SeldonMicroserviceException",
    "get_multi_form_data_request",
    "get_request",
    "jsonify",
]
