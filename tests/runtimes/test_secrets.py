from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import servegraph
from servegraph.errors import SettingsError
from servegraph.runtimes.secrets import _lines, read_secrets


def test_secrets_inline_are_taken_as_they_are() -> None:
    assert read_secrets("inline", {"TOKEN": "t0p"}) == {"TOKEN": "t0p"}


def test_secrets_of_a_file_are_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "secrets.env"
    path.write_text("# comment\n\nTOKEN = a=b \nexport QUOTED='two words'\nEMPTY=\n", "utf-8")
    assert read_secrets("file", path) == {"TOKEN": "a=b", "QUOTED": "two words", "EMPTY": ""}


@pytest.mark.parametrize("names", ["DB_PASSWORD, OTHER", ["DB_PASSWORD", "OTHER"]])
def test_secrets_of_the_environment_are_read_by_name(names: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_PASSWORD", "x1")
    monkeypatch.setenv("OTHER", "x2")
    assert read_secrets("env", names) == {"DB_PASSWORD": "x1", "OTHER": "x2"}


def test_secrets_missing_in_the_environment_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOT_THERE", raising=False)
    with pytest.raises(SettingsError, match="no variable 'NOT_THERE'"):
        read_secrets("env", "NOT_THERE")


def test_secrets_of_an_unknown_kind_name_the_kinds() -> None:
    with pytest.raises(SettingsError, match="did you mean 'inline'"):
        read_secrets("inlin", {})


@pytest.mark.parametrize(
    ("text", "message"),
    [("hunter2", "line 1: write NAME=value"), ("=hunter2", "line 1"), ("A=hunter2\nA=hunter2", "line 2: 'A' is given")],
)
def test_secrets_file_that_is_wrong_names_the_line_and_no_value(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text(text, "utf-8")
    with pytest.raises(SettingsError, match=message) as caught:
        read_secrets("file", str(path))
    assert "hunter2" not in str(caught.value)


def test_secrets_file_that_is_no_text_shows_no_bytes(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_bytes(b"A=hunter2\xff")
    with pytest.raises(SettingsError, match="not UTF-8") as caught:
        read_secrets("file", path)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_secrets_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="nowhere"):
        read_secrets("file", tmp_path / "nowhere")


@pytest.mark.parametrize("source", [["A"], {"A": 5}, {1: "hunter2"}, None])
def test_secrets_inline_of_another_shape_are_refused_without_values(source: Any) -> None:
    with pytest.raises(SettingsError) as caught:
        read_secrets("inline", source)
    assert "hunter2" not in str(caught.value)


def test_secrets_reach_the_context_and_no_spec() -> None:
    function = servegraph.new_function("f").with_secrets("inline", {"TOKEN": "hunter2"})
    assert function.new_context().get_secret("TOKEN") == "hunter2"


_NAMES = st.from_regex(r"[A-Z_][A-Z0-9_]{0,9}", fullmatch=True)
_VALUES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=20).map(str.strip)


@given(st.dictionaries(_NAMES, _VALUES.filter(lambda v: not v or v[0] not in "'\""), max_size=5))
def test_secrets_of_a_file_come_back_as_written(secrets: dict[str, str]) -> None:
    text = "".join(f"{name}={value}\n" for name, value in secrets.items())
    assert _lines(text, "f") == secrets
