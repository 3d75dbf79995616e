"""What options, variables and annotations make of the server: no process, no port."""

from __future__ import annotations

import logging
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from servegraph.errors import SettingsError
from servegraph.runtimes.seldon import command as module
from servegraph.runtimes.seldon.annotations import PodAnnotations
from servegraph.runtimes.seldon.command import (
    SERVICE_TYPES,
    MicroserviceCommand,
    UnknownArgumentsError,
    resolve,
    serve_component,
)
from servegraph.runtimes.seldon.options import MicroserviceOptions
from servegraph.serving.seldon.environment import SeldonEnvironment, read_environment
from servegraph.serving.seldon.parameters import typed_parameters
from servegraph.settings import ServerSettings

NOWHERE = Path("/nowhere")
UNTRACED = "tracing is asked for, and this server has none: requests are not traced"


def resolved(
    *words: str, variables: dict[str, str] | None = None, **options: Any
) -> tuple[MicroserviceOptions, ServerSettings]:
    """What a command line makes of the variables of an environment."""
    name, *api = words or ("Model",)
    return resolve(MicroserviceCommand(name, tuple(api), options), read_environment(variables or {}, NOWHERE))


def ports(*words: str, variables: dict[str, str] | None = None, **options: Any) -> tuple[Any, Any, Any]:
    """The ports of REST and of gRPC, and whether gRPC is served."""
    served, settings = resolved(*words, variables=variables, **options)
    return settings.http_port, settings.grpc_port, served.grpc


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "pod_annotations", PodAnnotations)
    for name in ("SERVEGRAPH_WORKERS", "SERVEGRAPH_LOG_LEVEL"):
        monkeypatch.delenv(name, raising=False)


def test_command_without_options_has_the_defaults_of_seldon() -> None:
    served, settings = resolved("Model")
    assert served == MicroserviceOptions(
        component="Model",
        parameters=[],
        unit={"unit_id": "", "image": "", "predictor_id": "", "predictor_version": "", "deployment_id": ""},
        threads=1,
        grpc=True,
        metrics_path="/metrics",
        metrics_in_response=True,
        count_feedback=True,
        passthrough=False,
        metadata="",
        flask={},
        state_store="off",
        grpc_options={},
    )
    assert (settings.http_port, settings.grpc_port, settings.metrics_port) == (9000, 5000, 6000)
    assert (settings.host, settings.workers, settings.log_level) == ("0.0.0.0", 1, "info")
    assert (settings.max_requests, settings.max_requests_jitter, settings.access_log) == (0, 0, False)
    assert (settings.limits.keep_alive_s, settings.executor.threads, settings.grpc.threads) == (2.0, 1, 1)
    assert settings.grpc.max_message_bytes == 4 * 1024**2
    assert settings.timeouts.request_s == 5000
    assert settings.limits.body_json_bytes == settings.limits.body_binary_bytes == 128 * 1024**2


ROWS = [
    ("http_port", 9001, "PREDICTIVE_UNIT_HTTP_SERVICE_PORT", "9002", "http_port", 9001, 9002),
    ("grpc_port", 5001, "PREDICTIVE_UNIT_GRPC_SERVICE_PORT", "5002", "grpc_port", 5001, 5002),
    ("metrics_port", 6001, "PREDICTIVE_UNIT_METRICS_SERVICE_PORT", "6002", "metrics_port", 6001, 6002),
    ("workers", 3, "GUNICORN_WORKERS", "4", "workers", 3, 4),
    ("threads", 3, "GUNICORN_THREADS", "4", "executor.threads", 3, 4),
    ("max_requests", 100, "GUNICORN_MAX_REQUESTS", "200", "max_requests", 100, 200),
    ("max_requests_jitter", 10, "GUNICORN_MAX_REQUESTS_JITTER", "20", "max_requests_jitter", 10, 20),
    ("keepalive", 5, "GUNICORN_KEEPALIVE", "6", "limits.keep_alive_s", 5.0, 6.0),
    ("access_log", "true", "GUNICORN_ACCESS_LOG", "1", "access_log", True, True),
    ("access_log", "", "GUNICORN_ACCESS_LOG", "1", "access_log", False, True),
    ("grpc_threads", 3, "GRPC_THREADS", "4", "grpc.threads", 3, 4),
    ("grpc_workers", 3, "GRPC_WORKERS", "4", "workers", 3, 4),
    ("debug", "true", "SELDON_DEBUG", "true", "log_level", "debug", "debug"),
    ("debug", "False", "SELDON_DEBUG", "1", "log_level", "debug", "debug"),
    ("debug", "", "SELDON_DEBUG", "1", "log_level", "info", "debug"),
]


