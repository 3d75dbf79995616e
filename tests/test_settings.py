from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servegraph.errors import SettingsError
from servegraph.settings import ServerSettings, describe_settings, environment, load_settings


def test_load_settings_without_anything_gives_defaults() -> None:
    settings = load_settings(environ={})
    assert settings == ServerSettings()
    assert settings.limits.body_json_bytes == 8 * 1024 * 1024
    assert settings.executor.threads == min(32, (os.cpu_count() or 1) + 4)


def test_load_settings_precedence_is_flag_environment_file_function_default(tmp_path: Path) -> None:
    names = ["host", "workers", "http_port", "log_level", "nan"]
    values: dict[str, list[Any]] = {
        "host": ["a", "b", "c", "d"],
        "workers": [2, 3, 4],
        "http_port": [1, 2],
        "log_level": ["debug"],
    }
    sources: list[dict[str, Any]] = [{n: values[n][i] for n in names if i < len(values.get(n, []))} for i in range(4)]
    file = tmp_path / "settings.json"
    file.write_text(json.dumps(sources[1]))
    settings = load_settings(
        function=sources[0],
        file=file,
        environ={f"SERVEGRAPH_{k.upper()}": str(v) for k, v in sources[2].items()},
        overrides=sources[3],
    )
    assert (settings.host, settings.workers, settings.http_port, settings.log_level, settings.nan) == (
        "d",
        4,
        2,
        "debug",
        "null",
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("s.yaml", "http_port: 0\nlimits:\n  body_json_bytes: 2MiB\n"),
        ("s.yml", "http_port: 0\nlimits.body_json_bytes: 2097152\n"),
        ("s.json", '{"http_port": 0, "limits": {"body_json_bytes": "2 MiB"}}'),
        ("s.toml", 'http_port = 0\n[limits]\nbody_json_bytes = "2097152 B"\n'),
    ],
)
def test_load_settings_from_file_of_each_ending_reads_same(tmp_path: Path, name: str, text: str) -> None:
    file = tmp_path / name
    file.write_text(text)
    for settings in (load_settings(file=file, environ={}), load_settings(environ={"SERVEGRAPH_SETTINGS": str(file)})):
        assert settings.http_port == 0
        assert settings.limits.body_json_bytes == 2 * 1024 * 1024


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("s.ini", "", "end in .yaml"),
        ("s.yaml", "- a", "holds a mapping"),
        ("s.yaml", "a: [", "s.yaml: "),
        ("s.json", "{", "s.json: "),
        ("s.toml", "a", "s.toml: "),
        ("s.yaml", "x: " + "y" * 1024**2, "at most"),
        ("s.yaml", "http_port: null", "s.yaml: http_port: None is not a port number"),
        ("s.yaml", "limits: 3", "'limits' is a group"),
        ("s.yaml", "!!python/object:os.system {}", "could not determine a constructor"),
    ],
)
def test_load_settings_from_bad_file_names_the_file(tmp_path: Path, name: str, text: str, message: str) -> None:
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(SettingsError, match=message):
        load_settings(file=file, environ={})


