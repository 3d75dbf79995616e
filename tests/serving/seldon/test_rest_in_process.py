"""Messages of callers in the same process: their arrays need not become lists."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tree_kit import function_of, node

from servegraph.serving.seldon.rest import message_from_rest


@pytest.mark.parametrize("encoding", ["ndarray", "tensor"])
def test_array_of_a_caller_is_taken_and_not_shared(encoding: str) -> None:
    rows = np.array([[1.5, 2.5]])
    data: Any = {"ndarray": rows} if encoding == "ndarray" else {"tensor": {"shape": [1, 2], "values": rows.ravel()}}
    message = message_from_rest({"data": data})
    message.value += 1
    assert (message.encoding, message.value.tolist(), rows.tolist()) == (encoding, [[2.5, 3.5]], [[1.5, 2.5]])


def test_answer_of_a_mock_server_can_be_sent_back_as_feedback() -> None:
    told: list[Any] = []

    class Learner:
        def predict(self, X: Any, names: Any) -> Any:
            return X * 2

        def send_feedback(self, X: Any, names: Any, reward: float, truth: Any, routing: Any = None) -> None:
            told.append((X.tolist(), reward, truth.tolist()))

    request = {"data": {"ndarray": np.array([[1.0, 2.0]])}}
    with function_of(node("learner"), {"learner": Learner()}).to_mock_server() as server:
        answer = server.test("/api/v1.0/predictions", request)
        feedback = {"request": request, "response": answer, "truth": answer, "reward": 0.5}
        server.test("/api/v1.0/feedback", feedback)
    assert told == [([[1.0, 2.0]], 0.5, [[2.0, 4.0]])]
