"""What a deployment answers about itself: readiness, the state and metadata of its nodes, its interface."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from servegraph.errors import MethodNotAllowedError, NotFoundError, closest
from servegraph.graph.events import Event, Response
from servegraph.serving.description import SelfDescription
from servegraph.serving.seldon.deployment_described import describe_deployment
from servegraph.serving.seldon.metadata import graph_to_proto, model_to_proto, requested_name
from servegraph.serving.seldon.predictors import SeldonPredictor
from servegraph.serving.seldon.unit import SeldonUnit

GRAPH_METADATA: Final = "/api/v1.0/metadata"
"""The path by which gRPC asks for the metadata of the graph."""
MODEL_METADATA: Final = "/metadata"
"""The path by which gRPC asks for that of a node."""
_VERSIONS: Final = ("v1.0", "v0.1")


class Pages:
    """The pages of a deployment.

    Args:
        deployment: its name.
        outer: the paths that its pages are also below; the first one is shown.
        predictors: all of its predictors by name, the first one first.
    """

    def __init__(self, deployment: str, outer: Sequence[str], predictors: Mapping[str, SeldonPredictor]) -> None:
        self._deployment = deployment
        self._outer = tuple(outer)
        self._predictors = predictors
        self._main = next(p for p in predictors.values() if not p.shadow)

    def describe(self) -> SelfDescription:
        """The paths of the deployment, and a request that it answers."""
        return describe_deployment(self._deployment, self._outer[0], self._predictors)

    async def answer(self, event: Event, predictor: SeldonPredictor | None = None) -> Response:
        """The page at the path of a request, inner or outer.

        Args:
            event: the request.
            predictor: the one whose nodes are asked for; without it the first.

        Raises:
            NotFoundError: there is none.
            MethodNotAllowedError: it is for GET.
            NodeError: a node has no metadata, or is not well.
        """
        path, method = event.path, event.method or "GET"
        prefix = next((outer for outer in self._outer if path.startswith(f"{outer}/")), "")
        parts = path.removeprefix(prefix).strip("/").split("/")
        if not _is_page(parts):
            at = "/api/v1.0/predictions"
            raise NotFoundError(f"no such path: {path[:120]}; predictions are at {at} and {self._outer[0]}{at}")
        if method not in ("GET", "HEAD"):
            raise MethodNotAllowedError(f"{path[:120]} is for GET, not {method[:20]}", allow=("GET", "HEAD"))
        if parts in (["live"], ["ready"]):
            ready = parts == ["live"] or await self._ready()
            return Response(None, None if ready else "", None, 200 if ready else 503)
        if parts[2] == "metadata":
            return _json(await self._metadata("/".join(parts[3:]), predictor))
        return await self._api(parts[2], "/".join(parts[3:]), predictor, event)

    async def message(self, path: str, data: bytes, predictor: SeldonPredictor | None = None) -> Any:
        """The protobuf message that a gRPC method answers with; see `answer`.

        Args:
            path: `GRAPH_METADATA` or `MODEL_METADATA`.
            data: the bytes of the request; for a node a ``SeldonModelMetadataRequest`` with its name.
            predictor: the one that is asked.

        Raises:
            NotFoundError: there is no such node.
            SeldonMicroserviceException: the bytes are no request (400).
            NodeError: a node has no metadata.
        """
        if path == GRAPH_METADATA:
            return graph_to_proto(await self._metadata("", predictor))
        name = requested_name(data)
        return model_to_proto(await self._unit(name, predictor).describe())

    async def _metadata(self, name: str, predictor: SeldonPredictor | None) -> dict[str, Any]:
        """What a node says of itself; all of them with an empty name."""
        if name:
            return await self._unit(name, predictor).describe()
        return await (predictor or self._main).metadata()

    async def _api(self, what: str, name: str, predictor: SeldonPredictor | None, event: Event) -> Response:
        if what == "doc":
            return _json(self.describe().openapi)
        if what == "status" and name:
            return _json(await self._unit(name, predictor).health(event))
        ready = await self._ready()
        return _json({"data": {"names": [], "ndarray": ["healthy" if ready else "not ready"]}}, 200 if ready else 503)

    def _unit(self, name: str, predictor: SeldonPredictor | None = None) -> SeldonUnit:
        predictors = self._predictors.values() if predictor is None else (predictor,)
        for one in predictors:
            if name in one.units:
                return one.units[name]
        known = [n for p in predictors for n in p.units]
        raise NotFoundError(f"there is no node {name[:80]!r}; {closest(name[:80], known)}")

    async def _ready(self) -> bool:
        units = [u for p in self._predictors.values() if not p.shadow for u in p.units.values()]
        local = [u for u in units if u.remote is None]
        remote = [u.remote.ready() for u in units if u.remote is not None]
        return all(u.loaded for u in local) and (not remote or all(await asyncio.gather(*remote)))


def _is_page(parts: list[str]) -> bool:
    """Whether the parts of an inner path are those of a page; which nodes there are is not looked at."""
    if parts in (["live"], ["ready"]):
        return True
    if len(parts) < 3 or parts[0] != "api" or parts[1] not in _VERSIONS:
        return False
    return parts[2] in ("metadata", "status") or parts[2:] in (["doc"], ["health", "status"], ["health", "ping"])


def _json(body: Any, status: int = 200) -> Response:
    return Response(None, body, "application/json", status)
