"""The Seldon graph example: served by the command as its README says."""

from __future__ import annotations

from pathlib import Path

import pytest
from served_command import Served, run

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "seldon-graph"
PATH = "/seldon/garden/flowers/api/v1.0/predictions"
SETOSA, VIRGINICA = [51, 35, 14, 2], [65, 30, 58, 22]

pytestmark = pytest.mark.slow


def test_seldon_graph_example_is_drawn_and_checked() -> None:
    drawn = run("plot", str(EXAMPLE / "deployment.yaml"))
    assert drawn.returncode == 0, drawn.stderr
    assert "petal-alone" in drawn.stdout
    checked = run("validate", str(EXAMPLE / "deployment.yaml"))
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_seldon_graph_example_tells_flowers_apart_on_both_ways() -> None:
    with Served(EXAMPLE / "deployment.yaml", "--set", "grpc_port=off") as served:
        ways = {}
        for _ in range(40):
            status, answer = served.ask(PATH, {"data": {"ndarray": [SETOSA, VIRGINICA]}})
            assert status == 200, answer
            likely = [row.index(max(row)) for row in answer["data"]["ndarray"]]
            assert [answer["data"]["names"][i] for i in likely] == ["setosa", "virginica"]
            assert answer["meta"]["tags"] == {"unit": "cm"}
            ways[answer["meta"]["routing"]["split"]] = set(answer["meta"]["requestPath"])
        assert ways == {0: {"scale", "split", "petal-alone"}, 1: {"scale", "split", "both", "petal", "sepal"}}
        body = {"response": {"meta": {"routing": {"split": 1}}}, "reward": 1}
        assert served.ask("/api/v1.0/feedback", body)[0] == 200
        assert served.stop() == 0
        log = served.log()
    assert ("petal: reward 1.0" in log, "sepal: reward 1.0" in log) == (True, True)
