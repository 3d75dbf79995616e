"""``servegraph microservice`` and ``seldon-core-microservice``: what they end with, and what they say."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner
from seldon_command import Microservice, free_ports

from servegraph.cli import microservice as module
from servegraph.cli.main import main
from servegraph.errors import SettingsError
from servegraph.runtimes.seldon.command import MicroserviceCommand
from servegraph.serving.seldon.proto import prediction_pb2 as pb
from servegraph.serving.seldon.proto import prediction_pb2_grpc

CONSOLE_SCRIPT = str(Path(sys.executable).with_name("seldon-core-microservice"))
COMPONENTS = """
import json
import logging
import os


class Components:
    def __init__(self, greeting="hello", times=1):
        self.told = f"{greeting} {times} {type(times).__name__}"

    def predict(self, X, names, meta=None):
        logging.getLogger(__name__).debug("asked for %s", X)
        return self.told


class Unmade:
    def __init__(self):
        raise RuntimeError("there is no GPU")


class Unloaded:
    def load(self):
        self.weights.restore()
"""


# -- how words become options ------------------------------------------------------------------------------------------


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[MicroserviceCommand]:
    """What would be served."""
    found: list[MicroserviceCommand] = []

    def serve(command: MicroserviceCommand) -> int:
        found.append(command)
        return 0

    monkeypatch.setattr(module, "serve_component", serve)
    return found


def invoke(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["microservice", *words])
    return result.exit_code, result.output


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["--service-type", "ROUTER"], "service_type", "ROUTER"),
        (["--persistence"], "persistence", 1),
        (["--persistence", "0"], "persistence", 0),
        (["--persistence=1"], "persistence", 1),
        (["--parameters", "[]"], "parameters", "[]"),
        (["--log-level", "DEBUG"], "log_level", "DEBUG"),
        (["--debug"], "debug", "true"),
        (["--debug", "False"], "debug", "False"),
        (["--tracing"], "tracing", 1),
        (["--tracing", "0"], "tracing", 0),
        (["--workers", "2"], "workers", 2),
        (["--threads", "8"], "threads", 8),
        (["--max-requests", "100"], "max_requests", 100),
        (["--max-requests-jitter", "10"], "max_requests_jitter", 10),
        (["--keepalive", "5"], "keepalive", 5),
        (["--single-threaded", "1"], "single_threaded", 1),
        (["--http-port", "9001"], "http_port", 9001),
        (["--grpc-port", "5001"], "grpc_port", 5001),
        (["--metrics-port", "6001"], "metrics_port", 6001),
        (["--pidfile", "pid"], "pidfile", "pid"),
        (["--access-log"], "access_log", "true"),
        (["--access-log", "x"], "access_log", "x"),
        (["--grpc-threads", "4"], "grpc_threads", 4),
        (["--grpc-workers", "0"], "grpc_workers", 0),
        (["--host", "::1"], "host", "::1"),
        (["--allow-pickle"], "allow_pickle", True),
        (["--no-allow-pickle"], "allow_pickle", False),
        (["--state-store", "file:///x"], "state_store", "file:///x"),
        (["--set", "a=1", "--set", "b=2"], "assignments", ("a=1", "b=2")),
    ],
)
def test_option_is_handed_on_with_its_value_before_and_behind_the_name(
    taken: list[MicroserviceCommand], words: list[str], name: str, value: Any
) -> None:
    assert invoke("Model", *words)[0] == 0
    assert invoke("Model", *words, "--service-type", "ROUTER")[0] == 0
    if words in (["--persistence"], ["--debug"], ["--tracing"], ["--access-log"]):
        words = [*words, str(value)]  # a bare one would take the name for its value
    assert invoke(*words, "Model")[0] == 0
    assert [(c.interface_name, c.api, c.options[name]) for c in taken] == [("Model", (), value)] * 3
    given = {key for key, found in taken[0].options.items() if found not in (None, ())}
    assert given == {name, "host"}


def test_option_that_is_not_given_is_told_apart_from_every_value(taken: list[MicroserviceCommand]) -> None:
    assert invoke("Model")[0] == 0
    assert {name for name, value in taken[0].options.items() if value is not None} == {"host", "assignments"}
    assert taken[0].options["host"] == "0.0.0.0"


@pytest.mark.parametrize(
    ("words", "name", "api"),
    [
        ("a.b.Model REST --service-type MODEL --persistence 0", "a.b.Model", ("REST",)),
        ("Model GRPC --service-type MODEL --access-log", "Model", ("GRPC",)),
        ("--service-type MODEL Model", "Model", ()),
        ("--service-type MODEL", "", ()),
    ],
)
def test_words_are_the_name_and_the_interface(
    taken: list[MicroserviceCommand], words: str, name: str, api: tuple[str, ...]
) -> None:
    assert invoke(*words.split())[0] == 0
    assert (taken[0].interface_name, taken[0].api) == (name, api)


# -- what is wrong -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "unknown"),
    [
        ("Model --bogus", "--bogus"),
        ("Model --bogus 3 -x --other=4", "--bogus -x --other=4"),
        ("--bogus Model", "--bogus"),
        ("Model REST --bogus", "--bogus"),
        ("Model --seervice-type MODEL", "--seervice-type"),
    ],
)
def test_unknown_options_are_all_named_and_end_with_255(
    taken: list[MicroserviceCommand], words: str, unknown: str
) -> None:
    code, output = invoke(*words.split())
    assert (code, taken) == (255, [])
    assert f"unknown arguments: {unknown};" in output


@pytest.mark.parametrize("words", ["Model Other", "Model REST GRPC", "Model FBS"])
def test_words_too_many_end_with_255(words: str) -> None:
    code, output = invoke(*words.split())
    assert code == 255
    assert f"unexpected '{words.partition(' ')[2]}'" in output


@pytest.mark.parametrize(
    "words",
    [
        "--service-type model", "--workers many", "--threads 1.5", "--http-port http", "--persistence yes",
        "--tracing x", "--single-threaded",
        "--grpc-workers x", "--keepalive 2s", "--max-requests -", "--pidfile .", "--parameters",
    ],
)  # fmt: skip
def test_value_that_an_option_cannot_have_ends_with_2_and_names_the_option(
    taken: list[MicroserviceCommand], words: str
) -> None:
    code, output = invoke("Model", *words.split())
    assert (code, taken) == (2, [])
    assert words.split()[0] in output


def test_setting_that_cannot_be_ends_with_1_and_its_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(command: MicroserviceCommand) -> int:
        raise SettingsError("there is no such thing")

    monkeypatch.setattr(module, "serve_component", fail)
    assert invoke("Model") == (1, "Error: there is no such thing\n")


@pytest.mark.parametrize(
    ("words", "variables", "message"),
    [
        ("--http-port 99999", {}, "http_port: 99999 is out of range"),
        ("--log-level trace", {}, "log level 'trace': valid: CRITICAL, DEBUG"),
        ("--max-requests -5", {}, "max_requests: -5 is out of range"),
        ("--parameters xx", {}, "--parameters is no JSON"),
        ('--parameters [{"name":"a","value":"x","type":"INT"}]', {}, "--parameters: Bad model parameter: a is 'x'"),
        ("--set nothing=1", {}, "there is no setting 'nothing'"),
        ("", {"GUNICORN_WORKERS": "many"}, "GUNICORN_WORKERS must be a whole number"),
        ("", {"PREDICTIVE_UNIT_PARAMETERS": '[{"name":"a","type":"X"}]'}, "PREDICTIVE_UNIT_PARAMETERS: Bad model"),
    ],
)
def test_value_out_of_range_ends_with_2_and_one_line(
    monkeypatch: pytest.MonkeyPatch, words: str, variables: dict[str, str], message: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    code, output = invoke("Model", *words.split())
    assert (code, output.count("\n"), output.startswith("Error: "), message in output) == (2, 1, True, True), output


def run(*words: str, folder: Path, **variables: str) -> tuple[int, str]:
    """The installed command, to its end."""
    done = subprocess.run(
        [CONSOLE_SCRIPT, *words], cwd=folder, env={**os.environ, **variables}, capture_output=True, text=True,
        check=False, timeout=60,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


FAILURES = {
    "unknown option": (["Components", "--bogus"], 255, "unknown arguments: --bogus"),
    "bad choice": (["Components", "--service-type", "X"], 2, "is not one of 'MODEL', 'ROUTER'"),
    "no module": (["Nowhere"], 1, "there is no module 'Nowhere' for the component 'Nowhere'"),
    "no class": (["Components.Component"], 1, "has no 'Component'; did you mean 'Components'"),
    "unmade": (["Components.Unmade"], 1, "RuntimeError: there is no GPU"),
    "unloaded": (["Components.Unloaded"], 1, "AttributeError: 'Unloaded' object has no attribute 'weights'"),
    "unloaded by workers": (["Components.Unloaded", "--workers", "2"], 1, "has no attribute 'weights'"),
    "bad parameter": (
        ["Components", "--parameters", '[{"name": "times", "value": "x", "type": "INT"}]'], 2,
        "Error: --parameters: Bad model parameter: times is 'x', which is no INT",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    """What the command says and ends with, for all failures; side by side, as each is a process."""
    folder = tmp_path_factory.mktemp("failures")
    (folder / "Components.py").write_text(COMPONENTS)
    ports = ("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0", "--host", "127.0.0.1")
    with ThreadPoolExecutor(3) as pool:
        runs = {name: pool.submit(run, *words, *ports, folder=folder) for name, (words, _, _) in FAILURES.items()}
    return {name: each.result() for name, each in runs.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAILURES)
def test_failure_of_the_installed_command_has_its_code_and_message(
    ended: dict[str, tuple[int, str]], name: str
) -> None:
    _, expected, message = FAILURES[name]
    code, output = ended[name]
    assert (code, message in output) == (expected, True), output


# -- what works --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source folder as s2i takes it."""
    place = tmp_path_factory.mktemp("source")
    (place / "Components.py").write_text(COMPONENTS)
    (place / ".s2i").mkdir()
    (place / ".s2i" / "environment").write_text(
        "MODEL_NAME=Components\nAPI_TYPE=REST\nSERVICE_TYPE=MODEL\nPERSISTENCE=0\nPREDICTIVE_UNIT_ID=of-the-file\n"
        "SELDON_DEPLOYMENT_ID=of-the-file\n"
    )
    return place


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Microservice]:
    """The command under its old name in that folder, told everything by files and variables but what is given here."""
    variables = {
        "PREDICTIVE_UNIT_PARAMETERS": json.dumps(
            [
                {"name": "greeting", "value": "good day", "type": "STRING"},
                {"name": "times", "value": "3", "type": "INT"},
            ]
        ),
        "PREDICTIVE_UNIT_ID": "of-the-variable",
        "PREDICTIVE_UNIT_IMAGE": "registry:5000/model:v2",
        "PREDICTIVE_UNIT_METRICS_ENDPOINT": "/prometheus",
        "MODEL_METADATA": '{"platform": "of-the-variable"}',
        "GUNICORN_ACCESS_LOG": "true",
        "SELDON_LOG_LEVEL": "DEBUG",
        "GUNICORN_KEEPALIVE": "1",
    }
    shell = "exec seldon-core-microservice $MODEL_NAME --log-level ERROR --pidfile pid --host 127.0.0.1"
    with Microservice(folder, "Components", environment=variables, shell=shell) as service:
        yield service
    assert not (folder / "pid").exists()


