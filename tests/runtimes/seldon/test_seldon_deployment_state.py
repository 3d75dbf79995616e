"""Deployments whose nodes keep what they learn: where they say so, and over the end of the real command."""

from __future__ import annotations

import http.client
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from own_redis import OwnRedis
from served_command import Served, run

from servegraph.errors import SpecError
from servegraph.runtimes.function_spec import function_from_dict, function_to_dict
from servegraph.runtimes.seldon.deployment import function_from_text
from servegraph.serving.seldon.state_store import MemoryStore

PREDICTIONS = "/api/v1.0/predictions"
ROWS = {"data": {"ndarray": [[1.0, 2.0], [3.0, 4.0]]}}
STATE = "servegraph.io/state-store"


class Seen:
    """Counts what it has been asked, and answers with the count."""

    def __init__(self) -> None:
        self.n = 0

    def predict(self, X: Any, names: Any) -> Any:
        self.n += 1
        return [[self.n]]

    transform_input = predict

    def get_state(self) -> dict[str, Any]:
        return {"n": self.n}

    def set_state(self, state: dict[str, Any]) -> None:
        self.n = state["n"]


def deployment(
    *,
    annotations: Any = None,
    predictor: Any = None,
    pod: Any = None,
    env: Any = None,
    second: Any = None,
) -> str:
    """A deployment with the nodes ``t`` and ``m``, the latter in a pod of its own; as JSON, which is YAML too."""
    variables = [{"name": name, "value": value} for name, value in (env or {}).items()]
    spec = {"containers": [{"name": "m", "image": "m:1", "env": variables}]}
    graph = {"name": "t", "type": "TRANSFORMER", "children": [{"name": "m"}]}
    main = {
        "name": "main",
        "annotations": predictor or {},
        "componentSpecs": [{"metadata": {"annotations": pod or {}}, "spec": spec}],
        "graph": graph,
    }
    return json.dumps({
        "apiVersion": "machinelearning.seldon.io/v1",
        "kind": "SeldonDeployment",
        "metadata": {"name": "d", "annotations": annotations or {}},
        "spec": {"predictors": [main] if second is None else [{**main, "traffic": 100}, second]},
    })  # fmt: skip


def places(text: str) -> tuple[str, str]:
    """What the two nodes are told of where their states are."""
    root = function_from_text(text, components={"t": Seen, "m": Seen}).graph["main"]["t"]
    found = [step.class_args["unit"].get("state_store", "") for step in (root, root["m"])]
    return found[0], found[1]


@pytest.fixture
def redis(tmp_path: Path, free_port: int) -> Iterator[OwnRedis]:
    folder = tmp_path / "redis"
    folder.mkdir()
    server = OwnRedis(folder, free_port)
    server.start()
    yield server
    server.kill()


