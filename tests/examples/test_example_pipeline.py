"""The pipeline example: every branch of it, in process and over HTTP."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import joblib
import pytest
from copied_example import trained_copy
from served_command import Served

from servegraph.errors import RequestFailedError
from servegraph.runtimes.source import load_function

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_copy("pipeline", tmp_path_factory.mktemp("pipeline"))


def expected(example: Path, patient: int, model: str) -> tuple[float, float]:
    """Progression and percentile, computed from the files."""
    with (example / "models" / "patients.csv").open() as file:
        rows = {int(r["patient"]): [float(v) for k, v in r.items() if k != "patient"] for r in csv.DictReader(file)}
    progression = float(joblib.load(example / "models" / model / "model.joblib").predict([rows[patient]])[0])
    known = list(map(float, (example / "models" / "progressions.csv").read_text().split()[1:]))
    return round(progression, 1), round(100 * sum(k < progression for k in known) / len(known), 1)


def check(example: Path, answer: dict[str, Any], patient: int, model: str) -> str:
    """Compare an answer with what the files say; its advice."""
    result = answer["result"]
    assert (result["patient"], result["model"]) == (patient, model)
    assert (result["progression"], result["percentile"]) == expected(example, patient, model)
    low, high = result["interval"]
    assert low < result["progression"] < high
    advice: str = result["advice"]
    assert ("visit" in advice) == (result["percentile"] >= 75)
    return advice


def test_pipeline_in_process_takes_both_ways_of_its_choice(example: Path) -> None:
    with load_function(str(example)).to_mock_server() as server:
        advice = {
            check(example, server.test("/", {"patient": patient, "model": model}), patient, model)
            for patient in range(40)
            for model in ("linear", "boosted")
        }
        assert len(advice) == 2
        with pytest.raises(RequestFailedError) as failure:
            server.test("/", {"patient": 99_999})
    assert failure.value.status == 404
    assert failure.value.body == {"problem": "there is no patient 99999", "from_step": "models"}


def test_pipeline_over_http_answers_and_refuses(example: Path) -> None:
    with Served(example / "function.py") as served:
        status, answer = served.ask("/", {"patient": 17, "model": "boosted"})
        assert status == 200
        check(example, answer, 17, "boosted")
        status, answer = served.ask("/", {"patient": 3})
        check(example, answer, 3, "linear")
        assert served.ask("/", {"patient": "nobody"}) == (
            404,
            {"problem": "there is no patient 'nobody'", "from_step": "models"},
        )
        assert served.ask("/", {})[0] == 422
        assert served.ask("/", {"patient": 17, "model": "other"})[0] == 404
        assert served.stop() == 0