def test_everything_may_be_told_by_variables_and_the_file_of_s2i(served: Microservice) -> None:
    answer = served.predict({"strData": "x"})
    assert answer == {
        "strData": "good day 3 int",
        "meta": {"requestPath": {"of-the-variable": "registry:5000/model:v2"}},
    }
    metadata = json.loads(served.ask("/metadata").body)
    assert (metadata["name"], metadata["versions"], metadata["platform"]) == (
        "registry:5000/model", ["v2"], "of-the-variable",
    )  # fmt: skip
    feedback = {"response": {"meta": {"routing": {"of-the-variable": 1}}}, "reward": 0.5}
    assert served.ask("/send-feedback", feedback).status == 200
    (labels,) = served.metrics("/prometheus")["seldon_api_model_feedback_total"]
    assert dict(labels) == {
        "method": "feedback", "deployment_name": "of-the-file", "seldon_deployment_name": "of-the-file",
        "predictor_name": "NOT_IMPLEMENTED", "predictor_version": "NOT_IMPLEMENTED", "model_name": "of-the-variable",
        "model_image": "registry:5000/model", "image_name": "registry:5000/model", "model_version": "v2",
        "image_version": "v2",
    }  # fmt: skip
    assert served.ask("/metrics", port=served.metrics_port).status == 404


