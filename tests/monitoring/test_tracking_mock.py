"""Tracking through a whole function: graph, model, recorder, stream."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import servegraph
from servegraph import jsoncodec
from servegraph.errors import RequestFailedError
from servegraph.monitoring.record_schema import RECORD_SCHEMA

_names = itertools.count()
PATH = "/v2/models/m1/infer"


class Double(servegraph.V2ModelServer):
    def load(self) -> None:
        self.labels = {"lbl": "x"}

    def predict(self, request: dict[str, Any]) -> list[Any]:
        if request["inputs"] == [[0]]:
            raise ValueError("zero")
        self.set_metric("rows", len(request["inputs"]))
        return [2 * row[0] if isinstance(row, list) else 0 for row in request["inputs"]]

    def explain(self, request: dict[str, Any]) -> list[str]:
        return ["because"]


class Hidden(Double):
    def logged_results(self, request: Any, response: Any, op: str) -> tuple[list[Any] | None, list[Any] | None]:
        return [["hidden"] for _ in request["inputs"]], response["outputs"]


class Damaged(Double):
    def logged_results(self, request: Any, response: Any, op: str) -> tuple[list[Any] | None, list[Any] | None]:
        raise RuntimeError("broken hook")


def function(model: type = Double, stream: str | None = None, key: str = "m1", **options: Any) -> Any:
    fn = servegraph.new_function("srv", project="shop")
    fn.add_model(key, class_name=model, model_endpoint_uid="uid-1")
    fn.set_tracking(stream or f"dummy://mock-{next(_names)}", **options)
    return fn


def events(server: Any) -> list[Any]:
    server.wait_for_completion()
    got: list[Any] = server.recorder.stream.event_list
    for record in got:
        jsonschema.validate(record, RECORD_SCHEMA)
    return got


def test_tracked_prediction_of_a_mock_has_a_whole_record() -> None:
    with function(key="m1:v2").to_mock_server() as server:
        answer = server.test("/v2/models/m1/versions/v2/infer", {"inputs": [[5, 6], [7, 8]], "id": "r1"})
        [record] = events(server)
        assert record["resp"] == answer
        assert record["when"] == answer["timestamp"]
        expected: dict[str, Any] = {
            "class": "Double",
            "model": "m1",
            "version": "v2",
            "function_uri": "shop/srv",
            "op": "infer",
        }
        expected |= {"endpoint_id": "uid-1", "sampling_percentage": 100.0, "labels": {"lbl": "x"}, "worker": 0}
        expected |= {"request": {"inputs": [[5, 6], [7, 8]], "id": "r1"}, "metrics": {"rows": 2}}
        assert expected.items() <= record.items()
        assert record["effective_sample_count"] == 2
        assert record["host"]
        assert server.recorder.stream.records[0].key == "uid-1"


def test_tracked_objects_changed_after_the_call_do_not_change_the_record() -> None:
    with function(flush_interval_s=60.0).to_mock_server() as server:
        body = {"inputs": [[5]]}
        answer = server.test(PATH, body)
        body["inputs"][0][0] = -1
        answer["outputs"].append("mine")
        [record] = events(server)
        assert (record["request"]["inputs"], record["resp"]["outputs"]) == ([[5]], [10])
        assert "id" not in body


def test_tracked_steps_after_the_model_do_not_change_the_record() -> None:
    def top(answer: dict[str, Any]) -> dict[str, Any]:
        answer["outputs"].clear()
        return answer

    fn = servegraph.new_function("srv")
    graph = fn.set_topology("flow", engine="sync")
    graph.to(class_name=Double, name="m1").to(handler=top, name="top").respond()
    fn.set_tracking(f"dummy://mock-{next(_names)}", flush_interval_s=60.0)
    with fn.to_mock_server() as server:
        assert server.test("/", {"inputs": [[5]]})["outputs"] == []
        [record] = events(server)
        assert record["resp"]["outputs"] == [10]


def test_tracked_error_and_explanation_have_records() -> None:
    with function().to_mock_server() as server:
        with pytest.raises(RequestFailedError):
            server.test(PATH, {"inputs": [[0]]}, event_id="e1")
        server.test("/v2/models/m1/explain", {"inputs": [[1]]})
        error, explanation = events(server)
        assert (error["error"], error["request"]) == ("ValueError: zero", {"inputs": [[0]], "id": "e1"})
        assert (explanation["op"], explanation["resp"]["outputs"]) == ("explain", ["because"])


def test_tracked_tensor_request_is_recorded_as_rows() -> None:
    tensor = {"name": "x", "shape": [2, 1], "datatype": "INT64", "data": [4, 5]}
    with function().to_mock_server() as server:
        server.test(PATH, {"inputs": [tensor], "id": "t1"})
        [record] = events(server)
        assert record["request"] == {"inputs": [[4], [5]], "id": "t1"}
        assert record["resp"]["outputs"] == [8, 10]


def test_tracked_answers_are_the_same_on_off_and_sampled() -> None:
    body = {"inputs": [[n] for n in range(1, 40)], "id": "r1"}
    answers = []
    for options in (
        {"enable_tracking": False},
        {},
        {"sampling_percentage": 20.0},
        {"sample": 2},
        {"batch": 2},
    ):
        with function(**options).to_mock_server() as server:
            answer = server.test(PATH, jsoncodec.dumps(body), content_type="application/json")
            answer["timestamp"] = ""
            answers.append(jsoncodec.dumps(answer))
    with function(Damaged).to_mock_server() as server:
        answer = server.test(PATH, dict(body))
        server.wait_for_completion()
        answer["timestamp"] = ""
        answers.append(jsoncodec.dumps(answer))
        assert server.recorder.stats.failed == 1
    assert len(set(answers)) == 1
    assert len(jsoncodec.loads(answers[0])["outputs"]) == 39


def test_tracked_model_may_log_other_results() -> None:
    with function(Hidden).to_mock_server() as server:
        assert server.test(PATH, {"inputs": [[5]]})["outputs"] == [10]
        [record] = events(server)
        assert (record["request"]["inputs"], record["resp"]["outputs"]) == ([["hidden"]], [10])


def test_tracked_batch_is_flushed_when_the_server_closes(tmp_path: Path) -> None:
    with function(stream=f"file://{tmp_path}/r.jsonl", batch=4).to_mock_server() as server:
        for number in range(1, 6):
            server.test(PATH, {"inputs": [[number]]})
    records = [jsoncodec.loads(line) for line in (tmp_path / "r.jsonl").read_bytes().splitlines()]
    assert [len(r["values"]) for r in records] == [4, 1]
    assert [row[5] for r in records for row in r["values"]] == [{"rows": 1}] * 5


def test_tracking_may_be_left_out_of_a_mock() -> None:
    with function().to_mock_server(track_models=False) as server:
        server.test(PATH, {"inputs": [[5]]})
        assert server.recorder is None
