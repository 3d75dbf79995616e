"""``servegraph serve`` as a process: what it says, what it answers, how it fails."""

from __future__ import annotations

import json
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from served_command import Served, run

pytestmark = pytest.mark.slow

NUMBERS = """
import servegraph

class Times(servegraph.V2ModelServer):
    example_inputs = [1, 2, 3]
    def load(self):
        self.factor = self.get_param("factor", 2)
    def predict(self, request):
        return [self.factor * x for x in request["inputs"]]

fn = servegraph.new_function("numbers")
fn.add_model("double", class_name=Times)
fn.add_model("triple", class_name=Times, factor=3)
"""


DEPLOYMENT = """
apiVersion: machinelearning.seldon.io/v1
kind: SeldonDeployment
metadata: {name: simple}
spec:
  predictors:
    - {name: main, graph: {name: model, implementation: SIMPLE_MODEL}}
"""


@pytest.fixture
def numbers(tmp_path: Path) -> Path:
    file = tmp_path / "numbers_function.py"
    file.write_text(NUMBERS)
    return file


def test_banner_names_what_is_served_and_its_curl_line_works(numbers: Path) -> None:
    with Served(numbers) as served:
        log = served.log()
        assert "serves default/numbers" in log
        assert re.search(r"model\s+double: Times, loaded in \d", log)
        assert re.search(r"model\s+triple: Times", log)
        assert f"URL    http://127.0.0.1:{served.port}" in log
        docs = re.search(r"docs\s+(\S+)", log)
        assert docs is not None
        assert served.ask(docs.group(1).partition(str(served.port))[2])[0] == 200
        curl = re.search(r"try\s+(curl .*)", log)
        assert curl is not None
        answer = subprocess.run(shlex.split(curl.group(1)), capture_output=True, check=True)
        assert json.loads(answer.stdout)["outputs"] == [2, 4, 6]
        assert served.stop() == 0


def test_a_module_a_folder_and_a_spec_are_served_alike(numbers: Path, tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "function.py").write_text(NUMBERS)
    spec = {
        "kind": "router",
        "routes": {"double": {"kind": "task", "class_name": "numbers_function.Times", "class_args": {}}},
    }
    (tmp_path / "graph.json").write_text(json.dumps(spec))
    for target in ("numbers_function:fn", "project", "graph.json"):
        with Served(target, cwd=tmp_path) as served:
            assert served.ask("/v2/models/double/infer", {"inputs": [4]})[1]["outputs"] == [8], target


def test_reload_serves_the_changed_code(numbers: Path) -> None:
    with Served(numbers, "--reload") as served:
        assert served.ask("/v2/models/double/infer", {"inputs": [4]})[1]["outputs"] == [8]
        numbers.write_text(NUMBERS.replace('"factor", 2', '"factor", 5'))
        served.wait_for(r"ready: 1 worker", times=2)
        assert served.ask("/v2/models/double/infer", {"inputs": [4]})[1]["outputs"] == [20]
        assert served.log().count("curl -s") == 1, "the banner is shown once"
        numbers.write_text("this is no Python")
        served.wait_for("SyntaxError.*waiting for a change of the files")
        numbers.write_text(NUMBERS.replace('"factor", 2', '"factor", 7'))
        served.wait_for(r"ready: 1 worker", times=3)
        assert served.ask("/v2/models/double/infer", {"inputs": [4]})[1]["outputs"] == [28]


def test_reload_of_a_module_watches_its_folder(numbers: Path, tmp_path: Path) -> None:
    with Served("numbers_function:fn", "--reload", cwd=tmp_path) as served:
        numbers.write_text(NUMBERS.replace('"factor", 2', '"factor", 5'))
        served.wait_for(r"ready: 1 worker", times=2)
        assert served.ask("/v2/models/double/infer", {"inputs": [4]})[1]["outputs"] == [20]


