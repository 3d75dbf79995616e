"""The forms in which JSON reaches a component besides a JSON body: ``json=`` in a form or query, and multipart."""

from __future__ import annotations

import base64
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any, Final
from urllib.parse import parse_qs

from servegraph import jsoncodec
from servegraph.serving.limits import JsonLimits
from servegraph.serving.seldon.errors import SeldonMicroserviceException
from servegraph.serving.seldon.json_reading import read_json

_MOST_FIELDS: Final = 1000


def json_field(text: str, place: str) -> Any:
    """The JSON text in the field ``json`` of a form or a query, still undecoded; ``None`` when it has none.

    Raises:
        SeldonMicroserviceException: it has too many fields (400).
    """
    try:
        fields = parse_qs(text, keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError as exc:
        raise SeldonMicroserviceException(f"the {place} cannot be read: {exc}") from exc
    found = fields.get("json")
    return found[0] if found else None


def multipart_value(body: bytes, content_type: str, limits: JsonLimits | None = None) -> dict[str, Any]:
    """The message whose parts come as the parts of a ``multipart/form-data`` body (RFC 7578).

    Fields are JSON, but for ``strData``, which is text. Of files, ``binData`` is bytes and any other is text.

    Args:
        body: the form.
        content_type: its media type, with the boundary.
        limits: bounds on the JSON of each part.

    Raises:
        RequestError: a part is too deep or holds too many values.
        SeldonMicroserviceException: the body is no such form, or a part is not what its name says (400).
    """
    head = b"Content-Type: " + content_type.encode("latin-1", "replace").replace(b"\r", b"").replace(b"\n", b"")
    parsed = BytesParser(policy=HTTP).parsebytes(head + b"\r\n\r\n" + body)
    if not parsed.is_multipart():
        raise SeldonMicroserviceException("Can't find JSON in data: the body is no multipart form with this boundary")
    value: dict[str, Any] = {}
    for part in parsed.iter_parts():
        disposition = part["content-disposition"]
        name = disposition.params.get("name") if disposition is not None else None
        if not name:
            raise SeldonMicroserviceException("a part of the multipart form has no name")
        if len(value) >= _MOST_FIELDS:
            raise SeldonMicroserviceException("the multipart form has too many parts")
        content = part.get_payload(decode=True)
        raw = content if isinstance(content, bytes) else b""
        value[name] = _part(name, raw, part.get_filename() is not None, limits)
    return value


def _part(name: str, content: bytes, is_file: bool, limits: JsonLimits | None) -> Any:
    if is_file and name == "binData":
        return base64.b64encode(content).decode("ascii")
    try:
        if is_file or name == "strData":
            return content.decode("utf-8")
        return read_json(content, limits)
    except (UnicodeDecodeError, jsoncodec.JSONDecodeError) as exc:
        raise SeldonMicroserviceException(f"the part {name[:80]!r} of the form cannot be read: {exc}") from exc
