"""The server's OpenAPI 3.1 document, made from the function that it serves, and a page that shows it."""

from __future__ import annotations

import html
from typing import Any

from servegraph import __version__
from servegraph.runtimes.banner import described, example
from servegraph.runtimes.server import GraphServer
from servegraph.serving.ensembles import VotingEnsemble
from servegraph.serving.routers import BaseModelRouter
from servegraph.serving.v2 import V2ModelServer

_OWN = "op_"
_PROBLEM = {"$ref": "#/components/schemas/Problem"}


def openapi(server: GraphServer) -> dict[str, Any]:
    """The OpenAPI document of a server: its own paths, and those of its models or its flow."""
    told = described(server)
    steps = told.openapi if told is not None and told.openapi else {"paths": _graph_paths(server)}
    paths = {**_own_paths(), **steps["paths"]}
    schemas = {**_SCHEMAS, **steps.get("components", {}).get("schemas", {})}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": told.title if told is not None and told.title else server.function.name,
            "version": server.function.tag or "latest",
            "description": server.function.spec.description or f"Served by servegraph {__version__}.",
        },
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _own_paths() -> dict[str, Any]:
    return {
        "/v2": {"get": _get("Name, version and models of the server", "Server")},
        "/v2/health/live": {"get": _get("Whether the process answers", "Live")},
        "/v2/health/ready": {
            "get": _get("Whether every model is loaded", "Ready", {"503": _answer("Not ready", "Ready")})
        },
        "/v2/limits": {"get": _get("The limits on requests", "Any")},
        "/metrics": {
            "get": {
                "summary": "Counters and latency in Prometheus text form",
                "responses": {"200": {"description": "Metrics", "content": {"text/plain": {}}}},
            }
        },
    }


def _graph_paths(server: GraphServer) -> dict[str, Any]:
    routers = [o for o in server.plan.objects.values() if isinstance(o, BaseModelRouter)]
    if len(routers) != 1 or not hasattr(server.graph, "routes"):
        operation = _post("Send an event through the graph", "Any", "Any")
        operation["responses"]["204"] = {"description": "The graph gave no result; x-no-result says why"}
        return {"/": {"post": operation}}
    router = routers[0]
    paths: dict[str, Any] = {router.url_prefix: {"get": _get("The models", "Models")}}
    for key in router.models():
        name, _, version = key.partition(":")
        base = f"{router.url_prefix}/{name}" + (f"/versions/{version}" if version else "")
        paths[base] = {"get": _get(f"Metadata of {key}", "Metadata")}
        ready = _get(f"Whether {key} is loaded", "Any", {"503": _answer("Not ready", "Problem")})
        ready["responses"]["200"] = {"description": "Ready", "content": {"text/plain": {}}}
        paths[f"{base}/ready"] = {"get": ready}
        route = router.routes.get(key)
        for name, operation in _operations(key, route.target if route is not None else None).items():
            paths[f"{base}/{name}"] = {"post": operation}
    if isinstance(router, VotingEnsemble):
        paths[f"{router.url_prefix}/infer"] = {"post": _post("The vote of all models", "Inference", "Prediction")}
    return paths


def _operations(key: str, model: Any) -> dict[str, Any]:
    """What a model can be asked to do: those of its operations that it surely answers."""
    found = {"infer": _post(f"Predict with {key}", "Inference", "Prediction")}
    if not isinstance(model, V2ModelServer):
        return found
    if model.model_spec is not None and model.model_spec.inputs:
        found["infer_dict"] = _post(f"Predict with {key}, with rows by the names of its inputs", "Inference", "Any")
    if type(model).explain is not V2ModelServer.explain:
        found["explain"] = _post(f"Explain a prediction of {key}", "Inference", "Any")
    for name in sorted(n for n in dir(type(model)) if n.startswith(_OWN) and n != _OWN):
        operation = name.removeprefix(_OWN)
        found[operation] = _post(f"Operation {operation} of {key}", "Any", "Any")
    return found


def _get(summary: str, schema: str, more: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"summary": summary, "responses": {"200": _answer(summary, schema), **(more or {})}}


def _post(summary: str, body: str, answer: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{body}"}}}
    failures = {
        code: {"description": text, "content": {"application/problem+json": {"schema": _PROBLEM}}}
        for code, text in _FAILURES.items()
    }
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": content},
        "responses": {"200": _answer("The answer", answer), **failures},
    }