def test_load_settings_from_missing_or_empty_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot read the settings file"):
        load_settings(file=tmp_path / "no.yaml", environ={})
    (tmp_path / "empty.yaml").write_text("")
    assert load_settings(file=tmp_path / "empty.yaml", environ={}) == ServerSettings()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"http_prt": 1}, r"flags: there is no setting 'http_prt': did you mean 'http_port'\?"),
        ({"limits": {"json_deep": 1}}, r"no setting 'json_deep' in 'limits': did you mean 'json_depth'\?"),
        ({"limits.json_deep": 1}, r"no setting 'json_deep' in 'limits'"),
        ({"http_port": "eighty"}, "flags: http_port: 'eighty' is not a port number"),
        ({"http_port": 70000}, "http_port: 70000 is out of range: it takes 0 to 65535"),
        ({"http_port": True}, "True is not a port number"),
        ({"http_port": 1.5}, "1.5 is not a port number"),
        ({"workers": 0}, "workers: 0 is out of range: it takes 1 or more"),
        ({"timeouts": {"hang_s": 0}}, "timeouts.hang_s: 0 is out of range: it takes more than 0"),
        ({"timeouts": {"hang_s": "nan"}}, "'nan' is not a number of seconds"),
        ({"timeouts": {"hang_s": "5 min"}}, "'5 min' is not a number of seconds"),
        ({"limits": {"body_json_bytes": "8 parsecs"}}, "'8 parsecs' is not a size in bytes, such as 8MiB"),
        ({"limits": {"body_json_bytes": "0.3B"}}, "is not a size"),
        ({"log_level": "loud"}, "'loud' is not one of debug, info, warning, error, critical"),
        ({"reload": "maybe"}, "'maybe' is neither true nor false"),
        ({"cors": {"allow_origins": [1]}}, "a list is not a list of texts"),
        ({"host": ""}, "'' is not a text"),
        ({"host": ["x" * 500]}, "a list is not a text"),
    ],
)
def test_load_settings_with_bad_value_says_what_is_accepted(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load_settings(environ={}, overrides=overrides)


def test_load_settings_with_flags_not_given_skips_them() -> None:
    settings = load_settings(environ={}, overrides={"http_port": None, "limits": {"json_depth": None}})
    assert settings == ServerSettings()


def test_load_settings_from_environment_coerces_each_type() -> None:
    settings = load_settings(
        environ={
            "SERVEGRAPH_LIMITS__BODY_JSON_BYTES": "1.5MiB",
            "SERVEGRAPH_LIMITS__BODY_BINARY_BYTES": "2MB",
            "SERVEGRAPH_TIMEOUTS__HANG_S": "2.5",
            "SERVEGRAPH_ACCESS_LOG": "yes",
            "SERVEGRAPH_LOG_LEVEL": "WARNING",
            "SERVEGRAPH_CORS__ALLOW_ORIGINS": "https://a.example, https://b.example",
        }
    )
    assert settings.limits.body_json_bytes == 1536 * 1024
    assert settings.limits.body_binary_bytes == 2_000_000
    assert settings.timeouts.hang_s == 2.5
    assert settings.access_log is True
    assert settings.log_level == "warning"
    assert settings.cors.allow_origins == ("https://a.example", "https://b.example")


def test_load_settings_with_unknown_variable_suggests_the_nearest() -> None:
    with pytest.raises(SettingsError, match=r"SERVEGRAPH_HTTPPORT: .* did you mean 'SERVEGRAPH_HTTP_PORT'"):
        load_settings(environ={"SERVEGRAPH_HTTPPORT": "1"})
    with pytest.raises(SettingsError, match="environment variable SERVEGRAPH_WORKERS: 'two' is not a whole number"):
        load_settings(environ={"SERVEGRAPH_WORKERS": "two"})


def test_load_settings_ignores_variables_of_others() -> None:
    environ = {
        "PATH": "/bin",
        "SERVEGRAPH_SECRET_DB": "x",
        # What Kubernetes adds for Services named servegraph, servegraph-http and servegraph-iris.
        "SERVEGRAPH_PORT": "tcp://10.0.0.1:80",
        "SERVEGRAPH_HTTP_PORT": "tcp://10.0.0.1:80",
        "SERVEGRAPH_SERVICE_HOST": "10.0.0.1",
        "SERVEGRAPH_SERVICE_PORT_HTTP": "80",
        "SERVEGRAPH_IRIS_PORT_80_TCP_ADDR": "10.0.0.1",
    }
    assert load_settings(environ=environ) == ServerSettings()


def test_settings_pass_to_other_processes_as_json() -> None:
    settings = load_settings(environ={}, overrides={"cors.allow_origins": "*", "executor": {"threads": 3}})
    assert ServerSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings
    with pytest.raises(SettingsError, match="settings: there is no setting 'hsot'"):
        ServerSettings.from_dict({"hsot": "x"})


def test_describe_settings_documents_every_setting() -> None:
    rows = {row.name: row for row in describe_settings()}
    assert rows["http_port"].env == "SERVEGRAPH_HTTP_PORT"
    assert rows["limits.body_json_bytes"].env == "SERVEGRAPH_LIMITS__BODY_JSON_BYTES"
    assert rows["executor.inline"].type == "auto | always | never"
    assert rows["executor.threads"].default == ServerSettings().executor.threads
    assert all(row.doc and row.type for row in rows.values())


def test_environment_is_that_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVEGRAPH_SECRET_X", "1")
    assert environment()["SERVEGRAPH_SECRET_X"] == "1"


@given(st.sampled_from([row.name for row in describe_settings()]), st.text(max_size=30))
def test_load_settings_with_any_text_is_read_or_refused(name: str, text: str) -> None:
    try:
        settings = load_settings(environ={}, overrides={name: text})
    except SettingsError as exc:
        settings = None
        message = str(exc)
    assert name in message if settings is None else ServerSettings.from_dict(settings.to_dict()) == settings


@pytest.mark.parametrize(
    ("text", "value"), [("on", "on"), ("off", "off"), ("'on'", "on"), ("", None), ("x://y", "x://y")]
)
def test_on_and_off_of_a_yaml_file_are_words_where_a_text_is_wanted(
    tmp_path: Path, text: str, value: str | None
) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(f"state_store: {text}\n")
    assert load_settings(file=file, environ={}).state_store == value
