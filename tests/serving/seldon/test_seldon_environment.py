"""What the variables of Seldon's operator and images mean: one row of its documents each."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servegraph.errors import SettingsError
from servegraph.serving.seldon.environment import (
    NodeEnvironment,
    SeldonEnvironment,
    is_true,
    kept_in,
    read_environment,
    redis_address,
    s2i_environment,
)
from servegraph.serving.seldon.identity import UnitIdentity

BOOLEANS = {"1": True, "true": True, "T": True, "TRUE": True, "0": False, "yes": False, "on": False, "": False}


@pytest.fixture
def nowhere(tmp_path: Path) -> Path:
    """A folder without ``.s2i``."""
    return tmp_path


def test_environment_without_variables_is_all_defaults(nowhere: Path) -> None:
    assert read_environment({}, nowhere) == SeldonEnvironment(
        identity=UnitIdentity("", "", "", "", ""), parameters=(), http_port=None, grpc_port=None, metrics_port=6000,
        service_port=None, metrics_path="/metrics", metrics_in_response=True, passthrough=False, metadata="",
        log_level="", debug=False, tracing=False, workers=1, threads=1, max_requests=0, max_requests_jitter=0,
        keepalive=2, single_threaded=False, access_log=False, grpc_threads=1, grpc_workers=1, executor_enabled=True,
        redis="redis://localhost:6379", model_name="", service_type="", api_type="", persistence=False, flask={},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("PREDICTIVE_UNIT_ID", "node", "identity", UnitIdentity(unit_id="node")),
        ("PREDICTIVE_UNIT_IMAGE", "r:5000/i:v2", "identity", UnitIdentity(image="r:5000/i:v2")),
        ("PREDICTOR_ID", "main", "identity", UnitIdentity(predictor_id="main")),
        ("PREDICTOR_LABELS", '{"version": "v7", "a": "b"}', "identity", UnitIdentity(predictor_version="v7")),
        ("PREDICTOR_LABELS", '{"version": 7}', "identity", UnitIdentity(predictor_version="7")),
        ("PREDICTOR_LABELS", '{"a": "b"}', "identity", UnitIdentity()),
        ("SELDON_DEPLOYMENT_ID", "iris", "identity", UnitIdentity(deployment_id="iris")),
        ("PREDICTIVE_UNIT_PARAMETERS", '[{"name": "a", "value": "1", "type": "INT"}]', "parameters",
         ({"name": "a", "value": "1", "type": "INT"},)),
        ("PREDICTIVE_UNIT_HTTP_SERVICE_PORT", "9001", "http_port", 9001),
        ("PREDICTIVE_UNIT_GRPC_SERVICE_PORT", "9501", "grpc_port", 9501),
        ("PREDICTIVE_UNIT_METRICS_SERVICE_PORT", "6001", "metrics_port", 6001),
        ("PREDICTIVE_UNIT_SERVICE_PORT", "5001", "service_port", 5001),
        ("PREDICTIVE_UNIT_METRICS_ENDPOINT", "/prometheus", "metrics_path", "/prometheus"),
        ("INCLUDE_METRICS_IN_CLIENT_RESPONSE", "True", "metrics_in_response", True),
        ("INCLUDE_METRICS_IN_CLIENT_RESPONSE", "1", "metrics_in_response", False),
        ("INCLUDE_METRICS_IN_CLIENT_RESPONSE", "false", "metrics_in_response", False),
        ("MODEL_METADATA", "name: x", "metadata", "name: x"),
        ("SELDON_LOG_LEVEL", "DEBUG", "log_level", "DEBUG"),
        ("TRACING", "1", "tracing", True),
        ("TRACING", "0", "tracing", False),
        ("GUNICORN_WORKERS", "3", "workers", 3),
        ("GUNICORN_THREADS", "10", "threads", 10),
        ("GUNICORN_MAX_REQUESTS", "100", "max_requests", 100),
        ("GUNICORN_MAX_REQUESTS_JITTER", "10", "max_requests_jitter", 10),
        ("GUNICORN_KEEPALIVE", "7", "keepalive", 7),
        ("FLASK_SINGLE_THREADED", "1", "single_threaded", True),
        ("GRPC_THREADS", "4", "grpc_threads", 4),
        ("GRPC_WORKERS", "0", "grpc_workers", 0),
        ("REDIS_SERVICE_HOST", "cache", "redis", "redis://cache:6379"),
        ("REDIS_SERVICE_PORT", "6380", "redis", "redis://localhost:6380"),
        ("MODEL_NAME", "Model", "model_name", "Model"),
        ("SERVICE_TYPE", "ROUTER", "service_type", "ROUTER"),
        ("API_TYPE", "GRPC", "api_type", "GRPC"),
        ("PERSISTENCE", "1", "persistence", True),
        ("PERSISTENCE", " ", "persistence", False),
        ("FLASK_JSON_SORT_KEYS", "false", "flask", {"JSON_SORT_KEYS": False}),
        ("FLASK_PROPAGATE_EXCEPTIONS", "t", "flask", {"PROPAGATE_EXCEPTIONS": True}),
        ("FLASK_SOMETHING_ELSE", "1", "flask", {}),
    ],
)  # fmt: skip
def test_variable_sets_its_field_and_no_other(nowhere: Path, name: str, text: str, field: str, value: Any) -> None:
    read, default = read_environment({name: text}, nowhere), SeldonEnvironment()
    assert getattr(read, field) == value
    others = [other for other in SeldonEnvironment.__slots__ if other != field]
    assert [getattr(read, other) for other in others] == [getattr(default, other) for other in others]


@pytest.mark.parametrize(("text", "value"), BOOLEANS.items())
@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("SELDON_DEBUG", "debug"), ("GUNICORN_ACCESS_LOG", "access_log"), ("PAYLOAD_PASSTHROUGH", "passthrough"),
        ("SELDON_EXECUTOR_ENABLED", "executor_enabled"),
    ],
)  # fmt: skip
def test_boolean_variable_is_true_for_three_words_alone(
    nowhere: Path, name: str, field: str, text: str, value: bool
) -> None:
    assert getattr(read_environment({name: text}, nowhere), field) is value


@given(st.text(max_size=10))
def test_any_text_is_true_or_false(text: str) -> None:
    assert is_true(text) == (text.strip().casefold() in {"1", "true", "t"})


@pytest.mark.parametrize(
    "name",
    [
        "PREDICTIVE_UNIT_HTTP_SERVICE_PORT", "PREDICTIVE_UNIT_GRPC_SERVICE_PORT", "PREDICTIVE_UNIT_SERVICE_PORT",
        "PREDICTIVE_UNIT_METRICS_SERVICE_PORT", "GUNICORN_WORKERS", "GUNICORN_THREADS", "GUNICORN_MAX_REQUESTS",
        "GUNICORN_MAX_REQUESTS_JITTER", "GUNICORN_KEEPALIVE", "FLASK_SINGLE_THREADED", "GRPC_THREADS", "GRPC_WORKERS",
        "TRACING", "PERSISTENCE", "REDIS_SERVICE_PORT",
    ],
)  # fmt: skip
def test_variable_that_is_no_number_is_named(nowhere: Path, name: str) -> None:
    with pytest.raises(SettingsError, match=f"environment variable {name} must be a whole number, not 'many'"):
        read_environment({name: "many"}, nowhere)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("PREDICTIVE_UNIT_PARAMETERS", "[{", "PREDICTIVE_UNIT_PARAMETERS is no JSON"),
        ("PREDICTIVE_UNIT_PARAMETERS", '{"a": 1}', "PREDICTIVE_UNIT_PARAMETERS must be a JSON list"),
        ("PREDICTOR_LABELS", "version=v7", "PREDICTOR_LABELS is no JSON"),
    ],
)
def test_variable_that_is_no_json_is_named(nowhere: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        read_environment({name: text}, nowhere)


# -- .s2i/environment --------------------------------------------------------------------------------------------------


def s2i(folder: Path, text: str) -> Path:
    (folder / ".s2i").mkdir()
    (folder / ".s2i" / "environment").write_text(text)
    return folder


def test_file_of_s2i_stands_in_for_variables_that_are_not_set(tmp_path: Path) -> None:
    text = "# how it is run\n\nMODEL_NAME=Here\nAPI_TYPE = REST\nSERVICE_TYPE='ROUTER'\nPERSISTENCE=\"1\"\n"
    read = read_environment({"MODEL_NAME": "There"}, s2i(tmp_path, text))
    assert (read.model_name, read.api_type, read.service_type, read.persistence) == ("There", "REST", "ROUTER", True)


def test_file_of_s2i_is_that_of_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(s2i(tmp_path, "MODEL_NAME=Here\nGUNICORN_WORKERS=3"))
    monkeypatch.setenv("GUNICORN_WORKERS", "2")
    assert (read_environment().model_name, read_environment().workers) == ("Here", 2)


def test_file_of_s2i_keeps_what_follows_the_first_sign(tmp_path: Path) -> None:
    assert s2i_environment(s2i(tmp_path, "A=b=c\nB=\n") / ".s2i" / "environment") == {"A": "b=c", "B": ""}


@pytest.mark.parametrize("line", ["MODEL_NAME", "=Model", "MODEL-NAME=Model", "export A=b"])
def test_file_of_s2i_with_a_bad_line_is_told_with_its_number(tmp_path: Path, line: str) -> None:
    with pytest.raises(SettingsError, match=r"environment, line 2: write NAME=VALUE, not "):
        read_environment({}, s2i(tmp_path, f"A=b\n{line}\n"))


# -- where the state is kept -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "kept"),
    [
        ({}, ""),
        ({"PERSISTENCE": "0"}, "off"),
        ({"PERSISTENCE": "1"}, "on"),
        ({"PERSISTENCE": "1", "REDIS_SERVICE_HOST": "cache"}, "redis://cache:6379"),
        ({"PERSISTENCE": "0", "REDIS_SERVICE_HOST": "cache"}, "off"),
        ({"REDIS_SERVICE_HOST": "cache"}, ""),
    ],
)
def test_container_says_where_its_state_is_kept(variables: dict[str, str], kept: str) -> None:
    assert kept_in(variables) == kept


def test_address_of_redis_is_that_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_SERVICE_HOST", "cache")
    monkeypatch.setenv("REDIS_SERVICE_PORT", "1")
    assert redis_address() == "redis://cache:1"


# -- the variables of nodes -----------------------------------------------------------------------------------------


@pytest.fixture
def variable(monkeypatch: pytest.MonkeyPatch) -> str:
    """A variable that is not set."""
    monkeypatch.delenv("SG_NODE", raising=False)
    return "SG_NODE"


def test_variable_of_a_node_that_fails_is_that_of_the_others_again(variable: str) -> None:
    first, second = NodeEnvironment("a", {variable: "1"}), NodeEnvironment("b", {variable: "2"})
    with first.given():
        assert os.environ[variable] == "1"
    with contextlib.suppress(LookupError), second.given():
        assert os.environ[variable] == "2"
        raise LookupError
    assert os.environ[variable] == "1"
    first.put_back()
    assert variable not in os.environ


def test_variable_that_nodes_share_stays_until_the_last_one_ends(variable: str) -> None:
    first, second = NodeEnvironment("a", {variable: "1"}), NodeEnvironment("b", {variable: "1"})
    for node in (first, second, first):
        with node.given():
            assert os.environ[variable] == "1"
    first.put_back()
    assert os.environ[variable] == "1"
    del second  # a node that nobody has closed
    gc.collect()
    assert variable not in os.environ


def test_variable_that_a_node_has_set_anew_is_let_be(variable: str) -> None:
    node = NodeEnvironment("a", {variable: "1"})
    with node.given():
        os.environ[variable] = "other"
    node.put_back()
    assert os.environ.pop(variable) == "other"


def test_three_nodes_with_values_of_their_own_are_told_once(variable: str, caplog: pytest.LogCaptureFixture) -> None:
    nodes = [NodeEnvironment(name, {variable: name, "SG_OWN": name}, ["SG_OWN"]) for name in "abc"]
    with caplog.at_level(logging.WARNING):
        for node in nodes * 2:
            with node.given():
                assert os.environ[variable] == node.node
    assert variable not in os.environ
    [message] = [r.getMessage() for r in caplog.records]
    assert "SG_NODE has one value in node 'a' and another in node 'b'" in message
    for node in nodes:
        node.put_back()
    assert "SG_OWN" not in os.environ