def test_settings_are_taken_from_flags(numbers: Path) -> None:
    with Served(numbers, "--workers", "2", "--set", "limits.body_json_bytes=1KiB") as served:
        assert "with 2 worker(s)" in served.log()
        assert served.log().count("serves default/numbers") == 1
        assert served.ask("/v2/models/double/infer", {"inputs": [1] * 2000})[0] == 413


def test_metrics_have_a_port_of_their_own_where_it_is_asked_for(numbers: Path) -> None:
    with Served(numbers, "--metrics-port", "0", "--workers", "2") as served:
        match = re.search(r"listening on 127\.0\.0\.1:(\d+) \(metrics\)", served.log())
        assert match is not None
        assert served.ask("/v2/models/double/infer", {"inputs": [4]})[0] == 200
        served.port = int(match.group(1))
        status, text = served.ask("/metrics")
        assert (status, "servegraph_request_duration_seconds" in text) == (200, True)
        assert served.ask("/v2/models/double") == (404, "this port has /metrics and nothing else\n")
        assert served.stop() == 0


def test_grpc_port_of_a_deployment_answers_and_the_flag_is_refused_elsewhere(numbers: Path, tmp_path: Path) -> None:
    grpc = pytest.importorskip("grpc")
    file = tmp_path / "deployment.yaml"
    file.write_text(DEPLOYMENT)
    with Served(file, "--grpc-port", "0") as served:
        match = re.search(r"listening on (127\.0\.0\.1:\d+) \(grpc\)", served.log())
        assert match is not None
        with grpc.insecure_channel(match.group(1)) as channel:
            serving = channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=20)
        assert serving == b"\x08\x01"
        assert served.stop() == 0
    done = run("serve", str(numbers), "--grpc-port", "0")
    assert (done.returncode, done.stderr) == (
        1,
        "Error: --grpc-port: numbers offers no gRPC service; SeldonDeployments do\n",
    )


def test_a_port_that_is_taken_is_told_with_the_way_out(numbers: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = run("serve", str(numbers), "--http-port", str(port))
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}: another program listens there" in done.stderr
    assert "--http-port" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_model_that_fails_to_load_is_told_with_the_place_in_the_users_code(numbers: Path) -> None:
    numbers.write_text(NUMBERS.replace("self.factor = ", "self.factor = 1 / 0 or "))
    done = run("serve", str(numbers), "--http-port", "0")
    assert done.returncode == 1
    assert "failed to load model 'double': division by zero\n" in done.stderr
    assert "cannot be started: failed to load model 'double': ZeroDivisionError: division by zero\n" in done.stderr
    assert "ZeroDivisionError: division by zero" in done.stderr
    assert 'numbers_function.py", line 7, in load' in done.stderr


def test_a_file_that_fails_shows_its_own_traceback_and_nothing_of_ours(numbers: Path) -> None:
    numbers.write_text("import servegraph\nwrong = undefined_name\n")
    done = run("serve", str(numbers))
    assert done.returncode == 1
    assert 'numbers_function.py", line 2' in done.stderr
    assert "NameError: name 'undefined_name' is not defined" in done.stderr
    assert "importlib" not in done.stderr
    assert "servegraph/runtimes" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.py"], "there is no file 'nothing.py'"),
        (["{file}:other"], "has no function 'other'"),
        (["{file}", "--set", "limits.json_depht=3"], "did you mean 'json_depth'?"),
        (["{file}", "--set", "workers"], "--set takes NAME=VALUE, not 'workers'"),
        (["{file}", "--workers", "0"], "workers"),
        (["{file}", "--settings", "gone.yaml"], "gone.yaml"),
    ],
)
def test_a_wrong_command_line_is_told_in_one_message(numbers: Path, arguments: list[str], message: str) -> None:
    done = run("serve", *(a.format(file=numbers) for a in arguments))
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_starts_without_the_packages_that_only_servers_need() -> None:
    code = "import sys, servegraph.cli.main; print(sorted({'uvicorn', 'numpy', 'yaml'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
