"""Steps that call a service over HTTP: `RemoteStep` for one call, `BatchHttpRequests` for one per element."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Final

from servegraph.errors import GraphError, ServegraphError, UnprocessableError, closest
from servegraph.graph.context import GraphContext
from servegraph.graph.events import Event
from servegraph.graph.steps import Step
from servegraph.serving.remote_calls import CallSpec, RemoteCalls
from servegraph.serving.remote_options import read_options

_ON_FAILURE: Final = ("fail", "null", "error")


class RemoteStep(RemoteCalls):
    """Calls a service over HTTP with the body, and gives its answer. Also a route: ``add_model(..., model_url=...)``.

    Where calls go is fixed by the spec: to ``url``, or where ``url_expression`` says, if that is of the origin of
    ``url`` or one of ``allowed_origins``. TLS is verified, redirects are not followed, incoming headers are not sent
    on. The request's id goes along as ``X-Request-Id`` (and ``MLRUN-EVENT-ID``), what is left of its time as
    ``X-Request-Timeout-Ms``.

    A call is repeated when it could not be sent; when the service says that it did not do it (503 or 429 with
    ``Retry-After``); and on a 5xx or a broken connection if its method is GET, HEAD, PUT, DELETE or OPTIONS, or the
    step is ``idempotent``. A failure is `RemoteError` (502); an answer that does not come in time `DeadlineError`
    (504). What the service writes into a failed answer is not passed on.

    As a route, the operation is appended to ``url``, GET stays GET, and a 4xx about the request is the caller's.

    Args:
        url: where to call, ``http(s)://…``.
        subpath: appended to the URL; ``$path`` appends the event's path.
        method: the HTTP method; the event's own, else POST.
        headers: header fields of every call.
        url_expression: an expression over ``event`` (the body) and ``endpoint`` (``url``) that gives the URL, or a
            path (``/…``) on the origin of ``url``.
        body_expression: an expression over the same that gives the body to send.
        return_json: the answer is JSON whatever its type says; otherwise JSON by its type, else bytes.
        input_path: dotted path of the value to send in the event's body.
        result_path: dotted path in the body where the answer is written.
        max_in_flight: how many calls may be under way at once (8).
        retries: how often a failed call is repeated where that is safe (6).
        backoff_factor: seconds before the first repetition (0.1), doubled for each further one.
        timeout: seconds one try may take (30).
        headers_expression: an expression over the same that gives further header fields.
        idempotent: calls may safely be made twice, whatever their method.
        pass_client_errors: whether a 4xx about the request is the caller's; by default for routes only.
        allowed_origins: further origins, ``https://host[:port]``, that ``url_expression`` may lead to.
        verify: a file of CA certificates to trust instead of the usual ones.
        max_response_bytes: the largest answer that is read (64 MiB).
    """

    forwards_bodies: ClassVar[bool] = True
    """A remote model gets what the caller sent, undecoded."""

    def __init__(
        self,
        url: str | None = None,
        subpath: str | None = None,
        method: str | None = None,
        headers: Mapping[str, str] | None = None,
        url_expression: str | None = None,
        body_expression: str | None = None,
        return_json: bool = True,
        input_path: str | None = None,
        result_path: str | None = None,
        max_in_flight: int | None = None,
        retries: int | None = None,
        backoff_factor: float | None = None,
        timeout: float | None = None,
        headers_expression: str | None = None,
        *,
        idempotent: bool = False,
        pass_client_errors: bool | None = None,
        allowed_origins: Iterable[str] | str = (),
        verify: Any = None,
        max_response_bytes: int | None = None,
        name: str | None = None,
        context: GraphContext | None = None,
        graph_step: Step | None = None,
    ) -> None:
        arguments = dict(locals())
        given = {
            "max_in_flight": max_in_flight,
            "retries": retries,
            "backoff_factor": backoff_factor,
            "timeout_s": timeout,
            "idempotent": idempotent,
            "pass_client_errors": pass_client_errors,
            "max_response_bytes": max_response_bytes,
        }
        super().__init__(
            CallSpec(
                url,
                subpath,
                method,
                headers,
                url_expression,
                body_expression,
                headers_expression,
                return_json,
                input_path,
                result_path,
            ),
            read_options(given, verify, allowed_origins),
            name or type(self).__name__,
            graph_step,
            arguments,
        )
        self.context = context

    async def do_event(self, event: Event) -> Event:
        """Call with the event's body, and put the answer in its place."""
        value = event.body if self._read is None else self._read(event.body)
        result = await self.call(event, value)
        event.body = result if self._write is None else self._write(event.body, result)
        return event


