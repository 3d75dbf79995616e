"""`VotingEnsemble`: models that answer together."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from servegraph.errors import (
    GraphError,
    MethodNotAllowedError,
    ModelNotReadyError,
    NotFoundError,
    RemoteError,
    RequestError,
    ServegraphError,
    StepError,
    UnprocessableError,
    closest,
    text_of,
)
from servegraph.graph.context import GraphContext, Prediction
from servegraph.graph.events import Event
from servegraph.graph.plan import Route
from servegraph.graph.resolve import is_async
from servegraph.serving.fanout import Answers, FailurePolicy, Fanout
from servegraph.serving.parallel import hook_call
from servegraph.serving.protocols import oip
from servegraph.serving.routers import ModelRouter, refuse_unknown
from servegraph.serving.v2 import BUILT_IN_OPS, PREDICT_OPS, V2ModelServer
from servegraph.serving.voting import (
    VOTE_TYPES,
    VOTES,
    best_class,
    infer_vote_type,
    plain_rows,
    read_weights,
)

_PATH_OPERATIONS: Final = frozenset({*PREDICT_OPS, "explain"})
_SOFT_OUTPUTS: Final = ("label", "probabilities")


class VotingEnsemble(ModelRouter):
    """Models that answer together: by majority, by mean, or by the mean of their probabilities.

    Paths (``prefix`` is ``/v2/models``, ``NAME`` the router's name)::

        /                                           the model that the body names, else the ensemble
        prefix                                      the list of models, the ensemble among them, and the weights
        prefix/<infer|predict|explain>              the ensemble
        prefix/NAME[/OPERATION]                     the ensemble; with GET its metadata, or ``ready``
        prefix/MODEL[/versions/VERSION][/OPERATION]  one of the models, alone

    Args:
        vote_type: ``classification``: the label with the most weight, of equals that of the first route; labels are
            anything hashable. ``regression``: the weighted mean. ``soft``: the weighted mean of class probabilities.
            When not given, classification or regression by what the models predict, request by request: one
            prediction with a fraction part type (float) makes it regression.
        weights: weight by model; equal when not given. They need not sum to 1.
        missing_weight: the weight of models that ``weights`` does not name (0: they are asked, and do not count);
            ``None`` refuses to leave one out.
        prediction_col_name: the name of the predictions in answers that name them.
        format_response_with_col_name_flag: answer ``outputs`` as ``{prediction_col_name: [...]}``.
        soft_output: of a soft vote the ``label`` (default) or the ``probabilities``.
        classes: the labels of a soft vote in the order of the probabilities; their indexes when not given.
        shard_by_endpoint: ``False`` leaves the partition key of tracking records empty.
        executor_type: see `ParallelRun`.
        on_failure: ``fail`` (default) or ``partial``: the models that answered vote with the weights they have, and
            the answer says ``partial`` and which failed. See `ParallelRun`, also for ``quorum`` and ``required``.
        **kwargs: arguments of `ModelRouter`.
    """

    def __init__(
        self,
        context: GraphContext | None = None,
        name: str | None = None,
        routes: Mapping[str, Route] | None = None,
        vote_type: str | None = None,
        weights: Mapping[str, float] | None = None,
        prediction_col_name: str | None = None,
        format_response_with_col_name_flag: bool = False,
        executor_type: str | None = None,
        shard_by_endpoint: bool | None = None,
        *,
        missing_weight: float | None = 0.0,
        soft_output: str = "label",
        classes: Sequence[Any] | None = None,
        on_failure: str | None = None,
        quorum: int | None = None,
        required: Iterable[str] | None = None,
        model_endpoint_uid: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(context, name, routes, **kwargs)
        refuse_unknown(self, self._kwargs)
        if vote_type is not None and vote_type not in VOTE_TYPES:
            raise GraphError(f"{self.name}: vote_type is {vote_type!r}; {closest(str(vote_type), VOTE_TYPES)}")
        if soft_output not in _SOFT_OUTPUTS:
            raise GraphError(f"{self.name}: soft_output is {soft_output!r}; {closest(soft_output, _SOFT_OUTPUTS)}")
        if is_async(self.logic):
            raise GraphError(f"{type(self).__name__}.logic must be a plain function, not a coroutine function")
        self._refuse_ambiguous()
        keys = list(self.routes)
        self.vote_type = vote_type
        self.weights = read_weights(weights, keys, missing_weight, self.name)
        self.prediction_col_name = prediction_col_name or "prediction"
        self.format_response_with_col_name_flag = format_response_with_col_name_flag
        self.shard_by_endpoint = shard_by_endpoint
        self.soft_output = soft_output
        self.classes = list(classes) if classes is not None else None
        self.model_endpoint_uid = model_endpoint_uid or ""
        policy = FailurePolicy.checked(on_failure, quorum, required, keys, self.name)
        self._fanout = Fanout(self.name, self.routes, executor_type, policy, self.context)
        self.parallel = self._fanout.parallel or is_async(self.validate)
        self._combining = hook_call(self, "vote", self._combine)
        self._validating = hook_call(self, "validate", self.validate)
        self._observe: Callable[[float, bool], None] | None = None

    # -- what a user overrides --------------------------------------------------------------------------------------

    def logic(self, predictions: Sequence[Sequence[Any]], weights: Sequence[float]) -> list[Any]:
        """The ensemble's outputs; override it for a vote of your own.

        Args:
            predictions: for each row of the request the predictions of the models that answered, in route order.
            weights: their weights, in the same order; the sum is 1.
        """
        columns = {str(i): column for i, column in enumerate(zip(*predictions, strict=True))}
        return self._vote(self.vote_type or infer_vote_type(columns), predictions, weights)

    def validate(self, request: Any, operation: str) -> Any:
        """The request, if the models can take it; raise to refuse it."""
        kinds = (list, dict) if operation.endswith("_dict") else (list,)
        if not isinstance(request, dict) or not isinstance(request.get(self.inputs_key), kinds):
            raise UnprocessableError(
                f"ensemble {self.name!r}: the request must be an object whose {self.inputs_key!r} is a list"
            )
        return request

    # -- serving ----------------------------------------------------------------------------------------------------

    def post_init(self, mode: str = "sync", **kwargs: Any) -> None:
        """Ask for the ensemble's own metrics, where there are any."""
        super().post_init(mode, **kwargs)
        if self.context.observer is not None:
            self._observe = self.context.observer.model(self.name, "")

    def models(self) -> list[str]:
        """The keys of the routes, and the ensemble's name."""
        return [*self.routes, self.name]

    def listing(self) -> dict[str, Any]:
        """The list of models, and the weights as they were given."""
        return {"models": self.models(), "weights": self.weights.given}

    async def handle(self, event: Event) -> Event:
        """The answer of the ensemble, or of the one model that is named."""
        member, operation = self._target(event)
        if member is not None:
            event.path = operation
            return await member.run(event)
        if not operation and event.method != "GET":
            operation = "infer"
        if operation in PREDICT_OPS or operation == "explain":
            return await self._answer(event, operation)
        event.body = self._about(event, operation)
        event.terminated = True
        return event

    def _target(self, event: Event) -> tuple[Route | None, str]:
        """The one model that an event is for, or none for the ensemble; and the operation."""
        path, body = event.path, event.body
        prefix, _, last = path.rpartition("/")
        model = version = operation = ""
        if prefix == self.url_prefix and last in _PATH_OPERATIONS:
            model, operation = self.name, last
        else:
            model, version, operation = self.parse_path(path)
        if isinstance(body, dict):
            operation = str(body.get("operation") or operation)
            if not model and body.get("model"):
                model, _, given = str(body["model"]).partition(":")
                version = version or given
        if not model or (model == self.name and not version):
            return None, operation
        if model not in self.routes and model not in self._versions:
            raise NotFoundError(f"there is no model {model[:80]!r}; {closest(model, self.models())}")
        return self.find(model, version), operation

    def _about(self, event: Event, operation: str) -> Any:
        """What the ensemble says of itself."""
        if operation not in ("", "ready"):
            raise NotFoundError(
                f"ensemble {self.name!r} has no operation {operation[:80]!r}; {closest(operation, BUILT_IN_OPS)}"
            )
        if event.method not in ("GET", None):
            raise MethodNotAllowedError(f"operation {operation!r} is for GET, not {event.method}", allow=("GET",))
        if operation == "":
            return self.metadata()
        waiting = [key for key, route in self.routes.items() if not getattr(route.target, "ready", True)]
        if waiting:
            raise ModelNotReadyError(f"ensemble {self.name!r} is not ready: waiting for {', '.join(waiting)}")
        return {"name": self.name, "ready": True, "members": list(self.routes)}

    def metadata(self) -> dict[str, Any]:
        """Name, members and weights; inputs and outputs are those of the first member that tells them."""
        described = (r.target.metadata() for r in self.routes.values() if isinstance(r.target, V2ModelServer))
        told: Mapping[str, Any] = next(
            (m for m in described if m["inputs"] or m["outputs"]), {"inputs": [], "outputs": []}
        )
        metadata = {
            "name": self.name,
            "version": "",
            "versions": [],
            "platform": "servegraph",
            "inputs": told["inputs"],
            "outputs": told["outputs"],
            "members": list(self.routes),
            "weights": self.weights.given,
        }
        return metadata | ({"model_endpoint_uid": self.model_endpoint_uid} if self.model_endpoint_uid else {})

    async def _answer(self, event: Event, operation: str) -> Event:
        """Ask the models, combine what they say, record the call."""
        when_ns, start = time.time_ns(), time.perf_counter_ns()
        request, response, error = event.body, None, None
        try:
            if not self.routes:
                raise NotFoundError(f"ensemble {self.name!r} has no models")
            body, tensors = event.body, None
            if type(body) is dict and oip.is_tensor_request(body):
                request, tensors = oip.decode(body, self.context.tensor_rank)
            request = await self._valid(event, request, operation)
            asked = event.fork(request)
            asked.path = operation

            def body_for(route: Route) -> Any:
                return body if getattr(route.target, "forwards_bodies", False) else request

            answers = await self._fanout.run(asked, self._asked(operation), body_for)
            outputs = await self._combining.run(event.fork((answers.results, operation)), event._run)
            response = self._response(event, request, outputs, answers)
            encode = tensors is not None and operation != "explain"
            event.body = self._encoded(response, tensors) if encode and tensors is not None else response
        except Exception as exc:
            error = exc
            raise
        finally:
            microsec = (time.perf_counter_ns() - start) // 1000
            self._record(event, operation, request, response, when_ns, microsec, error)
        return event

    async def _valid(self, event: Event, request: Any, operation: str) -> Any:
        try:
            return await self._validating.run(event.fork((request, operation)), event._run)
        except ServegraphError:
            raise
        except Exception as exc:
            # What an ensemble's own validate raises is meant for the caller.
            raise RequestError(f"ensemble {self.name!r} refused the request: {text_of(exc)}") from exc

    def _asked(self, operation: str) -> list[Route]:
        """The routes that an operation is for; those that surely cannot explain are not asked to."""
        routes = list(self.routes.values())
        if operation != "explain":
            return routes
        mute = [r.key for r in routes if _cannot_explain(r.target)]
        if mute and (len(mute) == len(routes) or not self._fanout.policy.partial):
            raise UnprocessableError(f"ensemble {self.name!r} cannot explain: {', '.join(mute)} define no explain()")
        return [r for r in routes if r.key not in mute]

    def _response(self, event: Event, request: Any, outputs: Any, answers: Answers) -> dict[str, Any]:
        response = {"id": _id_of(request) or event.id, "model_name": self.name, "outputs": outputs}
        if self.model_endpoint_uid:
            response["model_endpoint_uid"] = self.model_endpoint_uid
        return answers.mark(response)

    def _encoded(self, response: dict[str, Any], tensors: tuple[str, ...]) -> dict[str, Any]:
        encoded = oip.encode(response, tensors, [self.prediction_col_name], self.name, "")
        if "partial" in response:
            failed = {"partial": True, "errors": response["errors"]}
            encoded["parameters"] = {**encoded.get("parameters", {}), **failed}
        return encoded

    def _record(
        self,
        event: Event,
        operation: str,
        request: Any,
        response: Any,
        when_ns: int,
        microsec: int,
        error: Exception | None,
    ) -> None:
        if self._observe is not None:
            self._observe(microsec * 1e-6, error is not None)
        if self.context.recorder is None:
            return
        self.context.recorder.record(
            Prediction(
                model=self.name,
                version="",
                model_class=type(self).__name__,
                endpoint_uid=self.model_endpoint_uid,
                op=operation,
                request=request,
                response=response,
                when_ns=when_ns,
                microsec=microsec,
                error=error,
                metrics=None,
                labels=None,
                request_id=event.id,
                key=None if self.shard_by_endpoint is False else self.model_endpoint_uid or None,
            )
        )

    # -- combining --------------------------------------------------------------------------------------------------

    def _combine(self, results: Mapping[str, Any], operation: str) -> Any:
        """The ensemble's outputs from the models' answers."""
        if operation == "explain":
            return {key: _outputs_of(answer) for key, answer in results.items()}
        predictions = {key: self._rows(key, answer) for key, answer in results.items()}
        lengths = {key: len(rows) for key, rows in predictions.items()}
        if len(set(lengths.values())) > 1:
            shown = ", ".join(f"{k}: {n}" for k, n in lengths.items())
            raise StepError(f"the models of ensemble {self.name!r} gave different numbers of rows ({shown})")
        if not any(self.weights.whole[key] for key in predictions):
            raise RemoteError(f"ensemble {self.name!r}: the models that answered have no weight")
        rows = list(zip(*predictions.values(), strict=True))
        keys = list(predictions)
        if type(self).logic is not VotingEnsemble.logic:
            outputs = self.logic(rows, self.weights.normalised(keys))
        else:
            vote_type = self.vote_type or infer_vote_type(predictions)
            outputs = self._vote(vote_type, rows, self.weights.of(keys))
        return {self.prediction_col_name: outputs} if self.format_response_with_col_name_flag else outputs

    def _vote(self, vote_type: str, rows: Sequence[Sequence[Any]], weights: Sequence[float]) -> list[Any]:
        outputs = VOTES[vote_type](rows, weights)
        if vote_type == "soft" and self.soft_output == "label":
            return [best_class(row, self.classes) for row in outputs]
        return outputs

    def _rows(self, key: str, answer: Any) -> list[Any]:
        """A model's predictions, one for each row."""
        outputs, column = _outputs_of(answer), self.prediction_col_name
        if isinstance(outputs, list) and oip.is_tensor_request({"inputs": outputs}):
            named = [t for t in outputs if isinstance(t, dict) and t.get("name") == column] or outputs[:1]
            try:
                outputs = oip.decode({"inputs": named})[0]["inputs"]
            except RequestError as exc:
                raise StepError(f"model {key!r} answered with a tensor that cannot be read: {exc}") from exc
        if isinstance(outputs, Mapping):
            if column not in outputs:
                raise StepError(f"the outputs of model {key!r} have no {column!r}; {closest(column, outputs)}")
            outputs = outputs[column]
        rows = plain_rows(outputs)
        if rows is None:
            raise StepError(f"model {key!r} gave {type(outputs).__name__} as outputs; a vote needs a list of rows")
        return rows

    def _refuse_ambiguous(self) -> None:
        for key in self.routes:
            model = key.partition(":")[0]
            if model == self.name:
                raise GraphError(f"route {key!r} has the name of its ensemble: rename one of them")
            if model in _PATH_OPERATIONS:
                raise GraphError(f"{key!r} is an operation of ensemble {self.name!r} and cannot be a route: rename it")


def _id_of(request: Any) -> Any:
    return request.get("id") if isinstance(request, dict) else None


def _outputs_of(answer: Any) -> Any:
    return answer["outputs"] if isinstance(answer, Mapping) and "outputs" in answer else answer


def _cannot_explain(target: Any) -> bool:
    return isinstance(target, V2ModelServer) and type(target).explain is V2ModelServer.explain
