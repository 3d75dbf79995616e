"""The implementations that need no code."""

from __future__ import annotations

from typing import Any

import pytest
from tree_kit import Add, ask, function_of, hard, node, rows

SUCCESS = {"code": 0, "info": "", "reason": "", "status": "SUCCESS"}
A, B = node("a"), node("b")


def test_simple_model_answers_the_same_to_every_array() -> None:
    with function_of(hard("m", "SIMPLE_MODEL")).to_mock_server() as server:
        answer = ask(server)
    assert answer["data"] == {
        "names": ["class0", "class1", "class2"],
        "tensor": {"shape": [1, 3], "values": [0.1, 0.9, 0.5]},
    }
    assert answer["status"] == SUCCESS
    assert [(m["key"], m["type"], m["value"]) for m in answer["meta"]["metrics"]] == [
        ("mymetric_counter", "COUNTER", 1),
        ("mymetric_gauge", "GAUGE", 100),
        ("mymetric_timer", "TIMER", 22.1),
    ]
    assert answer["meta"]["requestPath"] == {"m": "SIMPLE_MODEL"}


@pytest.mark.parametrize("payload", [{"strData": "x"}, {"binData": "aGk="}])
def test_simple_model_gives_text_and_bytes_back(payload: dict[str, str]) -> None:
    with function_of(hard("m", "SIMPLE_MODEL")).to_mock_server() as server:
        answer = ask(server, payload)
    assert answer.items() >= payload.items()


@pytest.mark.parametrize(("ratio", "expected"), [("1", {"a"}), ("0", {"b"}), ("1.0", {"a"})])
def test_ab_test_at_its_ends_always_chooses_the_same(ratio: str, expected: set[str]) -> None:
    graph = hard("ab", "RANDOM_ABTEST", A, B, parameters=[{"name": "ratioA", "value": ratio, "type": "FLOAT"}])
    with function_of(graph, {"a": Add(1), "b": Add(2)}).to_mock_server() as server:
        found = {frozenset(ask(server)["meta"]["requestPath"]) for _ in range(20)}
    assert found == {frozenset({"ab", *expected})}


def test_ab_test_with_a_seed_repeats_its_choices_and_keeps_its_ratio() -> None:
    parameters = [{"name": "ratioA", "value": "0.7", "type": "FLOAT"}, {"name": "seed", "value": "5", "type": "INT"}]

    def choices() -> list[int]:
        graph = hard("ab", "RANDOM_ABTEST", A, B, parameters=parameters)
        with function_of(graph, {"a": Add(1), "b": Add(2)}).to_mock_server() as server:
            return [ask(server)["meta"]["routing"]["ab"] for _ in range(300)]

    first = choices()
    assert first == choices()
    assert 60 <= sum(first) <= 120


def test_ab_test_without_ratio_takes_both() -> None:
    graph = hard("ab", "RANDOM_ABTEST", A, B)
    with function_of(graph, {"a": Add(1), "b": Add(2)}).to_mock_server() as server:
        assert {ask(server)["meta"]["routing"]["ab"] for _ in range(100)} == {0, 1}


class Gives:
    def __init__(self, value: Any) -> None:
        self.value = value
        self.class_names = ["x", "y"]

    def predict(self, X: Any, names: Any) -> Any:
        return self.value


AVERAGE = hard("avg", "AVERAGE_COMBINER", A, B)


def test_average_is_named_and_encoded_as_the_first() -> None:
    components = {"a": Gives([[1, 2]]), "b": Gives([[3, 6]])}
    with function_of(AVERAGE, components).to_mock_server() as server:
        answer = ask(server)
        assert answer["data"] == {"names": ["x", "y"], "ndarray": [[2.0, 4.0]]}
        tensor = ask(server, {"data": {"tensor": {"shape": [1, 1], "values": [1]}}})
        assert tensor["data"] == {"names": ["x", "y"], "tensor": {"shape": [1, 2], "values": [2.0, 4.0]}}


@pytest.mark.parametrize(
    ("second", "why"),
    [
        ([[3, 6, 9]], "the answer of child 1 has shape (1, 3), the first (1, 2)"),
        ([3, 6], "the answer of child 1 is no array of numbers with 2 dimensions"),
        ([["x", "y"]], "the answer of child 1 is no array of numbers with 2 dimensions"),
        ("text", "the answer of child 1 is no array but strData"),
    ],
)
def test_average_of_what_has_none_is_an_error(second: Any, why: str) -> None:
    with function_of(AVERAGE, {"a": Gives([[1, 2]]), "b": Gives(second)}).to_mock_server() as server:
        response = server.test("/api/v1.0/predictions", {"data": {"ndarray": [[1]]}}, silent=True)
    assert response.status_code == 500
    assert response.body["status"]["reason"] == "ENGINE_INVALID_COMBINER_RESPONSE"
    assert response.body["status"]["info"] == f"node 'avg': it cannot average: {why}"


def test_average_beside_other_rows() -> None:
    with function_of(AVERAGE, {"a": Add(1), "b": Add(3)}).to_mock_server() as server:
        assert rows(ask(server)) == [[3.0, 4.0]]
