"""The commands with a SeldonDeployment as their target."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from served_command import Served, run

HEAD = """apiVersion: machinelearning.seldon.io/v1
kind: SeldonDeployment
metadata: {name: flowers, namespace: garden}
spec:
  predictors:
"""


def deployment(folder: Path, graph: str) -> Path:
    """The file of a deployment with one predictor."""
    file = folder / "deployment.yaml"
    file.write_text(f"{HEAD}  - {{name: main, graph: {graph}}}\n")
    return file


# -- serve -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_serve_with_leave_for_pickles_loads_them_in_each_worker(tmp_path: Path) -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    import joblib

    model = linear.LinearRegression().fit([[0.0], [1.0]], [0.0, 2.0])
    (tmp_path / "model").mkdir()
    joblib.dump(model, tmp_path / "model" / "model.joblib")
    parameters = "parameters: [{name: method, value: predict, type: STRING}]"
    file = deployment(tmp_path, f"{{name: m, implementation: SKLEARN_SERVER, modelUri: model, {parameters}}}")
    refused = run("serve", str(file), "--http-port", "0", "--no-allow-pickle")
    assert refused.returncode != 0
    assert "--allow-pickle or SERVEGRAPH_ALLOW_PICKLE=1" in refused.stderr
    with Served(file, "--allow-pickle", "--workers", "2") as served:
        assert re.search(r"ready: 2 worker", served.log())
        status, answer = served.ask("/api/v1.0/predictions", {"data": {"ndarray": [[3.0]]}})
    assert (status, answer["data"]["ndarray"]) == (200, pytest.approx([6.0]))


@pytest.mark.slow
def test_serve_offers_a_prediction_that_works_and_shows_the_outer_path(tmp_path: Path) -> None:
    with Served(deployment(tmp_path, "{name: m, implementation: SIMPLE_MODEL}")) as served:
        log = served.log()
        assert re.search(r"predictor\s+main: m\n", log)
        curl = re.search(r"try\s+(curl .*)", log)
        also = re.search(r"also at\s+(\S+)", log)
        assert curl is not None
        assert also is not None
        assert also.group(1) == f"http://127.0.0.1:{served.port}/seldon/garden/flowers/api/v1.0/predictions"
        line = shlex.split(curl.group(1))
        for place in (line[2], also.group(1)):
            answer = subprocess.run([*line[:2], place, *line[3:]], capture_output=True, check=True)
            assert json.loads(answer.stdout)["meta"]["requestPath"] == {"m": "SIMPLE_MODEL"}
        assert "/seldon/garden/flowers/api/v1.0/predictions" in served.ask("/openapi.json")[1]["paths"]
        assert "/seldon/garden/flowers/api/v1.0/predictions" in served.ask("/docs")[1]
