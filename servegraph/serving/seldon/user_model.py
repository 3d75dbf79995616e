"""What components are written with: a base class that they may have, and an answer with its own tags and metrics."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from servegraph.serving.seldon.errors import SeldonNotImplementedError


class SeldonResponse:
    """A method's answer together with tags and metrics of this one call.

    Args:
        data: what the method would return without them.
        tags: added to the answer's tags; they win over those of ``tags()``.
        metrics: custom metrics of this call, added to those of ``metrics()``.
    """

    def __init__(
        self, data: Any, tags: dict[str, Any] | None = None, metrics: list[dict[str, Any]] | None = None
    ) -> None:
        self.data = data
        self.tags: dict[str, Any] = tags if tags is not None else {}
        self.metrics: list[dict[str, Any]] = metrics if metrics is not None else []

    @classmethod
    def create(cls, data: Any) -> SeldonResponse:
        """``data`` itself when it is a response already, else one around it."""
        return data if isinstance(data, SeldonResponse) else cls(data)

    def __repr__(self) -> str:
        return f"SeldonResponse({self.data!r}, tags={self.tags!r}, metrics={self.metrics!r})"


class SeldonComponent:
    """A base class that a component may have and need not; each of its methods counts as missing."""

    def __init__(self, **kwargs: Any) -> None:
        """Take any parameter and keep none."""

    def load(self) -> None:
        """Prepare the model; called once in each process that serves it."""

    def tags(self) -> dict[str, Any]:
        """Tags of every answer."""
        raise SeldonNotImplementedError("tags is not implemented")

    def class_names(self) -> Iterable[str]:
        """Names of the columns of an answer."""
        raise SeldonNotImplementedError("class_names is not implemented")

    def feature_names(self) -> Iterable[str]:
        """Names of the columns of a request."""
        raise SeldonNotImplementedError("feature_names is not implemented")

    def metrics(self) -> list[dict[str, Any]]:
        """Custom metrics, asked for after every call."""
        raise SeldonNotImplementedError("metrics is not implemented")

    def metadata(self) -> dict[str, Any]:
        """An older name of `init_metadata`; it is not asked."""
        raise SeldonNotImplementedError("metadata is not implemented")

    def init_metadata(self) -> dict[str, Any]:
        """What the model is, asked for once."""
        raise SeldonNotImplementedError("init_metadata is not implemented")

    def predict(self, X: Any, names: Iterable[str], meta: dict[str, Any] | None = None) -> Any:  # noqa: N803
        """The prediction for a payload."""
        raise SeldonNotImplementedError("predict is not implemented")

    def predict_raw(self, msg: Any) -> Any:
        """The answer to a whole message."""
        raise SeldonNotImplementedError("predict_raw is not implemented")

    def transform_input(self, X: Any, names: Iterable[str], meta: dict[str, Any] | None = None) -> Any:  # noqa: N803
        """The payload as the nodes below are to see it."""
        raise SeldonNotImplementedError("transform_input is not implemented")

    def transform_input_raw(self, msg: Any) -> Any:
        """The message as the nodes below are to see it."""
        raise SeldonNotImplementedError("transform_input_raw is not implemented")

    def transform_output(self, X: Any, names: Iterable[str], meta: dict[str, Any] | None = None) -> Any:  # noqa: N803
        """The payload as the caller is to see it."""
        raise SeldonNotImplementedError("transform_output is not implemented")

    def transform_output_raw(self, msg: Any) -> Any:
        """The message as the caller is to see it."""
        raise SeldonNotImplementedError("transform_output_raw is not implemented")

    def route(self, features: Any, feature_names: Iterable[str]) -> int:
        """The index of the child that the payload goes to."""
        raise SeldonNotImplementedError("route is not implemented")

    def route_raw(self, msg: Any) -> Any:
        """A message with the index of the child."""
        raise SeldonNotImplementedError("route_raw is not implemented")

    def aggregate(self, features_list: list[Any], feature_names_list: list[Any]) -> Any:
        """One payload of those of all children."""
        raise SeldonNotImplementedError("aggregate is not implemented")

    def aggregate_raw(self, msgs: Any) -> Any:
        """One message of those of all children."""
        raise SeldonNotImplementedError("aggregate_raw is not implemented")

    def send_feedback(
        self, features: Any, feature_names: Iterable[str], reward: float, truth: Any, routing: int | None
    ) -> Any:
        """Learn how good an answer was."""
        raise SeldonNotImplementedError("send_feedback is not implemented")

    def send_feedback_raw(self, feedback: Any) -> Any:
        """Learn from a whole feedback message."""
        raise SeldonNotImplementedError("send_feedback_raw is not implemented")

    def health_status(self) -> Any:
        """How the component is."""
        raise SeldonNotImplementedError("health is not implemented")

    def health_status_raw(self) -> Any:
        """How the component is, as a whole message."""
        raise SeldonNotImplementedError("health_raw is not implemented")
