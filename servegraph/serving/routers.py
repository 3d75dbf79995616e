"""Routers: which model an event is for. `BaseModelRouter` reads the request, `ModelRouter` picks one route.

Paths (``prefix`` is ``/v2/models``)::

    /                                          the model that the body names, or the default one
    prefix                                     the list of models
    prefix/MODEL[/versions/VERSION][/OPERATION]

A route's key is ``MODEL`` or ``MODEL:VERSION``. A model that is only there with versions is also reached without
one: by its default version, or as ``latest``.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any, ClassVar

from servegraph import jsoncodec
from servegraph.errors import GraphError, NotFoundError, RequestError, UnsupportedMediaTypeError, closest
from servegraph.graph.calls import Call, InlineLimits, make_call
from servegraph.graph.context import GraphContext
from servegraph.graph.events import Event
from servegraph.graph.media import parse_media_type
from servegraph.graph.paths import compile_input_path, compile_result_path
from servegraph.graph.plan import Route
from servegraph.graph.policies import DEFAULT_POLICY
from servegraph.graph.resolve import is_async

LATEST = "latest"
_SUPPLIED = frozenset({"full_event", "graph_step"})
"""Arguments that every router is given and need not take."""
_CACHED_PATHS = 4096


class BaseModelRouter:
    """Reads a request and answers what does not concern one model; subclasses hand the rest to their routes.

    Args:
        context: the graph's context; supplied by the server.
        name: the step's name; supplied by the server.
        routes: the routes by key; supplied by the server.
        protocol: ``v2``, or ``v1`` whose inputs are called ``instances``.
        url_prefix: where the models are; ``/<protocol>/models`` when not given.
        health_prefix: where the router answers for itself; ``/<protocol>/health`` when not given.
        input_path: dotted path of the request in the event's body.
        result_path: dotted path in the body where the response is written.
        **kwargs: arguments of a subclass.
    """

    keeps_time: ClassVar[bool] = True
    """Whether it waits for nothing but its routes and hooks, which keep to the request's deadline themselves."""
    parallel: bool = False
    """Whether it calls several routes at once, and so wants an event loop."""

    def __init__(
        self,
        context: GraphContext | None = None,
        name: str | None = None,
        routes: Mapping[str, Route] | None = None,
        protocol: str | None = None,
        url_prefix: str | None = None,
        health_prefix: str | None = None,
        input_path: str | None = None,
        result_path: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.context = context if context is not None else GraphContext()
        self.name = name or type(self).__name__
        self.routes: dict[str, Route] = dict(routes or {})
        self.protocol = protocol or "v2"
        self.url_prefix = (url_prefix or f"/{self.protocol}/models").rstrip("/")
        self.health_prefix = (health_prefix or f"/{self.protocol}/health").rstrip("/")
        self.inputs_key = "instances" if self.protocol == "v1" else "inputs"
        self.input_path = input_path
        self.result_path = result_path
        self._kwargs = kwargs
        self._read = compile_input_path(input_path)
        self._write = compile_result_path(result_path)
        self._before = self._hook("preprocess")
        self._after = self._hook("postprocess")

    # -- what a user overrides --------------------------------------------------------------------------------------

    def preprocess(self, event: Event) -> Event:
        """The event as the router should see it; called first."""
        return event

    def postprocess(self, event: Event) -> Event:
        """The event with the router's answer, as the caller should see it; called last."""
        return event

    def parse_event(self, event: Event) -> Event:
        """Make the body an object or a list; called when it is still bytes or text.

        Raises:
            RequestError: it is neither JSON nor an image.
            UnsupportedMediaTypeError: the same, and its media type says so.
        """
        body = event.body
        if isinstance(body, (bytes, str)):
            media = parse_media_type(event.content_type or "")
            if media.type == "image":
                from io import BytesIO

                raw = body.encode("latin-1") if isinstance(body, str) else body
                event.body = {self.inputs_key: [BytesIO(raw)]}
                return event
            try:
                event.body = self.context.read_json(body.encode() if isinstance(body, str) else body)
            except jsoncodec.JSONDecodeError as exc:
                if media.essence and not media.is_json:
                    raise UnsupportedMediaTypeError(
                        f"models take JSON or images, not {_clip(media.essence)}, and the body is no JSON either"
                    ) from exc
                raise RequestError(f"the body is neither JSON nor an image: {exc}") from exc
        return event

    # -- serving ----------------------------------------------------------------------------------------------------

    async def event_handler(self, event: Event) -> Event:
        """Answer one event."""
        if self._before is not None:
            event = await self._hooked(self._before, event)
        outer = event.body
        if self._read is not None:
            event = event.fork(self._read(outer))
        body = event.body
        if body.__class__ is not dict and body is not None and event.method != "GET":
            event = self.parse_event(event)
        answer = self._own_answer(event)
        if answer is not None:
            event.body = answer
            event.terminated = True
        else:
            event = await self.handle(event)
        if self._after is not None:
            event = await self._hooked(self._after, event)
        if self._write is not None:
            event.body = self._write(outer, event.body)
        return event

    @staticmethod
    async def _hooked(hook: Call, event: Event) -> Event:
        """What a hook makes of an event."""
        result = await hook.run(event, event._run)
        if not isinstance(result, Event):
            raise GraphError(f"{hook.name} gets the whole event and must return it, not {type(result).__name__}")
        if result is not event:
            event.continued_by(result)
        return result

    async def handle(self, event: Event) -> Event:
        """Let the routes answer an event that concerns models."""
        raise NotImplementedError(f"{type(self).__name__} defines no handle()")

    def post_init(self, mode: str = "sync", **_: Any) -> None:
        """Called by the server when all routes are loaded."""

    def models(self) -> list[str]:
        """The keys of the routes."""
        return list(self.routes)

    def _own_answer(self, event: Event) -> Any:
        """The answer to what concerns the router itself: its health, the list of models."""
        path = event.path
        if event.method == "GET" and (path in ("", "/") or _below(path, self.health_prefix)):
            return {"name": type(self).__name__, "version": self.protocol, "extensions": []}
        if path.rstrip("/") == self.url_prefix:
            return self.listing()
        return None

    def listing(self) -> dict[str, Any]:
        """The answer to a request for the list of models."""
        return {"models": self.models()}

    def _hook(self, name: str) -> Call | None:
        """The call of a hook that a subclass overrides; user code never runs on the event loop unseen."""
        if getattr(type(self), name) is getattr(BaseModelRouter, name):
            return None
        hook = getattr(self, name)
        if is_async(hook):
            self.parallel = True
        return make_call(f"{self.name}.{name}", hook, is_async(hook), DEFAULT_POLICY, InlineLimits())


def refuse_unknown(router: BaseModelRouter, arguments: Mapping[str, Any]) -> None:
    """Raise `GraphError` for an argument that nothing takes."""
    for name in arguments:
        if name not in _SUPPLIED:
            known = {p for cls in type(router).__mro__[:-1] for p in inspect.signature(cls).parameters}
            raise GraphError(
                f"{type(router).__name__} takes no argument {name!r}; "
                f"{closest(name, known - {'self', 'args', 'kwargs', 'context', 'name', 'routes'})}"
            )


class ModelRouter(BaseModelRouter):
    """Hands each event to one model, named by the path or the body.

    Args:
        default: the model (or ``model:version``) of requests that name none; the first route when not given.
        default_versions: for a model the version of requests that name none; else the latest one.
    """

    def __init__(
        self,
        context: GraphContext | None = None,
        name: str | None = None,
        routes: Mapping[str, Route] | None = None,
        default: str | None = None,
        default_versions: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(context, name, routes, **kwargs)
        if type(self) is ModelRouter:  # a subclass may read arguments of its own
            refuse_unknown(self, self._kwargs)
        self.default_versions = dict(default_versions or {})
        self._versions = _versions(self.routes)
        self._paths: dict[str, tuple[Route, str]] = {}
        for model, version in self.default_versions.items():
            self.find(model, version)
        hooks = (self._before, self._after, self._read, self._write)
        own = (ModelRouter.event_handler, ModelRouter.handle, ModelRouter.resolve)
        mine = (type(self).event_handler, type(self).handle, type(self).resolve)
        self._plain = all(h is None for h in hooks) and mine == own
        self.default = default
        if default is not None:
            self.find(*_split(default))

    def quick_route(self, event: Event) -> tuple[Call, str] | None:
        """The one call, and its operation, that answers an event of a path that was seen before.

        ``None`` sends the event the long way, where hooks, paths and bodies are looked at. The engine uses it so
        that a request to a fast model does not pass through coroutines that have nothing to wait for.
        """
        body = event.body
        if body.__class__ is not dict or "operation" in body:
            return None
        return self.quick_path(event.path)

    def quick_path(self, path: str) -> tuple[Call, str] | None:
        """The call and the operation that `quick_route` gives for most events of a path."""
        known = self._paths.get(path)
        return None if known is None or not self._plain else (known[0].call, known[1])

    async def handle(self, event: Event) -> Event:
        """The answer of the one model."""
        known = self._paths.get(event.path)
        body = event.body
        if known is not None and not (body.__class__ is dict and "operation" in body):
            route, event.path = known
        else:
            route, event.path = self.resolve(event)
        return await route.run(event)

    def resolve(self, event: Event) -> tuple[Route, str]:
        """The route and the operation of an event.

        Raises:
            NotFoundError: the path is not the router's, or there is no such model or version.
        """
        path, body = event.path, event.body
        model, version, operation = self.parse_path(path)
        if model and operation in ("", "infer", "predict", "explain", "ready"):
            route = self.find(model, version)
            if len(self._paths) < _CACHED_PATHS:
                self._paths[path] = (route, operation)
        if isinstance(body, dict):
            operation = str(body.get("operation") or operation)
            if not model and body.get("model"):
                model, given = _split(str(body["model"]))
                version = version or given
        if not model:
            if not self.routes:
                raise NotFoundError(f"router {self.name!r} has no models")
            model, version = _split(self.default or next(iter(self.routes)))
            operation = operation or "infer"
        return self.find(model, version), operation

    def parse_path(self, path: str) -> tuple[str, str, str]:
        """Model, version and operation of a path; empty where it names none.

        Raises:
            NotFoundError: the path is not below the router's prefix.
        """
        if path in ("", "/"):
            return "", "", ""
        if not _below(path, self.url_prefix):
            raise NotFoundError(f"no such path: {_clip(path)}; models are at {self.url_prefix}/MODEL[/OPERATION]")
        parts = path[len(self.url_prefix) :].strip("/").split("/")
        model, version = _split(parts[0])
        rest = parts[1:]
        if rest and rest[0] == "versions":
            if len(rest) < 2 or not rest[1]:
                raise NotFoundError(f"no such path: {_clip(path)}; 'versions' is followed by a version")
            version, rest = rest[1], rest[2:]
        return model, version, "/".join(rest)

    def find(self, model: str, version: str = "") -> Route:
        """The route of a model and version; without a version its default, else its latest.

        Raises:
            NotFoundError: there is none; the message lists what there is.
        """
        if not version:
            route = self.routes.get(model)
            if route is not None and model not in self.default_versions:
                return route
            version = self.default_versions.get(model, LATEST)
        route = self.routes.get(f"{model}:{version}")
        if route is not None:
            return route
        versions = self._versions.get(model, [])
        if version == LATEST and versions:
            return self.routes[f"{model}:{versions[-1]}"]
        if version == LATEST and model in self.routes:
            return self.routes[model]
        if versions or model in self.routes:
            raise NotFoundError(
                f"model {_clip(model)!r} has no version {_clip(version)!r}; {closest(version, [*versions, LATEST])}",
                model=_clip(model),
            )
        raise NotFoundError(f"there is no model {_clip(model)!r}; {closest(model, self.routes)}")

    def post_init(self, mode: str = "sync", **_: Any) -> None:
        """Check that the routes can be told apart."""
        if not self.routes:
            self.context.logger.warning("router %s has no models", self.name)


def _versions(routes: Mapping[str, Route]) -> dict[str, list[str]]:
    """For each model its versions, oldest first: numbers in names count as numbers (``v10`` is after ``v9``)."""
    found: dict[str, list[str]] = {}
    for key in routes:
        model, _, version = key.partition(":")
        if version:
            found.setdefault(model, []).append(version)
    for versions in found.values():
        versions.sort(key=_natural)
    return found


def _natural(version: str) -> list[tuple[int, int, str]]:
    parts = re.split(r"(\d+)", version)
    return [(1, int(p), "") if p.isdigit() else (0, 0, p) for p in parts if p]


def _split(key: str) -> tuple[str, str]:
    model, _, version = key.partition(":")
    return model, version


def _below(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(prefix + "/")


def _clip(text: str) -> str:
    """Names from a request, short enough for a message."""
    return text if len(text) <= 80 else text[:77] + "..."
