"""What a call gives back, and the arrays and frames in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from servegraph.importing import import_extra
from servegraph.serving.seldon.client.answer import Answer
from servegraph.serving.seldon.client.errors import SeldonClientException

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from servegraph.serving.seldon.message import Message


class Result:
    """A request and its answer, or why there is none.

    Args:
        request: what was sent, as ``dict`` or protobuf message.
        response: the answer, likewise; that of a failed call too, where the server sent one.
        success: whether the call succeeded.
        msg: why it did not, such as ``404:Not Found``.
    """

    def __init__(self, request: Any = None, response: Any = None, success: bool = True, msg: str = "") -> None:
        self.request = request
        self.response = response
        self.success = success
        self.msg = msg
        self.code = ""
        """Status of HTTP or of gRPC, such as ``404`` or ``UNAVAILABLE``; empty where no answer came."""
        self.retryable = False
        """Whether the same call may succeed when it is made again."""
        self.retry_after_s: float | None = None
        """How long the server asks to wait before that."""
        self._answer: Any = response

    @classmethod
    def of(cls, request: Any, response: Any, answer: Answer) -> Self:
        """The result of a call.

        Args:
            request: what was sent, in the type that the caller wants.
            response: what came back, likewise.
            answer: how the call went.
        """
        result = cls(request, response, answer.ok, answer.msg)
        result.code, result.retryable, result.retry_after_s = answer.code, answer.retryable, answer.retry_after_s
        result._answer = answer.body
        return result

    def message(self) -> Message:
        """The answer as a message, with the types that came over the wire: whole numbers stay whole on REST.

        Raises:
            SeldonClientException: the call failed, or its answer is malformed.
        """
        from servegraph.serving.seldon.client.payload import any_message

        if not self.success:
            raise SeldonClientException(f"the call failed: {self.msg}")
        return any_message(self._answer, "answer")

    def array(self) -> np.ndarray[Any, Any]:
        """The array of the answer.

        Raises:
            SeldonClientException: the call failed, or its answer holds no array.
        """
        message = self.message()
        if message.kind != "data":
            raise SeldonClientException(f"the answer holds {message.kind or 'no data'}: it has no array")
        array: np.ndarray[Any, Any] = message.value
        return array

    def frame(self) -> pd.DataFrame:
        """The array of the answer as a data frame, its columns named as the answer names them.

        Raises:
            SeldonClientException: the call failed, or its answer holds no table.
            MissingExtraError: pandas is not installed.
        """
        pandas = import_extra("pandas", feature="a data frame", extra="pandas")
        array, names = self.array(), self.message().names
        if array.ndim > 2:
            raise SeldonClientException(f"an array of {array.ndim} dimensions is no table")
        rows = array.reshape(1, -1) if array.ndim < 2 else array
        frame: pd.DataFrame = pandas.DataFrame(rows, columns=names if len(names) == rows.shape[1] else None)
        return frame.infer_objects()

    def __repr__(self) -> str:
        outcome = "success" if self.success else f"failure: {self.msg}"
        return f"{type(self).__name__}({outcome}, request={self.request!r}, response={self.response!r})"


class SeldonClientPrediction(Result):
    """The result of a prediction, a transformation, a route or an explanation."""


class SeldonClientFeedback(Result):
    """The result of feedback."""


class SeldonClientCombine(Result):
    """The result of an aggregation."""
