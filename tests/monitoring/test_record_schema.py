"""The schema of tracking records, against what a batch writes when it is done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import servegraph
from servegraph import jsoncodec
from servegraph.monitoring.record_schema import BATCH_COMPLETE, PREDICTION, RECORD_SCHEMA


class Sum(servegraph.V2ModelServer):
    def load(self) -> None:
        pass

    def predict(self, request: Any) -> Any:
        return [sum(row) for row in request["inputs"]]


def records_of_a_batch(folder: Path, build: Callable[[servegraph.ServingFunction], Any], rows: list[Any]) -> list[Any]:
    path = folder / "records.jsonl"
    fn = servegraph.new_function("sums", project="shop")
    build(fn)
    fn.set_tracking(f"file://{path}")
    fn.to_job().run(rows, progress=False)
    return [jsoncodec.loads(line) for line in path.read_bytes().splitlines()]


@pytest.fixture
def complete(tmp_path: Path) -> dict[str, Any]:
    def build(fn: servegraph.ServingFunction) -> None:
        fn.add_model("sum:v1", class_name=Sum, model_endpoint_uid="uid-1")

    prediction, complete = records_of_a_batch(tmp_path, build, [{"inputs": [[1, 2]]}])
    jsonschema.validate(prediction, PREDICTION)
    jsonschema.validate(complete, BATCH_COMPLETE)
    assert isinstance(complete, dict)
    return complete


def test_schema_takes_what_a_batch_with_a_model_writes(complete: dict[str, Any]) -> None:
    jsonschema.validate(complete, RECORD_SCHEMA)
    assert set(complete) == set(BATCH_COMPLETE["properties"])


def test_schema_takes_what_a_batch_without_a_model_writes(tmp_path: Path) -> None:
    def build(fn: servegraph.ServingFunction) -> None:
        fn.set_topology("flow").to(name="same", handler=lambda body: body).respond()

    (complete,) = records_of_a_batch(tmp_path, build, [{"n": 1}])
    jsonschema.validate(complete, RECORD_SCHEMA)
    assert "model" not in complete


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"kind": "batch"}, id="another kind"),
        pytest.param({"first_timestamp": "2024-01-01T00:00:00Z"}, id="a time in another form"),
        pytest.param({"rows": 3}, id="a field that is not described"),
        pytest.param({"version": None}, id="a version that is no text"),
    ],
)
def test_schema_refuses_an_end_of_a_batch_in_another_form(complete: dict[str, Any], change: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**complete, **change}, RECORD_SCHEMA)


@pytest.mark.parametrize("field", ["kind", "project", "first_timestamp", "endpoint_id", "version"])
def test_schema_refuses_an_end_of_a_batch_without_a_field(complete: dict[str, Any], field: str) -> None:
    del complete[field]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(complete, RECORD_SCHEMA)
