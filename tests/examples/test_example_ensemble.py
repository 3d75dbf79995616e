"""The ensemble example: the vote is what its models say, and what they said is recorded."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import joblib
import pytest
from copied_example import trained_copy
from served_command import Served
from sklearn.datasets import load_wine

from servegraph.runtimes.source import load_function

pytestmark = pytest.mark.slow

WEIGHTS = {"logistic": 2, "forest": 2, "bayes": 1}


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_copy("ensemble", tmp_path_factory.mktemp("ensemble"))


def voted(example: Path, rows: list[list[float]]) -> list[int]:
    """The weighted vote, counted by hand; of equals the class that the first model named."""
    predictions = {
        name: joblib.load(example / "models" / name / "model.joblib").predict(rows).tolist() for name in WEIGHTS
    }
    votes = []
    for i in range(len(rows)):
        count: Counter[int] = Counter()
        for name, weight in WEIGHTS.items():
            count[predictions[name][i]] += weight
        votes.append(max(count, key=lambda c: count[c]))
    return votes


def test_ensemble_in_process_votes_by_weight(example: Path) -> None:
    data = load_wine()
    rows: list[list[float]] = data.data.tolist()
    with load_function(str(example)).to_mock_server() as server:
        outputs = server.test("/v2/models/infer", {"inputs": rows})["outputs"]
    assert outputs == voted(example, rows)
    assert sum(o == t for o, t in zip(outputs, data.target.tolist(), strict=True)) > 170


def test_ensemble_over_http_answers_and_records_each_prediction(example: Path) -> None:
    rows: list[list[float]] = load_wine().data[::60].tolist()
    (example / "records" / "predictions.jsonl").unlink(missing_ok=True)
    with Served(example / "function.py") as served:
        status, listing = served.ask("/v2/models")
        assert listing["weights"] == WEIGHTS
        status, answer = served.ask("/v2/models/infer", {"id": "first", "inputs": rows})
        assert (status, answer["outputs"]) == (200, voted(example, rows))
        assert served.ask("/v2/models/forest/infer", {"inputs": rows})[0] == 200
        assert served.stop() == 0
    lines = (example / "records" / "predictions.jsonl").read_text().splitlines()
    records: list[dict[str, Any]] = [json.loads(line) for line in lines]
    by_model = Counter(r["model"] for r in records)
    assert by_model == {"VotingEnsemble": 1, "logistic": 1, "bayes": 1, "forest": 2}
    of_ensemble = next(r for r in records if r["model"] == "VotingEnsemble")
    assert of_ensemble["request"]["inputs"] == rows
    assert of_ensemble["resp"]["outputs"] == voted(example, rows)
