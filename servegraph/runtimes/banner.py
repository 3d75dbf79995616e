"""What a server tells on standard error once it is ready: what it serves, where, and a request that works."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from servegraph import __version__, jsoncodec
from servegraph.graph.flow import FlowGraph
from servegraph.graph.steps import RouterStep, Step
from servegraph.runtimes.listening import HTTP
from servegraph.runtimes.server import GraphServer
from servegraph.runtimes.worker_protocol import WorkerInfo
from servegraph.serving.description import DESCRIBE, EXAMPLE_INPUTS, SelfDescription
from servegraph.serving.ensembles import VotingEnsemble
from servegraph.serving.model_spec import Feature
from servegraph.serving.routers import BaseModelRouter
from servegraph.serving.v2 import V2ModelServer

EXAMPLE_BODY = "example_body"
"""A function's parameter: the body of the example request."""

_MOST_LINES = 12
_LONGEST_BODY = 1000
_READY = "/v2/health/ready"
_ANY_SIZE = (None, -1)
_EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - compared with, not listened on


@dataclass(frozen=True, slots=True)
class Example:
    """A request that the server answers."""

    path: str
    body: bytes | None = None
    """JSON to POST; ``None`` is a GET."""
    also: str = ""
    """Another path that answers the same."""

    def curl(self, url: str) -> str:
        """The request as a line for a shell."""
        if self.body is None:
            return f"curl -s {shlex.quote(url + self.path)}"
        body = shlex.quote(self.body.decode())
        return f"curl -s {shlex.quote(url + self.path)} -H 'Content-Type: application/json' -d {body}"


def banner(server: GraphServer, worker: WorkerInfo) -> str:
    """The text for a worker's server whose models are loaded; ends with a line break."""
    further = {name: port for name, port in worker.ports.items() if name != HTTP}
    everywhere = worker.host if worker.host in _EVERYWHERE else ""
    return describe(server, reachable_url(worker.host, worker.port), further, everywhere)


def describe(server: GraphServer, url: str, ports: Mapping[str, int] | None = None, everywhere: str = "") -> str:
    """The text for a server that is reached at a URL; ends with a line break.

    Args:
        server: the server, with its models loaded.
        url: where its HTTP edge is.
        ports: the ports of its further edges, by their names.
        everywhere: the address that it listens on, where that stands for all of this machine.
    """
    host = url.removeprefix("http://").rpartition(":")[0]
    rows = [*_served(server), ("URL", url), *((name, f"{host}:{port}") for name, port in (ports or {}).items())]
    rows += [("listens", f"on {everywhere}: all addresses of this machine")] if everywhere else []
    request = example(server)
    rows += [("docs", f"{url}/docs"), ("try", request.curl(url))]
    rows += [("also at", url + request.also)] if request.also else []
    width = max(len(label) for label, _ in rows)
    told = described(server)
    title = told.title if told is not None and told.title else server.function.uri
    lines = [f"servegraph {__version__} serves {title}", ""]
    lines += [f"  {label:<{width}}  {text}" for label, text in rows]
    return "\n".join(["", *lines, "", ""])


def reachable_url(host: str, port: int) -> str:
    """The URL at which this machine reaches a server that listens on an address."""
    if host in _EVERYWHERE:  # the loopback address is among them
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


# -- what is served ----------------------------------------------------------------------------------------------------


def _served(server: GraphServer) -> list[tuple[str, str]]:
    told = described(server)
    if told is not None and told.rows:
        rows = list(told.rows)
    elif isinstance(server.graph, FlowGraph):
        rows = []
        for name, step in server.graph.steps.items():
            rows.append((_kind(step), _step(server, step)))
            if isinstance(step, RouterStep):
                rows += [(f"  {label}", text) for label, text in _models(server, name, step)]
    else:
        rows = _models(server, server.graph.name or "router", server.graph)
    if len(rows) > _MOST_LINES:
        rows = [*rows[: _MOST_LINES - 1], ("", f"and {len(rows) - _MOST_LINES + 1} more")]
    return rows


def _models(server: GraphServer, router: str, step: RouterStep) -> list[tuple[str, str]]:
    target = server.plan.objects.get(router)
    rows = [("ensemble", type(target).__name__)] if isinstance(target, VotingEnsemble) else []
    for key, route in step.routes.items():
        model = server.plan.objects.get(f"{router}/{key}")
        code = _loaded(model) if isinstance(model, V2ModelServer) else _code(route)
        rows.append(("model", f"{key}: {code}"))
    return rows


