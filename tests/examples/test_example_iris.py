"""The iris example: trained, in process, over HTTP, in both request forms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from copied_example import trained_copy
from served_command import Served
from sklearn.datasets import load_iris

from servegraph.runtimes.source import load_function

pytestmark = pytest.mark.slow

ROWS = [[5.1, 3.5, 1.4, 0.2], [6.0, 2.7, 4.2, 1.3], [6.5, 3.0, 5.8, 2.2]]
CLASSES = [0, 1, 2]
NAMES = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
TENSOR = {"name": "flowers", "shape": [3, 4], "datatype": "FP64", "data": [x for row in ROWS for x in row]}


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_copy("iris", tmp_path_factory.mktemp("iris"))


def test_iris_in_process_knows_its_classes(example: Path) -> None:
    with load_function(str(example)).to_mock_server() as server:
        assert server.test("/v2/models/iris/infer", {"inputs": ROWS})["outputs"] == CLASSES
        by_name = [dict(zip(NAMES, row, strict=True)) for row in ROWS]
        assert server.test("/v2/models/iris/infer_dict", {"inputs": by_name})["outputs"] == CLASSES
        explained = server.test("/v2/models/iris/explain", {"inputs": ROWS[:1]})["outputs"][0]
        assert explained["setosa"] > 0.9
        data = load_iris()
        outputs = server.test("/v2/models/iris/infer", {"inputs": data.data.tolist()})["outputs"]
        assert sum(o == t for o, t in zip(outputs, data.target.tolist(), strict=True)) > 140


def test_iris_over_http_answers_rows_and_tensors_alike(example: Path) -> None:
    with Served(example / "function.py") as served:
        status, rows = served.ask("/v2/models/iris/infer", {"inputs": ROWS})
        assert (status, rows["outputs"], rows["model_name"]) == (200, CLASSES, "iris")
        answer: dict[str, Any]
        status, answer = served.ask("/v2/models/iris/infer", {"id": "a7", "inputs": [TENSOR]})
        assert status == 200
        assert answer["id"] == "a7"
        assert answer["outputs"] == [{"name": "class", "shape": [3], "datatype": "INT64", "data": CLASSES}]
        status, metadata = served.ask("/v2/models/iris")
        assert [i["name"] for i in metadata["inputs"]] == NAMES
        assert served.ask("/v2/models/iris/ready")[0] == 200
        wrong = {**TENSOR, "shape": [2, 4]}
        assert served.ask("/v2/models/iris/infer", {"inputs": [wrong]})[0] == 422
