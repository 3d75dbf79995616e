"""Calling several routes with one request: where they run, and what it means that some fail.

What a route does to its body, no other route sees. Answers are in route order, however long each took.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from servegraph.errors import (
    DeadlineError,
    GraphError,
    RemoteError,
    RequestError,
    ServegraphError,
    StepError,
    UnavailableError,
    closest,
    summary,
)
from servegraph.graph.context import GraphContext
from servegraph.graph.copying import isolate
from servegraph.graph.events import Event, Response
from servegraph.graph.plan import Route

EXECUTORS: Final = ("thread", "array")
ON_FAILURE: Final = ("fail", "partial")


@dataclass(slots=True)
class Answers:
    """What the routes gave, in route order."""

    results: dict[str, Any] = field(default_factory=dict)
    """The body that each route answered with."""
    failures: dict[str, ServegraphError] = field(default_factory=dict)
    """What each route that failed failed with."""

    @property
    def errors(self) -> dict[str, str]:
        """For each route that failed the type of what it raised; the messages are in the log."""
        return {key: type(_origin(exc)).__name__ for key, exc in self.failures.items()}

    def mark(self, response: dict[str, Any]) -> dict[str, Any]:
        """The response, which says what is missing where a route failed."""
        return {**response, "partial": True, "errors": self.errors} if self.failures else response


@dataclass(frozen=True, slots=True)
class FailurePolicy:
    """When an answer without some of the routes is an answer."""

    partial: bool = False
    """Whether the routes that answer are enough; otherwise every route has to."""
    quorum: int = 1
    """How many routes have to answer."""
    required: frozenset[str] = frozenset()
    """The routes that have to answer in any case."""

    @classmethod
    def checked(
        cls,
        on_failure: str | None,
        quorum: int | None,
        required: Iterable[str] | None,
        routes: Sequence[str],
        name: str,
    ) -> FailurePolicy:
        """The policy that a router's arguments mean; ``quorum`` and ``required`` mean ``partial``.

        Raises:
            GraphError: a value is not one of those that are valid, or they contradict each other.
        """
        wanted = [required] if isinstance(required, str) else list(required or ())
        if on_failure is None:
            on_failure = "partial" if wanted or quorum is not None else "fail"
        if on_failure not in ON_FAILURE:
            raise GraphError(f"{name}: on_failure is {on_failure!r}; {closest(str(on_failure), ON_FAILURE)}")
        if on_failure == "fail" and (wanted or quorum is not None):
            raise GraphError(f"{name}: quorum and required are for on_failure='partial'")
        for key in wanted:
            if key not in routes:
                raise GraphError(f"{name}: required names {key!r}, which is no route; {closest(str(key), routes)}")
        if quorum is not None and not 1 <= quorum <= max(1, len(routes)):
            raise GraphError(f"{name}: quorum must be from 1 to the number of routes ({len(routes)}), not {quorum!r}")
        return cls(on_failure == "partial", quorum or 1, frozenset(wanted))

    def judge(self, answers: Answers, name: str) -> None:
        """Return where the answers are enough; otherwise raise what the caller is told."""
        failures = answers.failures
        if not failures:
            return
        first = next(iter(failures.values()))
        if not self.partial:
            raise first
        for key, failure in failures.items():
            if key in self.required:
                raise failure
        if len(answers.results) >= self.quorum:
            return
        raise self._not_enough(answers, name) from first

    def _not_enough(self, answers: Answers, name: str) -> ServegraphError:
        failed = list(answers.failures.values())
        if all(isinstance(f, RequestError) for f in failed):
            return failed[0]  # the request is what all of them refused
        shown = ", ".join(f"{k} ({t})" for k, t in answers.errors.items())
        message = f"{name}: {len(answers.results)} of {len(answers.results) + len(failed)} routes answered"
        message += f", {self.quorum} are needed; failed: {shown}"
        if all(isinstance(f, UnavailableError) for f in failed):
            return UnavailableError(message, retry_after=max(f.retry_after for f in failed))  # type: ignore[attr-defined]
        if all(isinstance(f, DeadlineError) for f in failed):
            return DeadlineError(message)
        return RemoteError(message)


class Fanout:
    """Calls routes with a request, by one of the executors.

    Args:
        name: the router's name.
        routes: the routes that may be called.
        executor: ``thread``: at the same time, coroutines on the event loop and the rest on the server's threads;
            ``array``: one after the other.
        policy: when an answer without some of the routes is an answer.
        context: told of failures that the caller does not see.
    """

    def __init__(
        self,
        name: str,
        routes: Mapping[str, Route],
        executor: str | None,
        policy: FailurePolicy,
        context: GraphContext,
    ) -> None:
        executor = executor or "thread"
        if executor not in EXECUTORS:
            hint = "; several worker processes are the server's workers setting" if executor == "process" else ""
            raise GraphError(f"{name}: executor_type is {executor!r}; {closest(str(executor), EXECUTORS)}{hint}")
        self.name = name
        self.executor = executor
        self.policy = policy
        self.context = context

    @property
    def parallel(self) -> bool:
        """Whether it needs an event loop."""
        return self.executor != "array"

    async def run(self, event: Event, routes: Iterable[Route], body_for: Callable[[Route], Any]) -> Answers:
        """What the routes answer to an event; each gets a body of its own.

        Raises:
            ServegraphError: too few of them answered; see `FailurePolicy`.
        """
        event.id  # noqa: B018 - drawn once, so that every route has the same
        calls = [(route, event.fork(_own_body(route, body_for(route)))) for route in routes]
        outcomes: list[Any]
        if self.executor == "array" or event._run.offloader is None or all(_never_waits(r) for r, _ in calls):
            outcomes = [await self._outcome(route, mine) for route, mine in calls]
        else:
            outcomes = await asyncio.gather(*(self._outcome(route, mine) for route, mine in calls))
        answers = Answers()
        for (route, _), outcome in zip(calls, outcomes, strict=True):
            if isinstance(outcome, ServegraphError):
                answers.failures[route.key] = outcome
            else:
                answers.results[route.key] = outcome.value
        self._tell(event, answers)
        self.policy.judge(answers, self.name)
        return answers

    async def _outcome(self, route: Route, event: Event) -> _Value | ServegraphError:
        try:
            body = (await route.run(event)).body
            if isinstance(body, Response):
                if body.status_code >= 400:
                    raise _refused(route.key, body.status_code)
                body = body.body
            return _Value(body)
        except Exception as exc:  # noqa: BLE001 - the policy decides what it means
            return self._named(route, exc)

    def _named(self, route: Route, exc: Exception) -> ServegraphError:
        """The failure of a route, named after it."""
        step = f"{self.name}/{route.key}"
        if isinstance(exc, ServegraphError):
            exc.step = exc.step or step
            exc.model = exc.model or route.key
            return exc
        failure = StepError(f"route {route.key!r} failed: {summary(exc)}", step=step, model=route.key)
        failure.__cause__ = exc
        return failure

    def _tell(self, event: Event, answers: Answers) -> None:
        """Log the server's own faults; the one that is raised is told by the engine."""
        failures = list(answers.failures.values())
        for failure in failures if self.policy.partial else failures[1:]:
            if failure.status >= 500:
                self.context.push_error(event, str(failure), source=failure.step or self.name)


@dataclass(slots=True)
class _Value:
    """A route's answer, which may be anything."""

    value: Any


def _never_waits(route: Route) -> bool:
    """Whether a route would run on the event loop without giving it up: then tasks would only cost time."""
    call = route.call
    return call.guard.inline and not call.is_async and call.policy.plain


def _own_body(route: Route, body: Any) -> Any:
    """A body that no other route sees; shared only by routes that declare that they never change it."""
    return body if getattr(route.target, "mutates", True) is False else isolate(body)


def _refused(key: str, status: int) -> ServegraphError:
    message = f"route {key!r} answered with status {status}"
    return RequestError(message) if status < 500 else StepError(message)


def _origin(exc: ServegraphError) -> BaseException:
    return exc.__cause__ if isinstance(exc, StepError) and exc.__cause__ is not None else exc
