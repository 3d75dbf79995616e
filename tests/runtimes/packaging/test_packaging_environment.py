"""The variables of an image: as s2i reads them, and nothing that a Dockerfile cannot hold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from dockerfile_double import parse
from hypothesis import given
from hypothesis import strategies as st

from servegraph.errors import SettingsError
from servegraph.runtimes.packaging.environment import (
    Variable,
    check_component,
    check_conda,
    merged,
    read_environment,
    variable,
)
from servegraph.runtimes.packaging.quoting import assignments


def read(tmp_path: Path, text: str | bytes) -> dict[str, str]:
    file = tmp_path / "environment"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return {each.name: each.value for each in read_environment(file)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("MODEL_NAME=MyModel\nPERSISTENCE=0\n", {"MODEL_NAME": "MyModel", "PERSISTENCE": "0"}, id="plain"),
        pytest.param("A=1", {"A": "1"}, id="no line end"),
        pytest.param("A=1\r\nB=2\r\n", {"A": "1", "B": "2"}, id="windows"),
        pytest.param("\n\n# A=0\n  # B=0\n  \nA=1\n\n", {"A": "1"}, id="comments and empty lines"),
        pytest.param("PERSISTENCE =0\n A = b c \n", {"PERSISTENCE": "0", "A": "b c"}, id="space around"),
        pytest.param("A=b=c\nURL=http://x/?a=1&b=2#f\n", {"A": "b=c", "URL": "http://x/?a=1&b=2#f"}, id="more signs"),
        pytest.param("A=\n", {"A": ""}, id="empty value"),
        pytest.param("A=\"b c\"\nB='d'\n", {"A": '"b c"', "B": "'d'"}, id="quotes are part of the value"),
        pytest.param("A=1\nA=2\n", {"A": "2"}, id="twice"),
        pytest.param("A=naïve ☃ \u2028 x\n".encode(), {"A": "naïve ☃ \u2028 x"}, id="unicode is one line"),
        pytest.param(b"\xef\xbb\xbfA=1\n", {"A": "1"}, id="byte order mark"),
        pytest.param("", {}, id="empty"),
    ],
)
def test_environment_file_is_read_as_s2i_reads_it(text: str | bytes, expected: dict[str, str], tmp_path: Path) -> None:
    assert read(tmp_path, text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A=1\nMODEL_NAME MyModel\n", "environment:2: 'MODEL_NAME MyModel' is no variable: write NAME=VALUE"),
        ("export A=1\n", "environment:1: 'export A' is no name of a variable"),
        ("=1\n", "environment:1: '' is no name"),
        ("A-B=1\n", "environment:1: 'A-B' is no name"),
        ("1A=1\n", "environment:1: '1A' is no name"),
        ("É=1\n", "environment:1: 'É' is no name"),
        ("A=1\n\nB=a\x00b\n", r"environment:3: the value of B holds '\x00', which a Dockerfile cannot"),
        ("A=a\x1bb\n", r"environment:1: the value of A holds '\x1b'"),
        (b"A=\xff\n", "environment is not UTF-8: byte 2 is 0xff"),
    ],
)
def test_bad_line_is_told_with_file_and_line(text: str | bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=re.escape(message)):
        read(tmp_path, text)


def test_environment_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="nowhere cannot be read: No such file"):
        read_environment(tmp_path / "nowhere")


def test_later_group_replaces_an_earlier_one_and_only_one_file_is_warned_about() -> None:
    first = [Variable("A", "1", "f:1"), Variable("A", "2", "f:2"), Variable("B", "1", "f:3")]
    found, warnings = merged([first, [Variable("B", "9", "--env")]])
    assert {name: each.value for name, each in found.items()} == {"A": "2", "B": "9"}
    assert warnings == ["f:2: A is set in f:1 too; the last one counts"]


@pytest.mark.parametrize(
    ("name", "value", "warned"),
    [
        ("EXTRA_INDEX_URL", "https://me:hunter2@pypi.example/simple", True),
        ("DB_PASSWORD", "x", True),
        ("AWS_SECRET_ACCESS_KEY", "x", True),
        ("DB_PASSWORD", "", False),
        ("EXTRA_INDEX_URL", "https://pypi.example/simple", False),
        ("TOKENIZER", "bpe", False),
        ("MODEL_NAME", "MyModel", False),
    ],
)
def test_secret_in_an_image_is_warned_about(name: str, value: str, warned: bool) -> None:
    _, warnings = merged([[Variable(name, value, "f:1")]])
    assert bool(warnings) == warned
    assert "hunter2" not in "".join(warnings)


def test_wrong_service_type_names_the_nearest() -> None:
    with pytest.raises(
        SettingsError, match=r"f:1: there is no SERVICE_TYPE 'MODL'; did you mean 'MODEL'\? valid: COMB"
    ):
        check_component({"SERVICE_TYPE": Variable("SERVICE_TYPE", "MODL", "f:1")})


@pytest.mark.parametrize("value", ["yes", "-1", "0 --debug", "$X", ""])
def test_persistence_that_is_no_number_is_refused(value: str) -> None:
    with pytest.raises(SettingsError, match="f:1: PERSISTENCE is 0 or 1"):
        check_component({"PERSISTENCE": Variable("PERSISTENCE", value, "f:1")})


def test_api_type_that_is_not_served_is_a_warning() -> None:
    assert check_component({"API_TYPE": Variable("API_TYPE", "GRPC", "f:1")}) == []
    assert check_component({"API_TYPE": Variable("API_TYPE", "FBS", "f:1")}) == [
        "f:1: there is no API_TYPE 'FBS'; REST and gRPC are served"
    ]


@pytest.mark.parametrize("value", ["-n", "a b", "../x", "$HOME", ""])
def test_conda_environment_with_no_name_is_refused(value: str) -> None:
    with pytest.raises(SettingsError, match="CONDA_ENV_NAME is letters"):
        check_conda({"CONDA_ENV_NAME": Variable("CONDA_ENV_NAME", value, "f:1")})


@given(st.text(max_size=40))
def test_every_value_comes_out_of_the_dockerfile_as_it_went_in_or_is_refused(value: str) -> None:
    try:
        each = variable(f"NAME={value}", "--env")
    except SettingsError:
        assert re.search(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]", value)
        return
    assert each.value == value.strip()
    written = assignments("ENV", {"BEFORE": "$x", "NAME": each.value, "BEHIND": "\\"})
    assert parse(f"FROM base\n{written}").env == {"BEFORE": "$x", "NAME": each.value, "BEHIND": "\\"}


NASTY = st.text(alphabet="\"'\\$`{}#=;&|<>()!*?[]~ \tabNAME-é☃\x85\u2028", max_size=30)


@given(st.dictionaries(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True), NASTY, max_size=5))
def test_values_full_of_signs_stay_in_their_places(values: dict[str, str]) -> None:
    text = "FROM base\n" + assignments("ENV", values) + "USER 1\n"
    parsed = parse(text)
    assert parsed.env == values
    assert [name for name, _ in parsed.instructions] == ["FROM", *(["ENV"] if values else []), "USER"]