def test_grpc_is_at_the_port_of_its_variable(served: Microservice) -> None:
    with served.channel() as channel:
        answer = prediction_pb2_grpc.ModelStub(channel).Predict(pb.SeldonMessage(strData="x"), timeout=30)
    assert answer.strData == "good day 3 int"


def test_log_has_the_level_of_the_variable_and_a_line_for_each_request(served: Microservice) -> None:
    served.predict({"strData": "for the log"}, "/api/v1.0/predictions")
    served.wait_for("DEBUG .*asked for for the log")
    served.wait_for(r"POST /api/v1\.0/predictions.* 200")


def test_process_id_is_in_its_file(served: Microservice, folder: Path) -> None:
    assert (folder / "pid").read_text() == f"{served.process.pid}\n"


def test_signal_that_replaces_workers_ends_nothing_where_there_is_one_process(served: Microservice) -> None:
    served.process.send_signal(signal.SIGHUP)
    served.wait_for("SIGHUP: there is one process alone")
    assert served.predict({"strData": "x"})["strData"] == "good day 3 int"


def test_old_command_line_serves_rest_alone_at_the_one_port(folder: Path) -> None:
    shell = "exec seldon-core-microservice $MODEL_NAME REST --service-type MODEL --persistence 0 --host 127.0.0.1"
    ports = {"PREDICTIVE_UNIT_HTTP_SERVICE_PORT": "", "PREDICTIVE_UNIT_GRPC_SERVICE_PORT": ""}
    with Microservice(folder, "Components", environment={"MODEL_NAME": "Components", **ports}, shell=shell) as service:
        assert service.predict({"strData": "x"})["strData"] == "hello 1 int"
        shown = re.search(r"URL +http://127\.0\.0\.1:(\d+)\n(.*?)\n\n", service.log(), re.DOTALL)
        assert shown is not None
        assert (int(shown[1]), "grpc" in shown[2], "metrics" in shown[2]) == (service.port, False, True)


