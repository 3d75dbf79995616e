"""What a deployment answers about itself: readiness, the state and metadata of its nodes, its interface."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from servegraph.errors import MethodNotAllowedError, NotFoundError, closest
from servegraph.graph.events import Response
from servegraph.serving.seldon.predictors import SeldonPredictor
from servegraph.serving.seldon.unit import SeldonUnit

_VERSIONS: Final = ("v1.0", "v0.1")


class Pages:
    """The pages of a deployment.

    Args:
        deployment: its name.
        prefix: the outer path that its pages are also at.
        predictors: all of its predictors by name, the first one first.
    """

    def __init__(self, deployment: str, prefix: str, predictors: Mapping[str, SeldonPredictor]) -> None:
        self._deployment = deployment
        self._prefix = prefix
        self._predictors = predictors
        self._main = next(p for p in predictors.values() if not p.shadow)

    async def answer(self, path: str, method: str) -> Response:
        """The page at a path.

        Raises:
            NotFoundError: there is none.
            MethodNotAllowedError: it is for GET.
        """
        page = path.removeprefix(self._prefix) if path.startswith(f"{self._prefix}/") else path
        parts = page.strip("/").split("/")
        if parts in (["live"], ["ready"]):
            _only_get(path, method)
            ready = parts == ["live"] or await self._ready()
            return Response(None, None if ready else "", None, 200 if ready else 503)
        if len(parts) < 3 or parts[0] != "api" or parts[1] not in _VERSIONS:
            raise NotFoundError(f"no such path: {path[:120]}; predictions are at /api/v1.0/predictions")
        _only_get(path, method)
        return await self._api(path, parts[2:])

    async def _api(self, path: str, parts: list[str]) -> Response:
        what, name = parts[0], "/".join(parts[1:])
        if what == "doc" and not name:
            return _json(self._doc())
        if what == "metadata":
            return _json(self._main.metadata() if not name else self._main.metadata()["models"][self._unit(name).name])
        if (what, name) in (("health", "status"), ("health", "ping"), ("status", "")):
            ready = await self._ready()
            return _json(
                {"data": {"names": [], "ndarray": ["healthy" if ready else "not ready"]}}, 200 if ready else 503
            )
        if what == "status":
            ready = await _is_ready(self._unit(name))
            return _json({"name": name, "ready": ready}, 200 if ready else 503)
        raise NotFoundError(f"no such path: {path[:120]}")

    def _unit(self, name: str) -> SeldonUnit:
        for predictor in self._predictors.values():
            if name in predictor.units:
                return predictor.units[name]
        known = [n for p in self._predictors.values() for n in p.units]
        raise NotFoundError(f"there is no node {name[:80]!r}; {closest(name[:80], known)}")

    async def _ready(self) -> bool:
        units = [u for p in self._predictors.values() if not p.shadow for u in p.units.values()]
        local = [u for u in units if u.remote is None]
        remote = [u.remote.ready() for u in units if u.remote is not None]
        return all(u.loaded for u in local) and (not remote or all(await asyncio.gather(*remote)))

    def _doc(self) -> dict[str, Any]:
        """A short OpenAPI description of the predictions and the feedback."""
        answer = {"responses": {"200": {"description": "A SeldonMessage."}}}
        message = {"content": {"application/json": {"schema": {"type": "object"}}}, "required": True}
        paths = {
            f"{prefix}/api/{version}/{what}": {"post": {"requestBody": message, **answer}}
            for prefix in ("", self._prefix)
            for version in _VERSIONS
            for what in ("predictions", "feedback")
        }
        return {"openapi": "3.0.3", "info": {"title": self._deployment, "version": "1"}, "paths": paths}


async def _is_ready(unit: SeldonUnit) -> bool:
    return unit.loaded if unit.remote is None else await unit.remote.ready()


def _only_get(path: str, method: str) -> None:
    if method not in ("GET", "HEAD"):
        raise MethodNotAllowedError(f"{path[:120]} is for GET, not {method[:20]}", allow=("GET", "HEAD"))


def _json(body: Any, status: int = 200) -> Response:
    return Response(None, body, "application/json", status)
