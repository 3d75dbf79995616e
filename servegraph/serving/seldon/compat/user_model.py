"""``seldon_core.user_model``: what components are written with, and each of their methods called on its own."""

from __future__ import annotations

import inspect
import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Dict, List, Tuple, Union  # noqa: UP035 - found by those who import everything

import numpy as np

from servegraph.serving.seldon.arrays import default_names, shape_of
from servegraph.serving.seldon.custom_metrics import METHODS, CustomMetrics, MetricSink
from servegraph.serving.seldon.errors import SeldonMicroserviceException, SeldonNotImplementedError
from servegraph.serving.seldon.raw import is_not_implemented
from servegraph.serving.seldon.signatures import takes_feedback, takes_lists, takes_little, takes_rows
from servegraph.serving.seldon.user_model import SeldonComponent, SeldonResponse
from servegraph.settings import environment

logger = logging.getLogger("servegraph")

INCLUDE_METRICS_IN_CLIENT_RESPONSE: bool = (
    environment().get("INCLUDE_METRICS_IN_CLIENT_RESPONSE", "true").lower() == "true"
)
"""Looked at by every call, so that tests can change it here."""

ClientResponse = SeldonResponse
"""Its name before it was released, which an example of Seldon's imports."""
_OPERATIONS = {method: operation for operation, method in METHODS.items()}
_MISSING = object()


def client_predict(user_model: Any, features: Any, feature_names: Iterable[str], **kwargs: Any) -> SeldonResponse:
    """What the component predicts; an empty list where it cannot."""
    return _called(user_model, "predict", features, feature_names, kwargs, instead=[])


def client_transform_input(
    user_model: Any, features: Any, feature_names: Iterable[str], **kwargs: Any
) -> SeldonResponse:
    """The transformed input; the input where the component does not transform it."""
    return _called(user_model, "transform_input", features, feature_names, kwargs, instead=features)


def client_transform_output(
    user_model: Any, features: Any, feature_names: Iterable[str], **kwargs: Any
) -> SeldonResponse:
    """The transformed output; the output where the component does not transform it."""
    return _called(user_model, "transform_output", features, feature_names, kwargs, instead=features)


def client_route(user_model: Any, features: Any, feature_names: Iterable[str], **kwargs: Any) -> SeldonResponse:
    """The index of the child that the component chooses.

    Raises:
        SeldonMicroserviceException: it chooses none.
    """
    answer = _called(user_model, "route", features, feature_names, kwargs, instead=_MISSING)
    if answer.data is _MISSING:
        raise SeldonMicroserviceException("Route not defined")
    if not isinstance(answer.data, (int, np.integer)):
        raise SeldonMicroserviceException(f"Routing response must be int but got {type(answer.data).__name__}")
    return answer


def client_aggregate(user_model: Any, features_list: list[Any], feature_names_list: list[Any]) -> SeldonResponse:
    """The one payload that the component makes of several.

    Raises:
        SeldonMicroserviceException: it makes none.
    """
    method = getattr(user_model, "aggregate", None)
    if not callable(method):
        raise SeldonMicroserviceException("Aggregate not defined")
    return SeldonResponse.create(takes_lists(method, "aggregate")(features_list, feature_names_list))


def client_send_feedback(
    user_model: Any, features: Any, feature_names: Iterable[str], reward: float, truth: Any, routing: int | None
) -> SeldonResponse:
    """What the component answers to feedback."""
    method = getattr(user_model, "send_feedback", None)
    if not callable(method):
        return SeldonResponse(None)
    call = takes_feedback(method, "send_feedback")
    return SeldonResponse.create(_implemented(call, features, feature_names, reward, truth, routing, instead=None))


def client_health_status(user_model: Any) -> Any:
    """How the component says that it is."""
    method = getattr(user_model, "health_status", None)
    if not callable(method):
        return "healthy"
    call = takes_little(method, "health_status")
    return _implemented(call, None, instead="not implemented - assuming healthy")


def client_custom_tags(user_model: Any) -> dict[str, Any]:
    """The component's tags."""
    found = _of(user_model, "tags", None)
    return dict(found) if found else {}


def client_class_names(user_model: Any, predictions: Any) -> list[Any]:
    """Names for the columns of a result: the component's, or generated ones; none where it has no columns."""
    if len(shape_of(predictions)) < 2:
        return []
    found = _of(user_model, "class_names", predictions)
    return default_names(predictions) if found is None else list(found)


def client_feature_names(user_model: Any, original: Iterable[str]) -> Any:
    """The component's names for the columns of a request, or those that the request has."""
    found = _of(user_model, "feature_names", None)
    return original if found is None else found


def client_custom_metrics(
    user_model: Any, seldon_metrics: MetricSink, method: str, runtime_metrics: Any = ()
) -> list[dict[str, Any]]:
    """The component's metrics and those of this call, recorded, as callers see them.

    Args:
        user_model: the component.
        seldon_metrics: where they are kept.
        method: the value of their label ``method``.
        runtime_metrics: those of this call.
    """
    custom = CustomMetrics(seldon_metrics, in_response=INCLUDE_METRICS_IN_CLIENT_RESPONSE)
    operation = _OPERATIONS[method]
    return [*custom.take(_of(user_model, "metrics", None), operation), *custom.take(runtime_metrics, operation)]


def _called(
    user_model: Any, name: str, features: Any, names: Iterable[str], kwargs: Mapping[str, Any], *, instead: Any
) -> SeldonResponse:
    method = getattr(user_model, name, None)
    if not callable(method):
        return SeldonResponse.create(instead)
    call = takes_rows(method, name)
    if name == "route":  # one that is not implemented is an error, not a choice
        return SeldonResponse.create(call(features, names, kwargs.get("meta")))
    return SeldonResponse.create(_implemented(call, features, names, kwargs.get("meta"), instead=instead))


def _implemented(call: Callable[..., Any], *arguments: Any, instead: Any) -> Any:
    try:
        return call(*arguments)
    except Exception as exc:
        if is_not_implemented(exc):
            return instead
        raise


def _of(user_model: Any, name: str, values: Any) -> Any:
    """What a method without arguments, or an attribute in its place, gives."""
    found = getattr(user_model, name, None)
    if not callable(found):
        return found
    return _implemented(takes_little(found, name), values, instead=None)


__all__ = [
    "INCLUDE_METRICS_IN_CLIENT_RESPONSE",
    "Dict",
    "Iterable",
    "List",
    "SeldonComponent",
    "SeldonMicroserviceException",
    "SeldonNotImplementedError",
    "SeldonResponse",
    "Tuple",
    "Union",
    "client_aggregate",
    "client_class_names",
    "client_custom_metrics",
    "client_custom_tags",
    "client_feature_names",
    "client_health_status",
    "client_predict",
    "client_route",
    "client_send_feedback",
    "client_transform_input",
    "client_transform_output",
    "inspect",
    "json",
    "logger",
    "logging",
    "np",
    "os",
]