@pytest.mark.parametrize(("option", "value", "variable", "text", "setting", "given", "from_environment"), ROWS)
def test_option_wins_over_its_variable_and_that_over_the_default(
    option: str, value: Any, variable: str, text: str, setting: str, given: Any, from_environment: Any
) -> None:
    def found(**options: Any) -> Any:
        settings: Any = resolved("Model", **options)[1]
        for part in setting.split("."):
            settings = getattr(settings, part)
        return settings

    assert found(variables={variable: text}) == from_environment
    assert found(**{option: value}) == given
    assert found(**{option: value}, variables={variable: text}) == given
    assert found(**{option: None}, variables={variable: text}) == from_environment


def test_variables_of_the_operator_reach_the_component() -> None:
    served, _ = resolved(
        "Model",
        variables={
            "PREDICTIVE_UNIT_ID": "node", "PREDICTIVE_UNIT_IMAGE": "i:v2", "PREDICTOR_ID": "main",
            "PREDICTOR_LABELS": '{"version": "v7"}', "SELDON_DEPLOYMENT_ID": "iris",
            "PREDICTIVE_UNIT_METRICS_ENDPOINT": "/prometheus", "INCLUDE_METRICS_IN_CLIENT_RESPONSE": "false",
            "SELDON_EXECUTOR_ENABLED": "false", "PAYLOAD_PASSTHROUGH": "true", "MODEL_METADATA": "name: x",
            "FLASK_JSON_SORT_KEYS": "0",
        },
    )  # fmt: skip
    assert served.unit == {
        "unit_id": "node", "image": "i:v2", "predictor_id": "main", "predictor_version": "v7", "deployment_id": "iris",
    }  # fmt: skip
    assert (served.metrics_path, served.metrics_in_response, served.count_feedback) == ("/prometheus", False, False)
    assert (served.passthrough, served.metadata, served.flask) == (True, "name: x", {"JSON_SORT_KEYS": False})


def test_options_are_the_same_after_their_way_to_a_worker() -> None:
    served, _ = resolved("Model", parameters='[{"name": "a", "value": "1", "type": "INT"}]')
    assert MicroserviceOptions.from_dict(served.to_dict()) == served
    assert MicroserviceOptions.from_dict({"component": "A", "of_a_later_version": 1}) == MicroserviceOptions("A")


# -- the component -----------------------------------------------------------------------------------------------------


def test_component_is_named_by_the_command_or_the_environment() -> None:
    assert resolved("Model", variables={"MODEL_NAME": "Other"})[0].component == "Model"
    assert resolved("", variables={"MODEL_NAME": "a.b.Other"})[0].component == "a.b.Other"
    with pytest.raises(SettingsError, match="name the component: servegraph microservice MyModel, or set MODEL_NAME"):
        resolved("")


def test_parameters_of_the_option_replace_those_of_the_environment() -> None:
    variables = {"PREDICTIVE_UNIT_PARAMETERS": '[{"name": "a", "value": "1", "type": "INT"}]'}
    assert typed_parameters(resolved(variables=variables)[0].parameters) == {"a": 1}
    text = '[{"name": "b", "value": "on", "type": "BOOL"}]'
    assert typed_parameters(resolved(variables=variables, parameters=text)[0].parameters) == {"b": True}
    assert resolved(variables=variables, parameters="[]")[0].parameters == []
    with pytest.raises(SettingsError, match="--parameters is no JSON"):
        resolved(parameters="[{")


@pytest.mark.parametrize("kind", SERVICE_TYPES)
def test_service_type_is_checked_wherever_it_comes_from(kind: str) -> None:
    assert resolved("Model", service_type=kind)[0] == resolved("Model", variables={"SERVICE_TYPE": kind})[0]
    for wrong in (kind.lower(), f"{kind}S"):
        with pytest.raises(SettingsError, match=f"service type '{wrong}': .*{kind}"):
            resolved("Model", variables={"SERVICE_TYPE": wrong})


# -- ports and the old form --------------------------------------------------------------------------------------------


def test_old_command_lines_have_one_interface_at_the_port_they_asked_for() -> None:
    assert ports("Model", "REST") == (5000, 0, False)
    assert ports("Model", "rest", variables={"PREDICTIVE_UNIT_SERVICE_PORT": "9100"}) == (9100, 0, False)
    assert ports("Model", "GRPC") == (9000, 5000, True)
    assert ports("Model", "GRPC", variables={"PREDICTIVE_UNIT_SERVICE_PORT": "9100"}) == (9000, 9100, True)