# -- what a deployment says --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ({}, ("", "")),
        ({"annotations": {STATE: "memory://all"}}, ("memory://all", "memory://all")),
        ({"annotations": {STATE: "on"}, "predictor": {STATE: "off"}}, ("off", "off")),
        ({"predictor": {STATE: "on"}, "pod": {STATE: "memory://pod"}}, ("on", "memory://pod")),
        ({"predictor": {STATE: "on", f"{STATE}.m": "memory://node"}}, ("on", "memory://node")),
        ({"pod": {STATE: "on"}, "predictor": {f"{STATE}.m": "memory://node"}}, ("", "memory://node")),
        ({"pod": {f"{STATE}.m": "memory://own"}, "predictor": {f"{STATE}.m": "on"}}, ("", "memory://own")),
        ({"env": {"PERSISTENCE": "1"}}, ("", "on")),
        ({"env": {"PERSISTENCE": "0"}, "annotations": {}}, ("", "off")),
        ({"env": {"PERSISTENCE": " "}}, ("", "")),
        ({"env": {"PERSISTENCE": "1", "REDIS_SERVICE_HOST": "r"}}, ("", "redis://r:6379")),
        ({"env": {"PERSISTENCE": "1", "REDIS_SERVICE_HOST": "r", "REDIS_SERVICE_PORT": "7"}}, ("", "redis://r:7")),
        ({"env": {"PERSISTENCE": "0"}, "annotations": {STATE: "memory://all"}}, ("memory://all", "memory://all")),
        ({"annotations": {STATE: True}}, ("on", "on")),  # YAML's on
        ({"annotations": {STATE: True, f"{STATE}.m": False}}, ("on", "off")),
    ],
)
def test_nearest_place_counts(said: dict[str, Any], wanted: tuple[str, str]) -> None:
    assert places(deployment(**said)) == wanted


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (
            {"predictor": {f"{STATE}.n": "on"}},
            r"spec\.predictors\[0\]: annotation servegraph\.io/state-store\.n: there is no node 'n'; .*m",
        ),
        ({"annotations": {f"{STATE}.n": "on"}}, "there is no node 'n'"),
        ({"pod": {f"{STATE}.n": "on"}}, "there is no node 'n'"),
        (
            {"predictor": {f"{STATE}.m": "rediz://h"}},
            r"graph\.children\[0\]: annotation servegraph\.io/state-store of node 'm': 'rediz://h' is no address",
        ),
        ({"pod": {STATE: "6379"}}, "of node 'm': '6379' is no address of a state store"),
        (
            {"env": {"PERSISTENCE": "yes"}},
            "container 'm' of node 'm': the environment variable PERSISTENCE must be a whole number, not 'yes'",
        ),
        (
            {"env": {"PERSISTENCE": "1", "REDIS_SERVICE_HOST": "h", "REDIS_SERVICE_PORT": "tcp://h:1"}},
            "REDIS_SERVICE_PORT must be a whole number",
        ),
    ],
)
def test_what_is_no_place_and_no_node_is_told_with_its_path(said: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        places(deployment(**said))


def test_annotation_of_the_deployment_may_name_a_node_of_any_predictor() -> None:
    second = {"name": "second", "graph": {"name": "other", "implementation": "SIMPLE_MODEL"}}
    said = {f"{STATE}.m": "on", f"{STATE}.other": "on"}
    assert places(deployment(annotations=said, second=second)) == ("", "on")
    with pytest.raises(SpecError, match=r"predictors\[0\]: annotation .*: there is no node 'other'"):
        places(deployment(predictor={f"{STATE}.other": "on"}, second=second))


def test_nodes_that_run_elsewhere_or_need_no_code_keep_nothing_here() -> None:
    text = deployment(annotations={STATE: "on"}).replace(
        '"name": "t", "type"', '"name": "t", "implementation": "SIMPLE_ROUTER", "type"'
    )
    root = function_from_text(text, components={"m": "http://127.0.0.1:1"}).graph["main"]["t"]
    for step in (root, root["m"]):
        assert "state_store" not in step.class_args["unit"]


# -- in a server -------------------------------------------------------------------------------------------------------


def ask_twice(text: str, **settings: Any) -> list[Any]:
    """What a server of the deployment answers to two requests; it keeps what it has learnt when it is closed."""
    function = function_from_text(text, components={"t": Seen, "m": Seen})
    with function.serve(http_port=0, grpc_port="off", block=False, **settings) as running:
        connection = http.client.HTTPConnection("127.0.0.1", int(running.url.rpartition(":")[2]), timeout=20)
        answers = []
        for _ in range(2):
            connection.request("POST", PREDICTIONS, json.dumps(ROWS), {"content-type": "application/json"})
            answers.append(json.loads(connection.getresponse().read())["data"]["ndarray"][0][0])
        connection.close()
    return answers


@pytest.mark.parametrize("scheme", ["memory", "file", "redis"])
def test_nodes_go_on_from_what_they_have_learnt(scheme: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    place = {"memory": f"memory://{request.node.name}", "file": f"file://{tmp_path}/states"}.get(scheme, "")
    place = place or request.getfixturevalue("redis").uri
    text = deployment(annotations={STATE: place})
    assert ask_twice(text) == [1, 2]
    assert ask_twice(text) == [3, 4]
    assert ask_twice(deployment(annotations={STATE: place, f"{STATE}.m": "off"})) == [1, 2]


def test_setting_of_the_server_goes_over_the_address_and_off_of_the_deployment_stays(
    request: pytest.FixtureRequest,
) -> None:
    place = f"memory://{request.node.name}"
    said = deployment(annotations={STATE: "redis://out-of-reach", f"{STATE}.t": "off"})
    assert ask_twice(said, state_store=place) == [1, 2]
    assert ask_twice(deployment(), state_store=place) == [3, 4]
    assert ask_twice(said, state_store="off") == [1, 2]
    kept = MemoryStore.of(place)
    assert kept.read("persistence_d_main_m:state") is not None
    assert json.loads(kept.read("persistence_d_main_t:state") or b"")["state"] == {"n": 2}  # of the second run alone


def test_function_of_a_deployment_keeps_its_places_when_it_is_written(request: pytest.FixtureRequest) -> None:
    function = function_from_text(
        deployment(annotations={STATE: "memory://written"}),
        components={"t": f"{__name__}:Seen", "m": f"{__name__}:Seen"},
    )
    again = function_from_dict(function_to_dict(function))
    assert again.graph["main"]["t"]["m"].class_args["unit"]["state_store"] == "memory://written"


# -- over the end of the command ---------------------------------------------------------------------------------------

BANDIT = """
apiVersion: machinelearning.seldon.io/v1
kind: SeldonDeployment
metadata: {name: ab, namespace: ns}
spec:
  predictors:
  - name: main
    annotations:
      servegraph.io/class.eg: servegraph.serving.seldon.bandits:EpsilonGreedy
      ANNOTATION: "PLACE"
    graph:
      name: eg
      type: ROUTER
      parameters:
      - {name: n_branches, value: "2", type: INT}
      - {name: epsilon, value: "0.0", type: FLOAT}
      - {name: best_branch, value: "0", type: INT}
      - {name: push_frequency, value: "1", type: FLOAT}
      children:
      - {name: a, implementation: SIMPLE_MODEL}
      - {name: b, implementation: SIMPLE_MODEL}
"""
WORKERS = ("--workers", "2", "--set", "grpc_port=off")


def write(folder: Path, place: str, annotation: str = f"{STATE}.eg") -> Path:
    file = folder / "deployment.yaml"
    file.write_text(BANDIT.replace("ANNOTATION", annotation).replace("PLACE", place))
    return file


def teach(served: Served, branch: int, reward: float, times: int) -> dict[str, float]:
    """Tell the bandit how a branch was; what it says of the tries of each branch after the last feedback."""
    answer: Any = None
    for _ in range(times):
        body = {"request": ROWS, "response": {"meta": {"routing": {"eg": branch}}}, "reward": reward}
        status, answer = served.ask("/api/v1.0/feedback", body)
        assert status == 200, answer
    metrics = [m for m in answer["meta"]["metrics"] if m["key"] == "bandit_branch_tries"]
    return {m["tags"]["branch"]: m["value"] for m in metrics}


def chosen(served: Served, times: int = 20) -> set[int]:
    """The branches that requests on connections of their own, and so of both workers, take."""
    found = set()
    for _ in range(times):
        status, answer = served.ask(PREDICTIONS, ROWS)
        assert status == 200, answer
        found.add(answer["meta"]["routing"]["eg"])
    return found


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["redis", "file"])
def test_bandit_of_two_workers_knows_what_it_learnt_before_it_was_stopped(
    scheme: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    place = f"file://{tmp_path}/states" if scheme == "file" else request.getfixturevalue("redis").uri
    file = write(tmp_path, place)
    with Served(file, *WORKERS) as served:
        assert chosen(served) == {0}
        teach(served, 0, 0.0, 10)
        teach(served, 1, 1.0, 10)
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(30) == 0
    with Served(file, *WORKERS) as served:
        assert chosen(served) == {1}
        assert teach(served, 1, 1.0, 1) == {"0": 20.0, "1": 22.0}  # each feedback was about two rows
        assert served.stop() == 0


@pytest.mark.slow
def test_redis_that_is_dead_from_the_start_fails_no_request_of_a_deployment(redis: OwnRedis, tmp_path: Path) -> None:
    redis.kill()
    with Served(write(tmp_path, redis.uri), *WORKERS) as served:
        served.wait_for("cannot restore it, will try again", 2)
        assert chosen(served, 5) == {0}
        teach(served, 1, 1.0, 5)
        redis.start()
        served.wait_for("saved again after", 2)
        deadline = time.monotonic() + 60
        while chosen(served, 5) != {1}:  # until the other worker knows as well
            assert time.monotonic() < deadline
        teach(served, 1, 1.0, 5)
        redis.kill()
        served.wait_for("cannot save it, will try again", 2)
        teach(served, 1, 1.0, 5)
        assert chosen(served, 5) == {1}
        redis.start()
        assert served.stop() == 0
    with Served(write(tmp_path, redis.uri), *WORKERS) as served:
        assert teach(served, 1, 1.0, 1)["1"] == 32.0
        assert served.stop() == 0


@pytest.mark.slow
def test_command_says_where_and_a_wrong_place_ends_it_with_a_message(tmp_path: Path) -> None:
    file = write(tmp_path, "off", f"{STATE}.nobody")
    ended = run("serve", str(file), *WORKERS, "--http-port", "0")
    assert ended.returncode != 0
    assert "annotation servegraph.io/state-store.nobody: there is no node 'nobody'" in ended.stderr
    file = write(tmp_path, "on", "some.other/annotation")
    ended = run("serve", str(file), *WORKERS, "--http-port", "0", "--state-store", "red://x")
    assert ended.returncode != 0
    assert "state of persistence_ab_main_eg: 'red://x' is no address of a state store" in ended.stderr
    place = f"file://{tmp_path}/states"
    with Served(file, *WORKERS, "--state-store", place) as served:
        teach(served, 1, 1.0, 3)
        assert served.stop() == 0
    with Served(file, *WORKERS, "--set", f"state_store={place}") as served:
        assert chosen(served, 5) == {1}
        assert served.stop() == 0