def _loaded(model: V2ModelServer) -> str:
    kind = type(model).__name__
    if model.ready:
        return f"{kind}, loaded in {model.loader.seconds:.2f} s" if model.loader.attempts else kind
    return f"{kind}, {model.loader.state.value}"


def _kind(step: Step) -> str:
    return {"task": "step", "error_step": "handler"}.get(step.kind, step.kind)


def _step(server: GraphServer, step: Step) -> str:
    after = f" after {', '.join(step.after)}" if step.after else ""
    answers = ", answers" if step.responder else ""
    target = server.plan.objects.get(step.name)
    code = type(target).__name__ if target is not None else _code(step)
    return f"{step.name}{'' if code == step.name else f': {code}'}{after}{answers}"


def _code(step: Step) -> str:
    source = step.class_name if step.class_name is not None else step.handler
    if source is None:
        return "ModelRouter" if isinstance(step, RouterStep) else step.kind
    return source if isinstance(source, str) else getattr(source, "__qualname__", type(source).__qualname__)


# -- the example request -----------------------------------------------------------------------------------------------


def described(server: GraphServer) -> SelfDescription | None:
    """What the one step of a graph tells of its own paths; ``None`` for all other graphs."""
    direct = server.plan.direct
    tell = getattr(direct.target, DESCRIBE, None) if direct is not None else None
    told = tell() if callable(tell) else None
    return told if isinstance(told, SelfDescription) else None


def example(server: GraphServer) -> Example:
    """A request for a server's graph: what the function or a model gives as its example, else a model of zeros by its
    metadata, else whether it is ready.
    """
    told = described(server)
    if told is not None:
        if told.body is None:
            return Example(told.path)
        return replace(_post(told.path, server.context.get_param(EXAMPLE_BODY, told.body)), also=told.also)
    if isinstance(server.graph, FlowGraph):
        body = server.context.get_param(EXAMPLE_BODY)
        return _post("/", body) if body is not None else Example(_READY)
    router = server.plan.objects.get(server.graph.name or "router")
    if not isinstance(router, BaseModelRouter):
        return Example(_READY)
    candidates = [(k.partition("/")[2], m) for k, m in server.models.items()]
    for given in (_given_rows, _zero_rows):
        for key, model in candidates:
            rows = given(model)
            if rows is not None:
                whole = isinstance(router, VotingEnsemble)
                path = f"{router.url_prefix if whole else _base(router, key)}/infer"
                return _post(path, {router.inputs_key: rows}, Example(f"{_base(router, key)}/ready"))
    return Example(f"{_base(router, candidates[0][0])}/ready") if candidates else Example(router.url_prefix)


def _base(router: BaseModelRouter, key: str) -> str:
    name, _, version = key.partition(":")
    return f"{router.url_prefix}/{name}" + (f"/versions/{version}" if version else "")


def _post(path: str, body: Any, otherwise: Example | None = None) -> Example:
    raw = jsoncodec.dumps(body)
    return Example(path, raw) if len(raw) <= _LONGEST_BODY else otherwise or Example(_READY)


def _given_rows(model: V2ModelServer) -> Any:
    rows = model.get_param(EXAMPLE_INPUTS)
    return rows if rows is not None else getattr(model, EXAMPLE_INPUTS, None)


def _zero_rows(model: V2ModelServer) -> Any:
    inputs: Sequence[Feature] = model.model_spec.inputs if model.model_spec is not None else ()
    if not inputs:
        return None
    row = [_zeros(feature) for feature in inputs]
    # A single input that is an array is the row itself.
    return row if len(inputs) == 1 and inputs[0].shape else [row]


def _zeros(feature: Feature) -> Any:
    value: Any = {"BOOL": False, "BYTES": ""}.get(feature.datatype, 0 if "INT" in feature.datatype else 0.0)
    shape = list(feature.shape or ())
    if shape and shape[0] in _ANY_SIZE:
        shape.pop(0)  # the rows of a request
    for size in reversed(shape):
        value = [value] * (1 if size is None or size in _ANY_SIZE else size)
    return value
