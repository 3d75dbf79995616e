"""`ParallelRun`: a router that asks all its routes at once and merges what they answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from servegraph.errors import NotFoundError, StepError, UnprocessableError
from servegraph.graph.calls import Call, InlineLimits, make_call
from servegraph.graph.context import GraphContext
from servegraph.graph.events import Event
from servegraph.graph.plan import Route
from servegraph.graph.policies import DEFAULT_POLICY
from servegraph.graph.resolve import is_async
from servegraph.serving.fanout import Answers, FailurePolicy, Fanout
from servegraph.serving.routers import BaseModelRouter, refuse_unknown


class ParallelRun(BaseModelRouter):
    """Asks all its routes at once and merges what they answer into one body.

    Paths: ``/``, or ``prefix/OPERATION`` for routes that are models. Every route gets a body of its own. The answer
    is merged in route order, however long each route took.

    Args:
        extend_event: merge into the request's body (a copy of it) instead of into an empty one.
        executor_type: ``thread`` (default): at the same time, coroutines on the event loop and the rest on the
            server's threads; ``array``: one after the other.
        on_failure: ``fail`` (default): the first failure in route order fails the request. ``partial``: the routes
            that answered are merged, and ``partial`` and ``errors`` (type of failure by route) are added.
        quorum: with ``partial``, how many routes have to answer; 1 when not given.
        required: with ``partial``, routes that have to answer in any case.
        **kwargs: arguments of `BaseModelRouter`.
    """

    def __init__(
        self,
        context: GraphContext | None = None,
        name: str | None = None,
        routes: Mapping[str, Route] | None = None,
        extend_event: bool | None = None,
        executor_type: str | None = None,
        on_failure: str | None = None,
        quorum: int | None = None,
        required: Iterable[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(context, name, routes, **kwargs)
        refuse_unknown(self, self._kwargs)
        self.extend_event = bool(extend_event)
        policy = FailurePolicy.checked(on_failure, quorum, required, list(self.routes), self.name)
        self._fanout = Fanout(self.name, self.routes, executor_type, policy, self.context)
        self.parallel = self._fanout.parallel or is_async(self.merger)
        self._merge = hook_call(self, "merger", self.merger)

    def merger(self, body: Any, results: dict[str, Any]) -> Any:
        """The merged answer; override it to merge otherwise.

        Args:
            body: a copy of the request's body with ``extend_event``, else an empty object.
            results: what each route answered, by route key and in route order; a later route's keys win.
        """
        for key, result in results.items():
            if not isinstance(result, Mapping):
                raise StepError(
                    f"route {key!r} answered with {type(result).__name__}; "
                    f"{type(self).__name__}.merger merges objects: override it to merge other answers"
                )
            body.update(result)
        return body

    async def handle(self, event: Event) -> Event:
        """The merged answer of all routes."""
        if not self.routes:
            raise NotFoundError(f"router {self.name!r} has no routes")
        body = event.body
        if self.extend_event and body is not None and not isinstance(body, Mapping):
            raise UnprocessableError(f"router {self.name!r} extends an object, and the body is {type(body).__name__}")
        asked = event.fork(body)
        asked.path = self._operation(event.path)
        answers = await self._fanout.run(asked, self.routes.values(), lambda _: body)
        start = dict(body or {}) if self.extend_event else {}
        merged = await self._merge.run(event.fork((start, answers.results)), event._run)
        event.body = self._marked(merged, answers)
        return event

    def _operation(self, path: str) -> str:
        if path.startswith(self.url_prefix + "/"):
            return path[len(self.url_prefix) :].strip("/")
        if path.startswith("/") and path != "/":
            raise NotFoundError(f"no such path; router {self.name!r} is at / and {self.url_prefix}/OPERATION")
        return path.strip("/")

    @staticmethod
    def _marked(merged: Any, answers: Answers) -> Any:
        if answers.failures and not isinstance(merged, dict):
            raise StepError(
                f"routes failed ({', '.join(answers.failures)}), and an answer that is "
                f"{type(merged).__name__} cannot say so: let merger give an object, or set on_failure='fail'"
            )
        return answers.mark(merged) if answers.failures else merged


def hook_call(router: BaseModelRouter, name: str, function: Callable[..., Any]) -> Call:
    """The guarded call of a router's function, whose arguments travel as the event's body.

    What a user overrides, or what may take long with many rows, never runs on the event loop unseen.
    """
    return make_call(
        f"{router.name}.{name}", lambda event: function(*event.body), is_async(function), DEFAULT_POLICY, InlineLimits()
    )