def test_old_command_lines_with_a_port_of_today_have_both_interfaces() -> None:
    assert ports("Model", "REST", http_port=9000, grpc_port=5000) == (9000, 5000, True)
    today = {"PREDICTIVE_UNIT_HTTP_SERVICE_PORT": "9000", "PREDICTIVE_UNIT_GRPC_SERVICE_PORT": "9500"}
    old = {"PREDICTIVE_UNIT_SERVICE_PORT": "9100"}
    assert ports("Model", "REST", variables=today | old) == (9000, 9500, True)
    assert ports("Model", "GRPC", variables=today | old) == (9000, 9500, True)


def test_port_of_old_images_is_not_that_of_a_command_of_today() -> None:
    variables = {"PREDICTIVE_UNIT_SERVICE_PORT": "9100", "API_TYPE": "REST"}
    assert ports("Model", variables=variables) == (9000, 5000, True)
    assert ports("Model", http_port=0, grpc_port=0, metrics_port=0) == (0, 0, True)


@pytest.mark.parametrize("api", [("FBS",), ("Other",), ("REST", "GRPC"), ("REST", "--bogus")])
def test_words_behind_the_name_that_mean_nothing_are_told(api: tuple[str, ...]) -> None:
    with pytest.raises(UnknownArgumentsError, match=f"unexpected '{' '.join(api)}': .* REST or GRPC"):
        resolved("Model", *api)


@pytest.mark.parametrize("option", ["http_port", "grpc_port", "metrics_port"])
def test_port_that_cannot_be_is_told(option: str) -> None:
    with pytest.raises(SettingsError, match=f"{option}: 65536 is out of range"):
        resolved("Model", variables=None, **{option: 65536})


# -- workers and threads -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "workers", "grpc"),
    [
        ({"workers": 4, "grpc_workers": 2}, 4, True),
        ({"workers": 2, "grpc_workers": 4}, 4, True),
        ({"workers": 0}, 1, True),
        ({"workers": 2, "grpc_workers": 0}, 2, False),
        ({"grpc_workers": 0}, 1, False),
    ],
)
def test_workers_are_the_larger_number_and_none_for_grpc_is_no_grpc(
    options: dict[str, Any], workers: int, grpc: bool
) -> None:
    served, settings = resolved("Model", **options)
    assert (settings.workers, served.grpc) == (workers, grpc)


@pytest.mark.parametrize(
    ("options", "at_once", "rest", "rpc"),
    [
        ({"threads": 4}, 4, 4, 4),
        ({"grpc_threads": 4}, 4, 4, 4),
        ({"threads": 2, "grpc_threads": 8}, 8, 8, 8),
        ({"threads": 8, "grpc_threads": 2}, 8, 8, 8),
        ({"threads": 8, "single_threaded": 1}, 1, 1, 1),
        ({"threads": 8, "single_threaded": 0}, 8, 8, 8),
        ({"grpc_threads": 4, "single_threaded": 1}, 4, 4, 4),
        ({"threads": 0, "grpc_threads": -1}, 1, 1, 1),
    ],
)
def test_threads_are_how_many_calls_of_the_component_run_at_once(
    options: dict[str, Any], at_once: int, rest: int, rpc: int
) -> None:
    served, settings = resolved("Model", **options)
    assert (served.threads, settings.executor.threads, settings.grpc.threads) == (at_once, rest, rpc)


def test_single_threaded_of_the_environment_may_be_taken_back() -> None:
    variables = {"FLASK_SINGLE_THREADED": "1", "GUNICORN_THREADS": "4"}
    assert resolved(variables=variables)[0].threads == 1
    assert resolved(variables=variables, single_threaded=0)[0].threads == 4


@pytest.mark.parametrize("seconds", [0, -3])
def test_keepalive_is_never_less_than_a_second(seconds: int) -> None:
    assert resolved(keepalive=seconds)[1].limits.keep_alive_s == 1.0


# -- log level ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "variables", "level"),
    [
        ({"log_level": "WARNING"}, {}, "warning"),
        ({"log_level": "error"}, {}, "error"),
        ({"log_level": "ERROR"}, {"SELDON_LOG_LEVEL": "DEBUG"}, "debug"),
        ({}, {"SELDON_LOG_LEVEL": "WARNING"}, "warning"),
        ({"debug": "true"}, {"SELDON_LOG_LEVEL": "ERROR"}, "debug"),
    ],
)
def test_log_level_of_the_environment_wins(options: dict[str, Any], variables: dict[str, str], level: str) -> None:
    assert resolved(variables=variables, **options)[1].log_level == level


