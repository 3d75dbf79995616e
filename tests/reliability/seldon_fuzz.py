"""Requests and messages of Seldon's protocol that are nearly right, lie, or are no such thing at all.

Everything is drawn from one `random.Random`: the same seed makes the same requests.
"""

from __future__ import annotations

import base64
import contextlib
import copy
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

RECORDED = Path(__file__).parents[3] / "shared" / "conformance" / "seldon" / "rest.jsonl"
"""Exchanges with Seldon's own runtime, where the machine has them."""

PATHS = (
    "/predict", "/api/v1.0/predictions", "/api/v0.1/predictions", "/send-feedback", "/api/v1.0/feedback",
    "/api/v0.1/feedback", "/transform-input", "/transform-output", "/route", "/aggregate",
)  # fmt: skip
PAGES = ("/health/ping", "/health/status", "/api/v1.0/health/status", "/metadata", "/api/v1.0/metadata", "/seldon.json")
STRANGE_PATHS = (
    "/", "//predict", "/predict/", "/predict/../metadata", "/%70redict", "/predict%00", "/predict;x", "/PREDICT",
    "/api/v9/predictions", "/nothing", "/%ff%fe", "/a/../../etc/passwd", "*",
)  # fmt: skip
METHODS = ("POST", "POST", "POST", "POST", "POST", "POST", "GET", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE")
JSON = "application/json"
CONTENT_TYPES = (
    "", "text/plain", "application/octet-stream", "application/json; charset=utf-16", "application/json;charset=latin1",
    "application/json; charset=zlib", "APPLICATION/JSON", "application/vnd.x+json", "application/x-python-pickle",
    "application/x-www-form-urlencoded", "multipart/form-data", "multipart/form-data; boundary=", "json", ";;;",
    "a/b/c", 'application/json; x="', "application/json; charset=utf-8; charset=utf-8", "application/x-protobuf",
    "\xff\xfe",
)  # fmt: skip

DTYPES = (
    "DT_FLOAT", "DT_DOUBLE", "DT_INT32", "DT_UINT8", "DT_INT16", "DT_INT8", "DT_STRING", "DT_COMPLEX64", "DT_INT64",
    "DT_BOOL", "DT_QINT8", "DT_QUINT8", "DT_QINT32", "DT_BFLOAT16", "DT_QINT16", "DT_QUINT16", "DT_UINT16",
    "DT_COMPLEX128", "DT_HALF", "DT_RESOURCE", "DT_VARIANT", "DT_UINT32", "DT_UINT64", "DT_FLOAT_REF", "DT_INVALID",
    "DT_FLOAT8_E5M2", "DT_FLOAT8_E4M3FN", "DT_INT4", "DT_UINT4", "DT_NONE", 0, 1, 7, 20, 101, -1, 999, 2**40, None,
)  # fmt: skip
VALUE_FIELDS = (
    "floatVal", "doubleVal", "intVal", "stringVal", "scomplexVal", "int64Val", "boolVal", "dcomplexVal", "halfVal",
    "uint32Val", "uint64Val", "tensorContent", "float8Val", "float_val", "resourceHandleVal", "variantVal",
)  # fmt: skip
DIMENSIONS: tuple[Any, ...] = (
    0,
    1,
    1,
    2,
    2,
    3,
    4,
    -1,
    65_537,
    2**20,
    2**31,
    2**40,
    2**63,
    2**64,
    1.0,
    1.5,
    True,
    "2",
    None,
    [],
    {},
)


class Request(NamedTuple):
    """One HTTP request."""

    method: str
    target: bytes
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def may_close(self) -> bool:
        """Whether the answer may close the connection, so that a client should send nothing behind it."""
        known = self.target.partition(b"?")[0].decode("latin-1") in (*PATHS, *PAGES)
        return not known or self.method == "TRACE" or any(name != "content-type" for name, _ in self.headers)

    def raw(self) -> bytes:
        """Its bytes."""
        lines = [b"%b %b HTTP/1.1" % (self.method.encode(), self.target), b"host: x"]
        lines += [f"{name}: {value}".encode("latin-1") for name, value in self.headers]
        return b"\r\n".join([*lines, b"content-length: %d" % len(self.body), b"", self.body])


def seeds() -> list[Any]:
    """Bodies that are right: our own, and those that were recorded."""
    messages: list[Any] = [
        {"data": {"names": ["a", "b"], "ndarray": [[1.5, 2], [3, 4]]}},
        {"data": {"names": [], "tensor": {"shape": [2, 2], "values": [1, 2.5, 3, 4]}}, "meta": {"puid": "p"}},
        {"data": {"tftensor": {"dtype": "DT_INT32", "tensorShape": {"dim": [{"size": "2"}]}, "intVal": [1, 2]}}},
        {"data": {"tensor": {"shape": [], "values": [1]}}},
        {"data": {"ndarray": []}},
        {"data": {}},
        {"strData": "text"},
        {"binData": "aGVsbG8="},
        {"jsonData": {"a": [1, {"b": None}], "c": "d"}},
        {
            "meta": {
                "puid": "x", "tags": {"a": 1, "b": ["c"]}, "routing": {"r": 1}, "requestPath": {"n": "image:1"},
                "metrics": [{"key": "k", "type": "COUNTER", "value": 1, "tags": {"a": "b"}}],
            },
            "data": {"ndarray": [["a", 1], [None, True]]},
        },
    ]  # fmt: skip
    feedback = {"request": messages[0], "response": messages[9], "truth": messages[1], "reward": 0.5}
    out = [*messages, {"seldonMessages": messages[:3]}, messages[:2], feedback, {"reward": 1}]
    if RECORDED.exists():
        for line in RECORDED.read_text().splitlines():
            for exchange in json.loads(line)["exchanges"]:
                with contextlib.suppress(ValueError):
                    out.append(json.loads(exchange["request"].get("body") or ""))
    return [body for body in out if isinstance(body, (dict, list))]


STRANGE: tuple[Callable[[random.Random], Any], ...] = (
    lambda r: None,
    lambda r: r.choice((True, False)),
    lambda r: r.choice((0, -1, 1, 2**31, 2**53 + 1, 2**63, 2**64, -(2**63) - 1, 10**30, 10**400, 10**4000)),
    lambda r: r.choice((0.1, -0.0, 1e308, 5e-324, 1e-400, float("nan"), float("inf"), -float("inf"))),
    lambda r: r.choice(("", "a", "\x00", "\ud800", "\U0001f600", "NaN", "x" * 3000, "é\r\nx: y", "__proto__", "=")),
    lambda r: [],
    lambda r: {},
    lambda r: [[]],
    lambda r: [{}],
    lambda r: {"": None},
    lambda r: [[1, 2], [3]],
    lambda r: [[1], 2],
    lambda r: [1, "a", None, [True]],
    lambda r: nested(r.choice((3, 33, 40, 63, 64, 65, 200)), r),
    lambda r: list(range(r.choice((10, 2000)))),
    lambda r: {str(i): i for i in range(r.choice((10, 500)))},
    lambda r: [r.choice(DIMENSIONS) for _ in range(r.choice((0, 1, 2, 2, 3, 9, 33, 65, 100)))],
    lambda r: {"shape": [2**40, 2**40], "values": [1]},
    lambda r: {"shape": [r.choice(DIMENSIONS) for _ in range(r.randrange(4))], "values": [1] * r.randrange(5)},
    lambda r: {"shape": [0, 2**31], "values": []},
    lambda r: tftensor(r),
    lambda r: {"tftensor": tftensor(r)},
    lambda r: {"ndarray": r.choice(([], [[]], [[[]]], 1, "a", None, {}, [None], [{}], ["a", 1], [[1], [1, 2]]))},
)


def nested(depth: int, r: random.Random) -> Any:
    """Lists or objects in one another."""
    value: Any = 1
    for _ in range(depth):
        value = [value] if r.random() < 0.7 else {"a": value}
    return value


def tftensor(r: random.Random) -> dict[str, Any]:
    """A ``TensorProto`` of some type, whose shape and values may lie."""
    field = r.choice(VALUE_FIELDS)
    count = r.choice((0, 1, 2, 4))
    values: Any = [
        r.choice((0, 1, -1, 3, 255, 65_536, 2**31, 2**63, 2**64, 1.5, "1", "AA==", True, None, "x", "NaN"))
        for _ in range(count)
    ]
    if field in ("tensorContent", "float8Val"):
        values = base64.b64encode(r.randbytes(r.choice((0, 1, 2, 4, 8, 16, 32)))).decode()
    sizes = [r.choice((0, 1, 2, 2, 4, -1, 2**10, 2**23, 2**40, 2**62, 2**63, "2", None)) for _ in range(count)]
    shape: Any = {"dim": [{"size": size} for size in sizes]}
    if r.random() < 0.1:
        shape = r.choice((None, {}, [], {"unknownRank": True}, {"dim": {}}, {"dim": [{"size": []}]}))
    if r.random() < 0.5:
        shape = {"dim": [{"size": str(count)}]}
    return {"dtype": r.choice(DTYPES), "tensorShape": shape, field: values}


def places(value: Any) -> list[tuple[Any, Any]]:
    """All places in a value: container and key."""
    found: list[tuple[Any, Any]] = []
    stack = [value]
    while stack:
        item = stack.pop()
        keys = list(item) if isinstance(item, dict) else range(len(item)) if isinstance(item, list) else ()
        for key in keys:
            found.append((item, key))
            stack.append(item[key])
    return found


def mutated(value: Any, r: random.Random) -> Any:
    """A value with a few changes."""
    value = copy.deepcopy(value)
    for _ in range(r.choice((0, 1, 1, 1, 1, 2, 3))):
        found = places(value)
        if not found or r.random() < 0.03:
            value = r.choice(STRANGE)(r)
            continue
        container, key = r.choice(found)
        kind = r.randrange(10)
        if kind < 6:
            container[key] = r.choice(STRANGE)(r)
        elif kind == 6:
            del container[key]
        elif kind == 7:
            other, name = r.choice(found)
            if not _holds(other[name], container):
                container[key] = copy.deepcopy(other[name])
        elif isinstance(container, dict):
            container[r.choice(("data", "strData", "ndarray", "tensor", "meta", "x", "shape", "\ud800"))] = r.choice(
                STRANGE
            )(r)
        else:
            container.extend(copy.deepcopy(container[:3]))
    return value


def _holds(value: Any, part: Any) -> bool:
    return value is part or any(container is part for container, _ in places(value))


def json_text(value: Any, r: random.Random) -> bytes:
    """The JSON of a value, sometimes broken afterwards; NaN, lone surrogates and big numbers are in it as they are."""
    raw = json.dumps(value, ensure_ascii=r.random() < 0.5).encode("utf-8", "surrogatepass")
    kind = r.random()
    if kind < 0.85 or not raw:
        return raw
    at = r.randrange(len(raw))
    if kind < 0.87:
        return raw[:at]
    if kind < 0.90:
        return raw[:at] + r.choice((b"\x00", b"\xff", b'"', b"[", b"}", b",", b"1e999", b"NaN", b"\\u0000")) + raw[at:]
    if kind < 0.93:
        return raw[:at] + raw[at + r.randrange(1, 4) :]
    if kind < 0.96:  # keys that come twice
        return raw.replace(b'{"', b'{"data": 1, "meta": null, "', 1)
    if kind < 0.98:
        return r.choice((b"", b"null", b"\xef\xbb\xbf" + raw, raw.decode("utf-8", "replace").encode("utf-16"), raw * 2))
    return bytes(r.choice(raw + b"\x00\xff") for _ in range(min(len(raw), 200)))


def requests(seed: int, count: int) -> Iterator[Request]:
    """So many requests over all paths and content types."""
    r = random.Random(seed)
    known = seeds()
    for _ in range(count):
        yield _request(r, known)


_KINDS = {"aggregate": "list", "feedback": "feedback", "send-feedback": "feedback"}


def _kind(body: Any) -> str:
    """Which operations a body is for."""
    if isinstance(body, list) or "seldonMessages" in body:
        return "list"
    return "feedback" if "request" in body or "reward" in body else "message"


def _request(r: random.Random, known: list[Any]) -> Request:
    kind = r.random()
    path = r.choice(PATHS)
    if kind < 0.05:
        path = r.choice(STRANGE_PATHS if r.random() < 0.5 else PAGES)
    method = r.choice(METHODS) if r.random() < 0.15 else "POST"
    fitting = [seed for seed in known if _kind(seed) == _KINDS.get(path.rpartition("/")[2], "message")]
    text = json_text(mutated(r.choice(fitting if r.random() < 0.9 else known), r), r)
    content_type, body, query = JSON, text, b""
    way = r.random()
    if way < 0.10:
        content_type, body = "application/x-www-form-urlencoded", _form(text, r)
    elif way < 0.22:
        content_type, body = _multipart(text, r)
    elif way < 0.27:
        query, body = b"?" + _form(text[:2000], r)[:6000].translate(None, b"\r\n\t\x00 #"), b""
    elif way < 0.35:
        content_type = r.choice(CONTENT_TYPES)
    headers = [("content-type", content_type)] if content_type or r.random() < 0.5 else []
    if r.random() < 0.05:
        headers.append(r.choice(ODD_FIELDS))
    return Request(method, path.encode() + query, tuple(headers), body)


ODD_FIELDS = (
    ("x-request-id", "a" * 300), ("x-request-id", "\xff"), ("x-request-timeout-ms", "nan"), ("seldon-puid", "a\tb"),
    ("x-request-timeout-ms", "-1"), ("content-encoding", "gzip"), ("content-encoding", "identity"), ("expect", "x"),
    ("accept", "\xe9"), ("cookie", "=;=;;"), ("origin", "null"), ("x-http-method-override", "DELETE"),
    ("mlrun-event-path", "/metadata"), ("x-original-url", "/metadata"), ("upgrade", "websocket"),
)  # fmt: skip


def _form(text: bytes, r: random.Random) -> bytes:
    kind = r.random()
    if kind < 0.7:
        return b"json=" + quote(text).encode() + (b"&isDefault=true" if r.random() < 0.3 else b"")
    if kind < 0.8:
        return b"json=" + text
    if kind < 0.9:
        return b"&".join(b"a%d=%d" % (i, i) for i in range(r.choice((3, 999, 1001, 3000))))
    return r.choice(
        (b"json", b"json=", b"=", b"&&&", b"%", b"json=%", b"json=%zz", b"%ff=%ff", b"json[]=1", b"+" * 999)
    )


PART_HEADS = (
    b'Content-Disposition: form-data; name="%b"',
    b'Content-Disposition: form-data; name="%b"; filename="f"',
    b"Content-Disposition: form-data; name=%b; filename*=utf-8''%%ff",
    b'content-disposition: form-data; name="%b"\r\nContent-Transfer-Encoding: base64',
    b'content-disposition: form-data; name="%b"\r\nContent-Type: application/json; charset=nothing',
    b'content-disposition: form-data; name*0="%b"; name*1=x; name*9999999999=y',
    b"Content-Disposition: %b",
    b"Content-Disposition: form-data; name=\"%b",
    b"Content-Disposition: form-data; =%b;;;\r\nContent-Type: multipart/mixed; boundary=b",
    b"Content-Type: message/rfc822\r\n\r\nContent-Disposition: form-data; name=%b",
    b": %b",
    b"%b",
    b"Content-Disposition: form-data; name=\"=?utf-8?q?%b?=\"\r\n folded",
    b"Content-Disposition: form-data; name*=\xff\xfe''%b\x00",
    b'Content-Disposition: form-data; name="%b"\r\nContent-Transfer-Encoding: x-uuencode',
    b'Content-Disposition: form-data; name="%b"\r\nContent-Transfer-Encoding: quoted-printable',
    b'Content-Disposition: form-data; name="%b"\r\nContent-Type: multipart/mixed; boundary="b"',
)  # fmt: skip


def _multipart(text: bytes, r: random.Random) -> tuple[str, bytes]:
    boundary = "b" if r.random() < 0.7 else r.choice(("-" * 70, "", '"b"', "b\\", "a b", "\xe9", "b" * 500))
    raw = boundary.strip('"').encode("latin-1")
    parts = []
    for _ in range(r.choice((0, 1, 1, 2, 3, 20))):
        name = r.choice((b"data", b"strData", b"binData", b"jsonData", b"meta", b"json", b"", b"\xff", b"a" * 200))
        head = r.choice(PART_HEADS[:2] if r.random() < 0.6 else PART_HEADS)
        try:
            value = json.loads(text)
            content = json.dumps(value["data"]).encode() if name == b"data" else text
        except (ValueError, LookupError, TypeError):
            content = text
        parts.append(b"--%b\r\n%b\r\n\r\n%b\r\n" % (raw, head % name, content))
    body = b"".join(parts) + b"--%b--\r\n" % raw
    kind = r.random()
    if kind < 0.1:
        body = body[: r.randrange(len(body))]
    elif kind < 0.15:
        body = body.replace(b"\r\n", b"\n")
    elif kind < 0.2:
        body = r.randbytes(50) + body
    elif kind < 0.22:
        body = (b"--%b\r\n" % raw) * r.choice((10, 1500))
    return f"multipart/form-data; boundary={boundary}", body
