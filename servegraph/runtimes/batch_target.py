"""What a batch's rows are sent to: the path, the form of the bodies, and where the outputs are in an answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from servegraph.errors import NotFoundError, SettingsError, StepError, closest
from servegraph.runtimes.batch_bodies import Shape
from servegraph.runtimes.batch_options import BatchOptions
from servegraph.runtimes.server import GraphServer
from servegraph.serving.enrichment import EnrichmentModelRouter, EnrichmentVotingEnsemble
from servegraph.serving.routers import BaseModelRouter, ModelRouter
from servegraph.serving.v2 import V2ModelServer

_TAKE_NAMES = (EnrichmentModelRouter, EnrichmentVotingEnsemble)
_OUTPUT_KEYS = ("outputs", "predictions")


@dataclass(frozen=True, slots=True)
class Target:
    """Where events go, and what is made of their answers."""

    path: str
    shape: Shape
    by_row: bool
    """Whether an answer is taken apart into one output for each row."""
    model: str | None = None
    """The only model that gets rows, by its key among the server's models."""

    def outputs(self, answer: Any, rows: int) -> Sequence[Any]:
        """The outputs in an answer to an event of so many rows.

        Raises:
            StepError: the answer holds no list with an output for each row.
        """
        if not self.by_row:
            return [answer]
        found = answer
        if isinstance(answer, dict):
            found = next((answer[k] for k in _OUTPUT_KEYS if k in answer), None)
        if hasattr(found, "tolist"):
            found = found.tolist()
        if isinstance(found, (list, tuple)) and len(found) == rows:
            return found
        held = f"{len(found)} outputs" if isinstance(found, (list, tuple)) else "no list of outputs"
        raise StepError(
            f"the answer to {rows} row{'s' if rows > 1 else ''} holds {held}: outputs='answers' keeps answers whole"
        )


def find_target(server: GraphServer, options: BatchOptions, *, bodies: bool) -> Target:
    """The target of a run.

    Args:
        server: the server whose graph gets the rows.
        options: what was asked for.
        bodies: whether the rows are bodies already, so that single ones go as they are.

    Raises:
        SettingsError: there is no such model.
    """
    path, key, router = options.path or "/", None, _first_router(server)
    if options.model is not None:
        path, key, router = _model(server, options.model)
    to_model = router is not None or key is not None or _first_is_model(server)
    body = options.body
    if body is None:
        if bodies and options.rows_per_request == 1 and options.columns is None:
            body = "as_is"
        elif to_model:
            body = "inputs"
        else:
            body = "row" if options.rows_per_request == 1 else "list"
    shape = Shape(
        body,
        options.rows_per_request,
        None if options.columns is None else tuple(str(c) for c in options.columns),
        options.timestamp_column,
        router.inputs_key if router is not None else "inputs",
        named=path.endswith("_dict") or isinstance(router, _TAKE_NAMES),
        chosen=options.body is not None,
    )
    by_row = options.outputs == "rows" if options.outputs is not None else body in ("inputs", "list")
    return Target(path, shape, by_row, key)


def _first_router(server: GraphServer) -> BaseModelRouter | None:
    """The router of models that gets what the caller sends."""
    starts = server.plan.starts
    target = starts[0].target if len(starts) == 1 else None
    return target if isinstance(target, ModelRouter) else None


def _first_is_model(server: GraphServer) -> bool:
    starts = server.plan.starts
    return len(starts) == 1 and isinstance(starts[0].target, V2ModelServer)


def _model(server: GraphServer, name: str) -> tuple[str, str | None, BaseModelRouter | None]:
    """The path that leads to a model, its key, and the router that it belongs to."""
    if name in server.models:
        return "/", name, None  # a step by itself
    model, _, version = name.partition(":")
    for router in server.plan.objects.values():
        if not isinstance(router, ModelRouter):
            continue
        try:
            route = router.find(model, version)
        except NotFoundError:
            continue
        key = next((k for k, m in server.models.items() if m is route.target), None)
        return f"{router.url_prefix}/{name}/infer", key, router
    known = [k.rpartition("/")[2] for k in server.models]
    raise SettingsError(f"there is no model {name!r}; {closest(name, known)}")
