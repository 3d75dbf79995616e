"""`V2ModelServer`: the class a model is written as."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from servegraph.errors import (
    MethodNotAllowedError,
    ModelLoadError,
    NotFoundError,
    RequestError,
    ServegraphError,
    UnprocessableError,
    closest,
    text_of,
)
from servegraph.graph.context import GraphContext, Prediction
from servegraph.graph.events import Event, Response
from servegraph.graph.paths import compile_input_path, compile_result_path
from servegraph.graph.resolve import is_async
from servegraph.serving.loading import LoadPolicy, LoadState, ModelLoader
from servegraph.serving.model_call import ModelCall, request_metrics
from servegraph.serving.model_spec import ModelSpec
from servegraph.serving.store import fetch_model
from servegraph.serving.store_options import FetchOptions

PREDICT_OPS = frozenset({"infer", "predict", "infer_dict", "predict_dict"})
_BY_NAME = frozenset({"infer_dict", "predict_dict"})
BUILT_IN_OPS = ("infer", "predict", "infer_dict", "predict_dict", "explain", "ready")
Hook = Callable[..., Any]


class V2ModelServer:
    """A model: override ``load`` and ``predict``, and any of the other hooks.

    Args:
        context: the graph's context; supplied by the server.
        name: the route's key, ``model`` or ``model:version``; supplied by the server.
        model_path: where the model is: a folder or file, local or behind a URI; see ``get_model``.
        model: a ready model object, in place of loading one.
        protocol: ``v2`` checks that ``inputs`` is a list; any other leaves checking to ``validate``.
        input_path: dotted path of the request in the event's body.
        result_path: dotted path in the body where the response is written.
        shard_by_endpoint: ``False`` leaves the partition key of tracking records empty.
        **kwargs: arguments of the model; ``get_param`` reads them.
    """

    returns_events: ClassVar[bool] = True

    def __init__(
        self,
        context: GraphContext | None = None,
        name: str | None = None,
        model_path: str | None = None,
        model: Any = None,
        protocol: str | None = None,
        input_path: str | None = None,
        result_path: str | None = None,
        shard_by_endpoint: bool | None = None,
        **kwargs: Any,
    ) -> None:
        self.name, _, self.version = (name or "").partition(":")
        self.context = context if context is not None else GraphContext()
        self.model_path = model_path
        self.model = model
        self.model_spec: ModelSpec | None = None
        self.protocol = protocol or "v2"
        self.input_path = input_path
        self.result_path = result_path
        self.shard_by_endpoint = shard_by_endpoint
        self.metrics: dict[str, Any] = {}
        self.labels: dict[str, str] = {}
        self.model_endpoint_uid: str = kwargs.pop("model_endpoint_uid", None) or ""
        self._kwargs = kwargs
        self._init_args = {"model_path": model_path, "model": model, "protocol": protocol}
        self._init_args.update(shard_by_endpoint=shard_by_endpoint, **kwargs)
        self._output_names: list[str] | None = None
        self._width: int | None = None
        self._artifact_parameters: Mapping[str, Any] = {}
        self._read = compile_input_path(input_path)
        self._write = compile_result_path(result_path)
        self._operations = self._own_operations()
        # Where preprocess and validate are the ones of this class, what they do is checked in place.
        overridden = [h for h in ("preprocess", "validate") if getattr(type(self), h) is not getattr(V2ModelServer, h)]
        self._looks_first = bool(overridden) or self.protocol != "v2"
        self._hooks_async = any(
            is_async(getattr(self, h)) for h in ("preprocess", "validate", "predict", "explain", "postprocess")
        ) or any(is_async(f) for f in self._operations.values())
        self.observe: Callable[[float, bool], None] | None = None
        own = type(self).logged_results is not V2ModelServer.logged_results
        self._logged: Callable[[Any, Any, str], Any] | None = self.logged_results if own else None
        self._loader = ModelLoader(self.name or type(self).__name__, self._load, self._load_policy())
        if model is not None:
            self._loader.become(LoadState.READY)

    # -- what a user overrides --------------------------------------------------------------------------------------

    def load(self) -> None:
        """Load the model; called once, before the first request is served.

        Usually ``path, _ = self.get_model(".pkl")`` and then ``self.model = …``.
        """
        if self.model is None:
            raise ModelLoadError(
                f"model {self.name!r}: define load() in {type(self).__name__}, or pass a model object (model=...)"
            )

    def preprocess(self, request: Any, operation: str) -> Any:
        """The request as the model wants it; called before ``validate``."""
        return request

    def validate(self, request: Any, operation: str) -> Any:
        """The request, if the model can take it; raise to refuse it. The caller gets the message with status 400."""
        if self.protocol == "v2":
            if not isinstance(request, dict) or "inputs" not in request:
                raise UnprocessableError(f"model {self.name!r}: the request must be an object with 'inputs'")
            if not isinstance(request["inputs"], list):
                raise UnprocessableError(f"model {self.name!r}: 'inputs' must be a list")
            self._check_rows(request["inputs"])
        return request

    def predict(self, request: Any) -> Any:
        """The outputs for ``request["inputs"]``: one for each row."""
        raise NotImplementedError(f"{type(self).__name__} defines no predict()")

    def explain(self, request: Any) -> Any:
        """An explanation of what ``predict`` gives for the same request."""
        raise NotImplementedError(f"{type(self).__name__} defines no explain()")

    def postprocess(self, response: dict[str, Any]) -> dict[str, Any]:
        """The response as the caller wants it: gets and gives the whole response of predict or explain."""
        return response

    def logged_results(self, request: Any, response: Any, op: str) -> tuple[list[Any] | None, list[Any] | None]:
        """The inputs and outputs that are tracked in place of the real ones.

        ``(None, None)`` tracks the real ones; where only one of the two is ``None``, nothing is tracked of that one.
        Called with the live request and response while the request is served, and for successful calls only.
        """
        return None, None

    # -- what a user calls ------------------------------------------------------------------------------------------

    def get_param(self, key: str, default: Any = None) -> Any:
        """A parameter: of the model's arguments, else its artifact, else the function, else the default."""
        if key in self._kwargs:
            return self._kwargs[key]
        if key in self._artifact_parameters:
            return self._artifact_parameters[key]
        return self.context.get_param(key, default)

    def set_metric(self, name: str, value: Any) -> None:
        """Attach a metric to the tracking record of the request that is being served."""
        scope = request_metrics.get()
        if scope is None:
            self.metrics[name] = value
        else:
            scope[name] = value

    def get_model(self, suffix: str = "") -> tuple[str | None, dict[str, Any]]:
        """The model's local file (fetched where it is remote) and its extra files by name.

        Sets ``model_spec`` from the metadata beside the model: inputs, outputs, parameters, labels.

        Args:
            suffix: the file's ending, such as ``".pkl"``, where the model's folder holds several files.

        Raises:
            ModelLoadError: there is no such model; the message lists what is there.
        """
        if not self.model_path:
            return None, {}
        path = self.model_path
        if self.context.workdir and "://" not in path:
            path = str(Path(self.context.workdir, path))
        # Of the function's parameters, not the artifact's: those must not widen what may be fetched.
        fetched = fetch_model(path, suffix, options=FetchOptions.from_parameters(self.context.get_param))
        if fetched.spec is not None:
            self.model_spec = fetched.spec
            self._artifact_parameters = fetched.spec.parameters
        return str(fetched.path), dict(fetched.extra)

    @property
    def ready(self) -> bool:
        """Whether the model is loaded."""
        return self._loader.state is LoadState.READY

    @ready.setter
    def ready(self, value: bool) -> None:
        self._loader.become(LoadState.READY if value else LoadState.LOADING)

    @property
    def error(self) -> BaseException | str:
        """What the last load attempt raised; empty when nothing."""
        return self._loader.error or ""

    @property
    def loader(self) -> ModelLoader:
        """The model's load state."""
        return self._loader

    @property
    def output_schema(self) -> list[str]:
        """The names of the outputs: the argument ``outputs``, else those of the model's metadata."""
        given = self._kwargs.get("outputs")
        if given:
            return [o if isinstance(o, str) else o["name"] for o in given]
        return [f.name for f in self.model_spec.outputs] if self.model_spec else []

    def output_names(self) -> list[str]:
        """`output_schema`, found once the model is loaded and kept."""
        if self._output_names is None:
            self._output_names = self.output_schema
        return self._output_names

    def _row_width(self) -> int:
        """How many values a row has by the model's metadata; 0 where that does not say it."""
        if self._width is None:
            features = self.model_spec.inputs if self.model_spec is not None else []
            # One feature may be a whole image or text; several of no shape are the columns of a table.
            self._width = len(features) if len(features) > 1 and all(f.shape is None for f in features) else 0
        return self._width

    def _check_rows(self, rows: list[Any]) -> None:
        """Refuse rows that are no rows of the table that the model's metadata describes."""
        width = self._row_width()
        if width and not rows:
            raise UnprocessableError(f"$.inputs is empty: send at least one row to model {self.name!r}")
        if not width or (set(map(type, rows)) == {list} and set(map(len, rows)) == {width}):
            return
        for i, row in enumerate(rows):
            if row is None or (isinstance(row, list) and len(row) != width):
                got = "null" if row is None else f"{len(row)} values"
                assert self.model_spec is not None
                names = [f.name for f in self.model_spec.inputs]
                raise UnprocessableError(f"$.inputs[{i}] is {got}; a row of model {self.name!r} is {names}")

    def to_dict(self) -> dict[str, Any]:
        """The model as a step of a spec: class, name and arguments."""
        cls = type(self)
        prefix = "" if cls.__module__ == "__main__" else cls.__module__ + "."
        out: dict[str, Any] = {
            "class_name": prefix + cls.__qualname__,
            "name": self.name + (f":{self.version}" if self.version else ""),
            "class_args": {k: v for k, v in self._init_args.items() if v is not None},
        }
        for key in ("input_path", "result_path"):
            if getattr(self, key) is not None:
                out[key] = getattr(self, key)
        return out

    # -- life -------------------------------------------------------------------------------------------------------

    def post_init(self, mode: str = "sync", **_: Any) -> None:
        """Load the model; called by the server once the graph is built."""
        if self.context.observer is not None:
            self.observe = self.context.observer.model(self.name, self.version)
        if self._loader.state is LoadState.NEW:
            self._loader.start()

    def close(self) -> None:
        """Stop loading; called when the server closes."""
        self._loader.close()

    def _load(self) -> None:
        load: Callable[[], Any] = self.load
        if is_async(load):
            asyncio.run(load())
        else:
            load()

    def _load_policy(self) -> LoadPolicy:
        context = self.context
        number = {k: self.get_param(k) for k in ("load_timeout_s", "load_retries", "load_backoff_s")}
        timeout = number["load_timeout_s"] if number["load_timeout_s"] is not None else context.load_timeout_s
        retries, backoff = number["load_retries"], number["load_backoff_s"]
        return LoadPolicy(context.load_mode, timeout, int(retries or 0), 1.0 if backoff is None else float(backoff))

    # -- serving ----------------------------------------------------------------------------------------------------

    @property
    def event_handler(self) -> Callable[[Event], Any]:
        """What the engine calls with each event: a coroutine function when a hook is one."""
        overridden = type(self).do_event is not V2ModelServer.do_event
        return self._do_event_async if self._hooks_async and not overridden else self.do_event

    def do_event(self, event: Event, *_: Any, **__: Any) -> Event:
        """Serve one event: find its operation, run the hooks, put the response in its body."""
        body = event.body if self._read is None else self._read(event.body)
        operation = event.path
        if operation not in PREDICT_OPS:
            operation = self._operation(event, body)
            if operation not in PREDICT_OPS and operation != "explain":
                return self._other(event, operation)
        call = ModelCall(self, event, body, operation)
        try:
            call.begin()
            request = call.request
            if self._looks_first:
                request = self.preprocess(self._arranged(request, operation), operation)
                request = call.request = self._validated(request, operation)
            elif (
                request.__class__ is not dict
                or request.get("inputs").__class__ is not list
                or operation in _BY_NAME
                or self._width != 0
            ):
                request = call.request = self._validated(self._arranged(request, operation), operation)
            outputs = self.explain(request) if operation == "explain" else self.predict(request)
            response = self.postprocess(call.response(outputs))
        except Exception as exc:
            call.failed(exc)
            raise
        return call.finished(response)

    async def _do_event_async(self, event: Event) -> Event:
        """The same, where at least one hook is a coroutine function."""
        body = event.body if self._read is None else self._read(event.body)
        operation = self._operation(event, body)
        if operation not in PREDICT_OPS and operation != "explain":
            return await _finish(self._operate(event, operation), event)
        call = ModelCall(self, event, body, operation)
        try:
            if not self.ready:
                await asyncio.to_thread(self.check_ready, event)  # it may wait, and the event loop must not
            call.begin()
            request = await _value(self.preprocess(self._arranged(call.request, operation), operation))
            request = call.request = await self._validated_async(request, operation)
            outputs = await _value((self.explain if operation == "explain" else self.predict)(request))
            response = await _value(self.postprocess(call.response(outputs)))
        except Exception as exc:
            call.failed(exc)
            raise
        return call.finished(response)

    def _operation(self, event: Event, body: Any) -> str:
        operation = event.path.strip("/")
        if operation:
            return operation
        if isinstance(body, dict) and body.get("operation"):
            return str(body["operation"])
        return "" if event.method == "GET" else "infer"

    def _arranged(self, request: Any, operation: str) -> Any:
        return self.reorder(request) if operation in _BY_NAME else request

    def _validated(self, request: Any, operation: str) -> Any:
        try:
            return self.validate(request, operation)
        except ServegraphError:
            raise
        except Exception as exc:
            raise self._refused(exc) from exc

    async def _validated_async(self, request: Any, operation: str) -> Any:
        try:
            return await _value(self.validate(request, operation))
        except ServegraphError:
            raise
        except Exception as exc:
            raise self._refused(exc) from exc

    def _refused(self, exc: Exception) -> RequestError:
        """What a model's own validate raises is meant for the caller."""
        return RequestError(f"model {self.name!r} refused the request: {text_of(exc)}", model=self.name)

    def _other(self, event: Event, operation: str) -> Event:
        """Operations besides predicting and explaining."""
        event.body = self._operate(event, operation)
        return event

    def _operate(self, event: Event, operation: str) -> Any:
        own = self._operations.get(operation)
        if own is not None:
            return own(event)
        if operation == "ready":
            _only_get(event, operation)
            event.terminated = True
            if not self.ready:
                raise self._loader.not_ready()
            text = f"Model {self.name} is ready (event_id = {event.id})"
            return Response(body=text.encode(), content_type="text/plain", status_code=200)
        if operation == "":
            event.terminated = True
            return self.metadata()
        known = [*BUILT_IN_OPS, *self._operations]
        shown = operation if len(operation) <= 80 else operation[:77] + "..."
        raise NotFoundError(f"model {self.name!r} has no operation {shown!r}; {closest(shown, known)}", model=self.name)

    def metadata(self) -> dict[str, Any]:
        """Name, versions, inputs and outputs, as the MLRun style and the Open Inference Protocol both name them."""
        spec = self.model_spec
        return {
            "name": self.name,
            "version": self.version,
            "versions": [self.version] if self.version else [],
            "platform": "servegraph",
            "inputs": [f.to_dict() for f in spec.inputs] if spec else [],
            "outputs": [f.to_dict() for f in spec.outputs] if spec else [],
        }

    def _own_operations(self) -> dict[str, Hook]:
        names = [n for n in dir(type(self)) if n.startswith("op_") and len(n) > 3]
        return {n[3:]: getattr(self, n) for n in names if callable(getattr(self, n))}

    def check_ready(self, event: Event) -> None:
        """Return when the model is ready: at once for a caller that waits, when it is for a stream record.

        Raises:
            ModelNotReadyError: it is not, or cannot be.
        """
        if self._loader.state is LoadState.READY:
            return
        if event.trigger.kind in ("", "http") or self._loader.state is LoadState.NEW:
            raise self._loader.not_ready()
        remaining = None if event.deadline is None else max(0.0, event.deadline - time.monotonic())
        if not self._loader.wait(remaining):
            raise self._loader.not_ready()

    def reorder(self, request: Any) -> Any:
        """A request whose inputs are given by name, with its inputs in the order of the model's metadata."""
        if self.model_spec is None or not self.model_spec.inputs:
            raise UnprocessableError(
                f"model {self.name!r}: inputs by name need the model's metadata with its inputs: "
                "call self.get_model() in load(), with a model_spec file beside the model"
            )
        names = [f.name for f in self.model_spec.inputs]
        inputs = request.get("inputs") if isinstance(request, dict) else None
        rows = [inputs] if isinstance(inputs, dict) else inputs
        if not isinstance(rows, list) or not all(isinstance(r, dict) for r in rows):
            raise UnprocessableError(f"model {self.name!r}: 'inputs' must be an object or a list of objects")
        ordered = []
        for i, row in enumerate(rows):
            missing = [n for n in names if n not in row]
            if missing:
                raise UnprocessableError(f"$.inputs[{i}]: missing {missing}; the model takes {names}")
            ordered.append([row[n] for n in names])
        return {**request, "inputs": ordered}

    def answer(self, event: Event, response: Any) -> None:
        """Put a response into an event's body, where ``result_path`` wants it."""
        event.body = response if self._write is None else self._write(event.body, response)

    def prediction(self, call: ModelCall, response: Any, error: BaseException | None) -> Prediction:
        """What is recorded of a call."""
        return Prediction(
            model=self.name,
            version=self.version,
            model_class=type(self).__name__,
            endpoint_uid=self.model_endpoint_uid,
            op=call.operation,
            request=call.request,
            response=response,
            when_ns=call.when_ns,
            microsec=call.microseconds,
            error=error,
            metrics={**self.metrics, **call.metrics} if call.metrics else self.metrics or None,
            labels=self.labels or None,
            key=None if self.shard_by_endpoint is False else self.model_endpoint_uid or None,
            request_id=call.event_id or call.event.id,
            logged=self._logged,
        )


async def _value(result: Any) -> Any:
    return await result if hasattr(result, "__await__") else result


async def _finish(result: Any, event: Event) -> Event:
    event.body = await _value(result)
    return event


def _only_get(event: Event, operation: str) -> None:
    if event.method not in ("GET", None):
        raise MethodNotAllowedError(f"operation {operation!r} is for GET, not {event.method}", allow=("GET",))


__all__ = ["V2ModelServer"]
