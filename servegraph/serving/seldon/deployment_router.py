"""`SeldonDeploymentRouter`: a deployment behind the paths of Seldon's executor.

Requests are split over the predictors by their shares of the traffic; a shadow gets copies of them, behind the
answers. Paths below ``/seldon/NAMESPACE/NAME`` mean the same as those without.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from servegraph.errors import GraphError, MethodNotAllowedError
from servegraph.graph.calls import Call, Guard, InlineLimits, clock
from servegraph.graph.context import GraphContext
from servegraph.graph.copying import isolate
from servegraph.graph.events import Event, Response
from servegraph.graph.plan import Route
from servegraph.graph.run import Run
from servegraph.serving.dataplane import JSON, DataPlane
from servegraph.serving.description import SelfDescription
from servegraph.serving.seldon.deployment_pages import GRAPH_METADATA, MODEL_METADATA, Pages
from servegraph.serving.seldon.deployment_split import PREDICTOR_HEADER, Split
from servegraph.serving.seldon.given_json import given_json
from servegraph.serving.seldon.message import Feedback, Message, Meta
from servegraph.serving.seldon.plane import SeldonPlane
from servegraph.serving.seldon.predictors import SeldonPredictor
from servegraph.serving.seldon.rest import (
    feedback_answer_to_rest,
    feedback_from_rest,
    message_from_rest,
    message_to_rest,
)
from servegraph.serving.seldon.step import GRPC
from servegraph.serving.seldon.tree_errors import answer_of
from servegraph.serving.seldon.tree_metrics import server_observer
from servegraph.serving.seldon.tree_trip import new_puid
from servegraph.serving.seldon.unit import run_of

VERSIONS: Final = ("v1.0", "v0.1")
_OUTER_PARTS: Final = 4
"""Parts of ``/seldon/NAMESPACE/NAME``, the empty one before the first slash included."""
PUID_HEADER: Final = "seldon-puid"
SKIP_LOGGING: Final = "seldon-skip-logging"
MAX_SHADOWS: Final = 64
_LONGEST_PUID: Final = 256
"""What a body calls its id may be anything; beyond this it is in no header."""
_NOSNIFF: Final = ("X-Content-Type-Options", "nosniff")
_YES: Final = ("true", "on", "1")


class SeldonDeploymentRouter:
    """The root of a deployment's graph; its routes are the predictors.

    Args:
        context: the graph's context; supplied by the server.
        name: the step's name; supplied by the server.
        routes: the predictors in order; supplied by the server.
        deployment: the deployment's name.
        namespace: its namespace; both are part of its outer paths.
        any_namespace: whether its outer paths hold for any other namespace as well.
        seed: makes the split of the traffic repeatable.

    Raises:
        GraphError: there is no predictor that answers.
    """

    keeps_time = True
    data_plane: ClassVar[type[DataPlane]] = SeldonPlane

    def __init__(
        self,
        context: GraphContext | None = None,
        name: str | None = None,
        routes: Mapping[str, Route] | None = None,
        deployment: str = "",
        namespace: str = "default",
        seed: int | None = None,
        any_namespace: bool = False,
    ) -> None:
        self.context = context if context is not None else GraphContext()
        self.name = name or deployment or "deployment"
        self.deployment = deployment or self.name
        self.routes: dict[str, Route] = dict(routes or {})
        predictors = {key: _predictor(key, route) for key, route in self.routes.items()}
        self.predictors = {key: p for key, p in predictors.items() if not p.shadow}
        """Those that answer, by name."""
        self.shadow = next((p for p in predictors.values() if p.shadow), None)
        if not self.predictors:
            raise GraphError(f"deployment {self.deployment!r} has no predictor that answers")
        self.parallel = self.shadow is not None
        self.metrics_paths = ("/prometheus",)
        """Further paths at which the server shows its metrics."""
        self._draw = random.Random(seed).random
        self._split = Split(self.predictors, self._draw)
        self._shadows: set[asyncio.Task[None]] = set()
        self.shadows_dropped = 0
        """How many requests the shadow was not sent, because it was too far behind."""
        # The second is what clients ask that are told no namespace.
        outer = (f"/seldon/{namespace}/{self.deployment}", f"/seldon/{self.deployment}")
        self._predictions = frozenset(f"{p}/api/{v}/predictions" for p in ("", *outer) for v in VERSIONS)
        self._feedback = frozenset(f"{p}/api/{v}/feedback" for p in ("", *outer) for v in VERSIONS)
        self._outer = outer[0] if any_namespace else ""
        self._pages = Pages(self.deployment, outer, predictors)
        self._quick = Call(self.name, self._predict_now, False, Guard("inline", InlineLimits()))
        versions = {key: p.version for key, p in predictors.items()}
        self._observe = server_observer(self.context.services, self.deployment, versions)

    def describe_self(self) -> SelfDescription:
        """The paths of the deployment, and a request that it answers."""
        return self._pages.describe()

    # -- requests ---------------------------------------------------------------------------------------------------

    def quick_route(self, event: Event) -> tuple[Call, str] | None:
        """The call that answers an event without waiting; ``None`` sends it the long way."""
        if event.body.__class__ is not dict or event.method not in ("POST", None):
            return None
        return self.quick_path(event.path)

    def quick_path(self, path: str) -> tuple[Call, str] | None:
        """What `quick_route` gives for most events of a path."""
        path = self._own(path)
        if path not in self._predictions or self.shadow is not None:
            return None
        for predictor in self.predictors.values():
            if not predictor.at_once():
                return None
        return self._quick, path

    async def do_event(self, event: Event) -> Event:
        """Answer a request."""
        if event.trigger.kind == GRPC:
            return await self._from_wire(event)
        path = event.path = self._own(event.path)
        if path in self._predictions:
            return await self._predict(event) if _may_post(event) else self._refused(event, "POST")
        if path in self._feedback:
            return await self._learn(event) if _may_post(event) else self._refused(event, "POST")
        if path in ("", "/") and event.body is not None:
            return await self._predict(event)
        name = self._first().name
        try:
            predictor = self._split.named(event)
            name = predictor.name if predictor is not None else name
            event.body = await self._pages.answer(event, predictor)
        except Exception as exc:  # noqa: BLE001 - every failure has an answer
            self._fail(event, exc, "", name, "status", clock())
        return event

    def _own(self, path: str) -> str:
        """A path with the deployment's own namespace, where it is told none and so any will do."""
        if not self._outer or path in self._predictions or not path.startswith("/seldon/"):
            return path
        parts = path.split("/", _OUTER_PARTS)
        known = len(parts) > _OUTER_PARTS and parts[_OUTER_PARTS - 1] == self.deployment
        return f"{self._outer}/{parts[_OUTER_PARTS]}" if known else path

    async def _from_wire(self, event: Event) -> Event:
        """Answer what came over gRPC: protobuf bytes become a message, and the answer is one or a protobuf."""
        from servegraph.serving.seldon import wire

        if event.path in (GRAPH_METADATA, MODEL_METADATA):
            event.body = await self._pages.message(event.path, event.body, self._split.named(event))
            return event
        feedback = event.path.endswith("feedback")
        event.body = wire.feedback_from_wire(event.body) if feedback else wire.message_from_wire(event.body)
        return await (self._learn(event) if feedback else self._predict(event))

    def _predict_now(self, event: Event) -> Event:
        """Drive a request to its end in this thread: nothing in it waits."""
        event._run = Run(None, event.deadline)
        coroutine = self._predict(event)
        try:
            coroutine.send(None)
        except StopIteration as stop:
            answered: Event = stop.value
            return answered
        coroutine.close()
        raise GraphError(f"deployment {self.deployment!r} waited for an event loop in a call that has none")

    async def _predict(self, event: Event) -> Event:
        start, body, name = clock(), event.body, ""
        puid = event.headers.get(PUID_HEADER, "")[:128]
        try:
            predictor = self._split.for_request(event)
            name = predictor.name
            message = body if isinstance(body, Message) else message_from_rest(given_json(event))
            puid = message.meta.puid or puid or new_puid()
            run = run_of(event)
            if self.shadow is not None:
                self._send_to_shadow(message, event, run, puid)
            reply = await predictor.answer(message, event, run, puid=puid, logs=_is_logged(event))
            self._split.remember(puid, predictor)
            event.body = reply if body is message else self._response(message_to_rest(reply), puid, name)
        except Exception as exc:
            self._fail(event, exc, puid, name, "predictions", start)
            if isinstance(body, Message):
                raise
            return event
        return self._done(event, puid, name, "predictions", start)

    async def _learn(self, event: Event) -> Event:
        start, body, name = clock(), event.body, ""
        puid = event.headers.get(PUID_HEADER, "")[:128]
        try:
            feedback = body if isinstance(body, Feedback) else feedback_from_rest(given_json(event))
            puid = feedback.response.meta.puid or feedback.request.meta.puid or puid or new_puid()
            predictor = self._split.for_feedback(feedback, event, puid)
            name = predictor.name
            reply = await predictor.learn(feedback, event, run_of(event), puid=puid, logs=_is_logged(event))
            if body is feedback:
                event.body = Message(meta=Meta(puid)) if reply is None else reply
            else:  # a root that takes no feedback gives it back, as Seldon's executor does
                event.body = self._response(body if reply is None else feedback_answer_to_rest(reply), puid, name)
        except Exception as exc:
            self._fail(event, exc, puid, name, "feedback", start)
            if isinstance(body, Feedback):
                raise
            return event
        return self._done(event, puid, name, "feedback", start)

    # -- predictors -------------------------------------------------------------------------------------------------

    def _first(self) -> SeldonPredictor:
        return next(iter(self.predictors.values()))

    def _send_to_shadow(self, message: Message, event: Event, run: Run, puid: str) -> None:
        """Have the shadow answer a copy of a request, if this is one of its share; unless it is too far behind."""
        assert self.shadow is not None
        if self.shadow.traffic and self._draw() * 100 >= self.shadow.traffic:
            return
        if run.offloader is None or len(self._shadows) >= MAX_SHADOWS:
            self.shadows_dropped += 1
            return
        copy = Message(message.kind, isolate(message.value), list(message.names), message.encoding, message.meta.copy())
        work = self._shadowed(self.shadow, copy, event.fork(None), Run(run.offloader, run.deadline), puid)
        task = asyncio.get_running_loop().create_task(work)
        self._shadows.add(task)
        task.add_done_callback(self._shadows.discard)

    async def _shadowed(self, shadow: SeldonPredictor, message: Message, event: Event, run: Run, puid: str) -> None:
        start, status = clock(), 200
        event._run = run
        try:
            await shadow.answer(message, event, run, puid=puid)
        except Exception as exc:  # noqa: BLE001 - it changes no answer
            status = answer_of(exc)[0]
            self.context.logger.warning("shadow %s: request %s failed: %s", shadow.name, puid or event.id, exc)
        if self._observe is not None:
            self._observe(shadow.name, "predictions", clock() - start, status)

    async def aclose(self) -> None:
        """Wait for what the shadow is doing."""
        if self._shadows:
            await asyncio.wait(set(self._shadows), timeout=5.0)
            for task in self._shadows:
                task.cancel()

    # -- answers ----------------------------------------------------------------------------------------------------

    def _response(self, body: Any, puid: str, name: str, status: int = 200, content_type: str = JSON) -> Response:
        headers = {_NOSNIFF[0]: _NOSNIFF[1]}
        if _fits_header(puid):
            headers["Seldon-Puid"] = puid
        if name and self._split.only is None:
            headers["Seldon-Predictor"] = name
        return Response(headers, body, content_type, status)

    def _done(self, event: Event, puid: str, name: str, service: str, start: float) -> Event:
        """The event of a request that succeeded, counted; an edge that is not HTTP finds in it what goes along."""
        if event.trigger.kind == GRPC:
            predictor = {} if self._split.only is not None else {PREDICTOR_HEADER: name}
            event.headers = {**event.headers, **_told(puid), **predictor}
        if self._observe is not None:
            self._observe(name, service, clock() - start, 200)
        return event

    def _fail(self, event: Event, exc: Exception, puid: str, name: str, service: str, start: float) -> None:
        """Count a request that failed, and answer it in Seldon's envelope; the log has what is ours.

        Over gRPC the edge logs and answers it.
        """
        status, body = answer_of(exc)
        if self._observe is not None:
            self._observe(name, service, clock() - start, status)
        if event.trigger.kind == GRPC:
            event.headers = {**event.headers, **_told(puid)}
            return
        if status >= 500:
            logged = exc.__cause__ or exc
            self.context.logger.error("request %s: %s", puid or event.id, exc, exc_info=logged)
        event.body = self._response(body, puid, name, status, getattr(exc, "content_type", JSON))
        if isinstance(exc, MethodNotAllowedError):
            event.body.headers["Allow"] = ", ".join(exc.allow)

    def _refused(self, event: Event, allowed: str) -> Event:
        error = MethodNotAllowedError(f"{event.path} is for {allowed}", allow=(allowed,))
        self._fail(event, error, "", self._first().name, "predictions", clock())
        return event


def _may_post(event: Event) -> bool:
    return event.method in ("POST", None)


def _is_logged(event: Event) -> bool:
    return event.headers.get(SKIP_LOGGING, "").lower() not in _YES


def _predictor(key: str, route: Route) -> SeldonPredictor:
    target = route.target
    if not isinstance(target, SeldonPredictor):
        raise GraphError(f"route {key!r} of a deployment is a SeldonPredictor, not {type(target).__name__}")
    return target


def _fits_header(puid: str) -> bool:
    return 0 < len(puid) <= _LONGEST_PUID and puid.isascii() and puid.isprintable()


def _told(puid: str) -> dict[str, str]:
    return {PUID_HEADER: puid} if _fits_header(puid) else {}
