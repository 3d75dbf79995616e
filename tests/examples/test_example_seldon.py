"""The example of a Seldon component: every command of its README, against the real command."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from copied_example import trained_copy
from raw_http import Answer
from seldon_command import Microservice
from served_command import COMMAND
from shown_commands import at_ports, shown_commands
from sklearn.datasets import load_breast_cancer

pytestmark = pytest.mark.slow

CURL = shutil.which("curl")
FEATURES = ["mean radius", "mean texture", "mean smoothness", "mean concavity"]


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_copy("seldon", tmp_path_factory.mktemp("seldon"))


@pytest.fixture(scope="module")
def served(example: Path) -> Iterator[Microservice]:
    with Microservice(example, "") as service:  # its name is in .s2i/environment
        yield service


def shown(example: Path, served: Microservice, program: str, word: str = "") -> list[list[str]]:
    """The commands of the README that call a program, at the ports of the server."""
    ports = {9000: served.port, 5000: served.grpc_port, 6000: served.metrics_port}
    commands = [at_ports(c, ports) for c in shown_commands(example / "README.md")]
    return [c for c in commands if c[0] == program and (not word or word in c)]


@pytest.mark.skipif(CURL is None, reason="needs curl: apt-get install curl")
def test_commands_of_the_readme_get_the_answers_that_it_tells_of(example: Path, served: Microservice) -> None:
    answers = []
    for command in shown(example, served, "curl"):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        answers.append(done.stdout)
    prediction, feedback = json.loads(answers[0]), json.loads(answers[1])
    metrics, metadata, health = answers[2], json.loads(answers[3]), json.loads(answers[4])
    assert prediction["data"]["names"] == ["malignant", "benign"]
    assert [row[0] > 0.5 for row in prediction["data"]["ndarray"]] == [True, False]
    assert prediction["meta"]["tags"] == {"data": "wisconsin", "unsure": [False, False]}
    assert [m["key"] for m in prediction["meta"]["metrics"]] == ["tumours", "unsure_share", "predict_proba"]
    assert [m["value"] for m in feedback["meta"]["metrics"]] == [1, 0]
    assert 'known_tumours_total{answer="right",' in metrics
    assert 'known_tumours_total{answer="wrong",' in metrics
    assert metadata["inputs"][0]["schema"]["names"] == FEATURES
    assert health["jsonData"] == {"loaded": True}


def test_component_keeps_its_contract_over_rest_and_grpc(example: Path, served: Microservice) -> None:
    commands = shown(example, served, "servegraph", "seldon-test")
    assert len(commands) == 2
    for command in commands:
        done = subprocess.run(
            [*COMMAND, *command[1:]], cwd=example, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "5 requests, all good" in done.stdout + done.stderr


def body_of(answer: Answer) -> Any:
    return json.loads(answer.body)


def test_component_knows_its_tumours_and_refuses_other_rows(served: Microservice) -> None:
    data: Any = load_breast_cancer(as_frame=True)
    rows = data.data[FEATURES].to_numpy().tolist()
    answer = body_of(served.ask("/predict", {"data": {"ndarray": rows}}))
    right = [(row[1] > 0.5) == (truth == 1) for row, truth in zip(answer["data"]["ndarray"], data.target, strict=True)]
    assert sum(right) / len(right) > 0.9
    refused = served.ask("/predict", {"data": {"ndarray": [[1.0, 2.0]]}})
    assert (refused.status, body_of(refused)["status"]["reason"]) == (400, "MICROSERVICE_BAD_DATA")
    assert "mean concavity" in body_of(refused)["status"]["info"]


def test_parameters_of_the_readme_reach_the_component(example: Path, served: Microservice) -> None:
    (command,) = shown(example, served, "servegraph", "--parameters")
    rows = [[13.54, 14.36, 0.0978, 0.0666]]  # benign, with a probability of 0.94
    with Microservice(example, "", *command[2:]) as strict:
        answer = body_of(strict.ask("/predict", {"data": {"ndarray": rows}}))
        assert answer["meta"]["tags"]["unsure"] == [True]