def _answer(text: str, schema: str) -> dict[str, Any]:
    kind = "application/problem+json" if schema == "Problem" else "application/json"
    return {"description": text, "content": {kind: {"schema": {"$ref": f"#/components/schemas/{schema}"}}}}


_FAILURES = {
    "400": "The request is wrong",
    "404": "No such model, version or operation",
    "408": "The body did not arrive in time",
    "413": "The body is too large",
    "415": "The body's encoding is not accepted",
    "422": "The model cannot take this",
    "500": "The model or the server failed",
    "503": "Not ready, or too much work; see Retry-After",
    "504": "The request's time was up",
}

_TENSOR = {
    "type": "object",
    "required": ["name", "shape", "datatype", "data"],
    "properties": {
        "name": {"type": "string"},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1, "maxItems": 8},
        "datatype": {"type": "string"},
        "data": {"type": "array"},
    },
}
_SCHEMAS: dict[str, Any] = {
    "Any": {},
    "Tensor": _TENSOR,
    "Live": {"type": "object", "required": ["live"], "properties": {"live": {"type": "boolean"}}},
    "Ready": {"type": "object", "required": ["ready"], "properties": {"ready": {"type": "boolean"}}},
    "Server": {"type": "object", "required": ["name", "version", "extensions"]},
    "Models": {"type": "object", "properties": {"models": {"type": "array", "items": {"type": "string"}}}},
    "Metadata": {"type": "object", "required": ["name", "versions", "platform", "inputs", "outputs"]},
    "Inference": {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string"},
            "inputs": {
                "type": "array",
                "description": "Rows (MLRun style), or tensors with name, shape, datatype and data "
                "(Open Inference Protocol).",
            },
        },
    },
    "Prediction": {
        "type": "object",
        "required": ["id", "model_name", "outputs"],
        "properties": {"id": {"type": "string"}, "model_name": {"type": "string"}, "outputs": {}},
    },
    "Problem": {
        "type": "object",
        "description": "RFC 9457",
        "required": ["title", "status", "detail", "request_id"],
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "request_id": {"type": "string"},
            "step": {"type": "string"},
            "model": {"type": "string"},
        },
    },
}

_STYLE = """
:root{color-scheme:light dark;--line:#8884;--soft:#8881}
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
h1{margin-bottom:0}p.sub{margin-top:.2rem;opacity:.7}
table{border-collapse:collapse;width:100%}td{padding:.45rem .6rem;border-top:1px solid var(--line);vertical-align:top}
code,pre{font:14px/1.45 ui-monospace,monospace}
pre{background:var(--soft);padding:.8rem;border-radius:.5rem;overflow:auto}
.verb{display:inline-block;min-width:3.2rem;text-align:center;border-radius:.3rem;padding:.05rem .3rem;color:#fff;
font:600 12px/1.6 ui-monospace,monospace}.GET{background:#2563a8}.POST{background:#2a7d4f}
"""


def docs_page(server: GraphServer, url: str) -> bytes:
    """A page that lists every path, with a request to copy. It loads nothing from anywhere else.

    Args:
        server: what is served.
        url: where the reader reaches it.
    """
    document = openapi(server)
    rows = [
        f'<tr><td><span class="verb {verb.upper()}">{verb.upper()}</span></td>'
        f"<td><code>{html.escape(path)}</code></td>"
        f"<td>{html.escape(operation['summary'])}</td></tr>"
        for path, verbs in document["paths"].items()
        for verb, operation in verbs.items()
    ]
    title = html.escape(document["info"]["title"])
    request = example(server)
    line = html.escape(request.curl(url))
    also = f"<p>Also at <code>{html.escape(url + request.also)}</code>.</p>" if request.also else ""
    page = f"""<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>
<h1>{title}</h1><p class="sub">{html.escape(document["info"]["description"])}
The machine-readable form is <a href="/openapi.json">openapi.json</a>.</p>
<h2>Try it</h2><pre>{line}</pre>{also}<h2>Paths</h2><table>{"".join(rows)}</table>
<p>Every answer has <code>X-Request-Id</code>; send your own to set it. <code>X-Request-Timeout-Ms</code> shortens a
request's time, <code>X-Server-Timing: 1</code> asks where it went.</p></body></html>"""
    return page.encode()
