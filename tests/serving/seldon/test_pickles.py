from __future__ import annotations

import hashlib
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

from servegraph.errors import ModelLoadError, SettingsError
from servegraph.runtimes.function import new_function
from servegraph.runtimes.local import make_application
from servegraph.serving.seldon.pickles import ENV_ALLOW, PicklePermission, pickle_allowed, set_pickle_policy
from servegraph.serving.store_cache import tree_digest
from servegraph.settings import load_settings


@pytest.fixture(autouse=True)
def no_policy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(ENV_ALLOW, raising=False)
    set_pickle_policy(None)
    yield
    set_pickle_policy(None)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps({"a": 1}))
    return path


def test_pickle_allowed_parameter_wins_over_policy_and_policy_over_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not pickle_allowed()
    monkeypatch.setenv(ENV_ALLOW, "1")
    assert pickle_allowed()
    assert not pickle_allowed(False)
    set_pickle_policy(False)
    assert not pickle_allowed()
    assert pickle_allowed(True)
    monkeypatch.delenv(ENV_ALLOW)
    set_pickle_policy(True)
    assert pickle_allowed()


def test_pickle_allowed_environment_that_is_neither_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENV_ALLOW, "perhaps")
    with pytest.raises(SettingsError, match=f"environment variable {ENV_ALLOW}: .*perhaps"):
        pickle_allowed()


@pytest.mark.parametrize(("text", "allowed"), [("1", True), ("off", False), ("", None)])
def test_environment_name_is_that_of_the_servers_setting(text: str, allowed: bool | None) -> None:
    assert load_settings(environ={ENV_ALLOW: text}).allow_pickle is allowed
    flag = load_settings(environ={ENV_ALLOW: text}, overrides={"allow_pickle": False})
    assert flag.allow_pickle is False


def test_server_in_this_process_keeps_to_its_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENV_ALLOW, "1")
    function = new_function("f")
    function.set_topology("flow").to(name="same", handler="(event)").respond()
    make_application(function, load_settings(overrides={"allow_pickle": False}), [])
    assert not pickle_allowed()
    make_application(function, load_settings(), [])
    assert pickle_allowed()


def test_permission_refused_names_file_digest_and_what_allows_it(file: Path) -> None:
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    with pytest.raises(ModelLoadError) as caught, PicklePermission().open(file, "it is a pickle"):
        raise AssertionError("it was opened")
    message = str(caught.value)
    assert message.startswith(f"{file}: it is a pickle, so loading it runs whatever code it holds")
    assert '{"name": "allow_pickle", "type": "BOOL", "value": "true"}' in message
    assert f'{{"name": "sha256", "type": "STRING", "value": "{digest}"}}' in message
    assert "--allow-pickle or SERVEGRAPH_ALLOW_PICKLE=1" in message


def test_permission_open_with_the_digest_gives_the_whole_file(file: Path) -> None:
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    for permission in (PicklePermission(True), PicklePermission(True, digest), PicklePermission(True, digest.upper())):
        with permission.open(file, "it is a pickle") as opened:
            assert pickle.load(opened) == {"a": 1}


def test_permission_another_digest_is_refused_even_where_pickles_are_allowed(file: Path) -> None:
    permission = PicklePermission(True, "0" * 64)
    with pytest.raises(ModelLoadError, match=rf"{file}: its SHA-256 is [0-9a-f]{{64}}, not 0{{64}}: it is not loaded"):
        permission.check(file, "it is a pickle")
    with pytest.raises(ModelLoadError, match="it is not loaded"):
        permission.check_digest(file)
    with pytest.raises(ModelLoadError, match="it is not loaded"), permission.open(file, "it is a pickle"):
        raise AssertionError("it was opened")


def test_permission_digest_alone_is_no_permission(file: Path) -> None:
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    with pytest.raises(ModelLoadError, match="the deployment does not allow that"):
        PicklePermission(None, digest).check(file, "it is a pickle")
    PicklePermission(None, digest).check_digest(file)


def test_permission_of_a_folder_goes_by_all_its_files(file: Path) -> None:
    permission = PicklePermission(True, tree_digest(file.parent))
    permission.check(file.parent, "it is code")
    (file.parent / "more").write_text("x")
    with pytest.raises(ModelLoadError, match="it is not loaded"):
        permission.check(file.parent, "it is code")


@pytest.mark.parametrize(("allow", "sha256"), [("yes", ""), (True, "abc"), (True, 5)])
def test_permission_that_is_none_is_an_error(allow: bool, sha256: str) -> None:
    with pytest.raises(ModelLoadError, match=r"allow_pickle is a BOOL|sha256 is 64 hexadecimal digits"):
        PicklePermission(allow, sha256)