def test_old_command_line_serves_grpc_at_the_one_port(folder: Path) -> None:
    (old,) = free_ports(1)
    shell = "exec seldon-core-microservice $MODEL_NAME GRPC --service-type MODEL --host 127.0.0.1"
    ports = {"PREDICTIVE_UNIT_GRPC_SERVICE_PORT": "", "PREDICTIVE_UNIT_SERVICE_PORT": str(old)}
    with (
        Microservice(folder, "Components", environment={"MODEL_NAME": "Components", **ports}, shell=shell),
        grpc.insecure_channel(f"127.0.0.1:{old}") as channel,
    ):
        answer = prediction_pb2_grpc.ModelStub(channel).Predict(pb.SeldonMessage(strData="x"), timeout=30)
        assert answer.strData == "hello 1 int"


def test_option_wins_over_the_variable_for_a_port(folder: Path) -> None:
    variables = {"PREDICTIVE_UNIT_HTTP_SERVICE_PORT": "1", "PREDICTIVE_UNIT_METRICS_SERVICE_PORT": "2"}
    with Microservice(folder, "Components", "--grpc-workers", "0", environment=variables) as service:
        assert service.predict({"strData": "x"})["strData"] == "hello 1 int"
        assert service.ask("/metrics", port=service.metrics_port).body == b""