@pytest.mark.parametrize("debug", [None, "true"])
def test_log_level_that_there_is_not_is_told(debug: str | None) -> None:
    with pytest.raises(SettingsError, match=r"log level 'WARN'.*WARNING"):
        resolved(log_level="WARN", debug=debug)
    with pytest.raises(SettingsError, match="log level 'loud'"):
        resolved(variables={"SELDON_LOG_LEVEL": "loud"}, debug=debug)


# -- state, pickles, annotations, further settings ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "variables", "store"),
    [
        ({}, {}, "off"),
        ({"persistence": 1}, {}, "redis://localhost:6379"),
        ({}, {"PERSISTENCE": "1", "REDIS_SERVICE_HOST": "cache"}, "redis://cache:6379"),
        ({"persistence": 0}, {"PERSISTENCE": "1"}, "off"),
        ({"persistence": 1}, {"PERSISTENCE": "0", "REDIS_SERVICE_PORT": "1"}, "redis://localhost:1"),
    ],
)
def test_state_is_kept_only_where_persistence_is_asked_for(
    options: dict[str, Any], variables: dict[str, str], store: str
) -> None:
    assert resolved(variables=variables, **options)[0].state_store == store


def test_place_of_the_state_may_be_another(tmp_path: Path) -> None:
    served, settings = resolved(persistence=1, state_store=f"file://{tmp_path}")
    assert (served.state_store, settings.state_store) == ("redis://localhost:6379", f"file://{tmp_path}")


@pytest.mark.parametrize("leave", [True, False, None])
def test_leave_for_pickles_is_handed_on_as_it_was_given(leave: bool | None) -> None:
    assert resolved(allow_pickle=leave)[1].allow_pickle is leave


def test_annotations_win_over_the_defaults_and_further_settings_over_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "pod_annotations", lambda: PodAnnotations(1000, 2500))
    settings = resolved()[1]
    assert (settings.grpc.max_message_bytes, settings.timeouts.request_s) == (1000, 2.5)
    settings = resolved(assignments=("grpc.max_message_bytes=2000", "limits.json_depth=32"))[1]
    assert (settings.grpc.max_message_bytes, settings.timeouts.request_s, settings.limits.json_depth) == (2000, 2.5, 32)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("limits.json_depth", "--set takes NAME=VALUE, not 'limits.json_depth'"),
        ("=3", "--set takes NAME=VALUE, not '=3'"),
        ("limits.json_deep=3", "json_depth"),
        ("workers=many", "workers"),
    ],
)
def test_further_setting_that_cannot_be_is_told(text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        resolved(assignments=(text,))


# -- serving -----------------------------------------------------------------------------------------------------------


class Served(Exception):
    """Raised in place of serving, with what would be served."""


@pytest.fixture
def not_serving(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(how: str) -> Any:
        def raised(*args: Any, **kwargs: Any) -> Any:
            raise Served(how)

        return raised

    monkeypatch.setattr(module, "run_alone", stop("alone"))
    monkeypatch.setattr(module, "Supervisor", stop("supervised"))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)


@pytest.mark.usefixtures("not_serving")
@pytest.mark.parametrize(
    ("options", "how"),
    [({}, "alone"), ({"workers": 2}, "supervised"), ({"max_requests": 5}, "supervised"), ({"workers": 0}, "alone")],
)
def test_one_worker_that_nobody_replaces_is_served_without_a_supervisor(options: dict[str, int], how: str) -> None:
    with pytest.raises(Served, match=how):
        serve_component(MicroserviceCommand("Model", (), options))


@pytest.mark.usefixtures("not_serving")
@pytest.mark.parametrize(
    ("options", "environment", "told"),
    [
        ({"tracing": 1}, {}, UNTRACED),
        ({}, {"tracing": True}, UNTRACED),
        ({}, {"api_type": "FBS"}, "there is no API_TYPE 'FBS'; REST and gRPC are served"),
        ({"tracing": 0}, {"tracing": True, "api_type": "rest"}, ""),
        ({}, {"api_type": "GRPC"}, ""),
    ],
)
def test_what_was_asked_for_and_is_not_done_is_told(
    options: dict[str, Any],
    environment: dict[str, Any],
    told: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "read_environment", lambda: replace(SeldonEnvironment(), **environment))
    with pytest.raises(Served):
        serve_component(MicroserviceCommand("Model", (), options))
    assert caplog.messages == ([told] if told else [])


@pytest.mark.usefixtures("not_serving")
def test_file_for_the_process_id_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--pidfile"):
        serve_component(MicroserviceCommand("Model", (), {"pidfile": str(tmp_path / "nowhere" / "pid")}))