class BatchHttpRequests(RemoteCalls):
    """Makes one call for each element of a list, several at once; the answers are in the order of the elements.

    In expressions ``event`` is the element. Everything that is not said here is as in `RemoteStep`.

    Args:
        url: where to call, ``http(s)://…``.
        subpath: appended to the URL; ``$path`` appends the event's path.
        method: the HTTP method; the event's own, else POST.
        headers: header fields of every call.
        url_expression: see `RemoteStep`.
        body_expression: see `RemoteStep`.
        return_json: see `RemoteStep`.
        input_path: dotted path of the list in the event's body.
        result_path: dotted path in the body where the list of answers is written.
        retries: how often a failed call is repeated where that is safe (6); 0 is none.
        backoff_factor: see `RemoteStep`.
        timeout: see `RemoteStep`.
        headers_expression: see `RemoteStep`.
        max_in_flight: how many calls may be under way at once (8), over all events.
        on_failure: what a call that failed (a 4xx counts) means: ``fail`` (default): the event fails with the first
            failure in order; ``null``: None in its place; ``error``: ``{"error": type, "message": text}`` there.
        idempotent: see `RemoteStep`.
        allowed_origins: see `RemoteStep`.
        verify: see `RemoteStep`.
        max_response_bytes: see `RemoteStep`.
    """

    def __init__(
        self,
        url: str | None = None,
        subpath: str | None = None,
        method: str | None = None,
        headers: Mapping[str, str] | None = None,
        url_expression: str | None = None,
        body_expression: str | None = None,
        return_json: bool = True,
        input_path: str | None = None,
        result_path: str | None = None,
        retries: int | None = None,
        backoff_factor: float | None = None,
        timeout: float | None = None,
        headers_expression: str | None = None,
        *,
        max_in_flight: int | None = None,
        on_failure: str = "fail",
        idempotent: bool = False,
        allowed_origins: Iterable[str] | str = (),
        verify: Any = None,
        max_response_bytes: int | None = None,
        name: str | None = None,
        context: GraphContext | None = None,
        graph_step: Step | None = None,
    ) -> None:
        arguments = dict(locals())
        given = {
            "max_in_flight": max_in_flight,
            "retries": retries,
            "backoff_factor": backoff_factor,
            "timeout_s": timeout,
            "idempotent": idempotent,
            "pass_client_errors": False,
            "max_response_bytes": max_response_bytes,
        }
        super().__init__(
            CallSpec(
                url,
                subpath,
                method,
                headers,
                url_expression,
                body_expression,
                headers_expression,
                return_json,
                input_path,
                result_path,
            ),
            read_options(given, verify, allowed_origins),
            name or type(self).__name__,
            graph_step,
            arguments,
        )
        if on_failure not in _ON_FAILURE:
            raise GraphError(f"step {self.name!r}: on_failure is {on_failure!r}; {closest(on_failure, _ON_FAILURE)}")
        self.on_failure = on_failure
        self.context = context

    async def do_event(self, event: Event) -> Event:
        """Make the calls, and put the list of answers in the list's place."""
        elements = event.body if self._read is None else self._read(event.body)
        if not isinstance(elements, (list, tuple)):
            raise UnprocessableError(f"step {self.name!r} takes a list, not {type(elements).__name__}", step=self.name)
        event.id  # noqa: B018 - drawn once for all calls
        answers: list[Any] = [None] * len(elements)
        todo = iter(range(len(elements)))

        async def work() -> None:
            for i in todo:
                try:
                    answers[i] = await self.call(event, elements[i])
                except Exception as exc:  # noqa: BLE001 - told below, in the order of the elements
                    answers[i] = exc

        workers = min(len(elements), self.options.max_in_flight)
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(work())
        result = [self._settled(i, answer) for i, answer in enumerate(answers)]
        event.body = result if self._write is None else self._write(event.body, result)
        return event

    def _settled(self, index: int, answer: Any) -> Any:
        if not isinstance(answer, Exception):
            return answer
        if not isinstance(answer, ServegraphError):
            raise answer
        if self.on_failure == "null":
            return None
        if self.on_failure == "error":
            return {"error": type(answer).__name__, "message": answer.message}
        answer.message = f"element {index}: {answer.message}"
        raise answer
