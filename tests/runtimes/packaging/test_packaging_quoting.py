"""What is written into a Dockerfile without quotes is checked first."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servegraph.errors import SettingsError
from servegraph.runtimes.packaging.quoting import exec_form, image_reference, python_version, user_id

IMAGES = [
    "python",
    "python:3.11-slim",
    "condaforge/miniforge3:24.11.3-0",
    "registry.example.com:5000/team/base_image:v1.2",
    "localhost:5000/x",
    "ghcr.io/a/b@sha256:" + "0" * 64,
    "python:3.12@sha256:" + "ab" * 32,
]
NO_IMAGES = [
    "", "-x", "--platform=linux/amd64", "python 3", "python\nRUN rm -rf /", "Python", "a//b", "a:", "a:b:c", "$X",
    "python:3.11 AS base", "a@sha256:00", "https://example.com/a", "é", "a" * 600, "python\u2028", "python\n",
]  # fmt: skip


@pytest.mark.parametrize("text", IMAGES)
def test_name_of_an_image_is_taken_as_it_is(text: str) -> None:
    assert image_reference(text, "--base-image") == text


@pytest.mark.parametrize("text", NO_IMAGES)
def test_what_is_no_name_of_an_image_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="--base-image takes the name of an image"):
        image_reference(text, "--base-image")


@pytest.mark.parametrize("text", ["3.11", "3.12", "3.13", "3.11.7"])
def test_version_of_python_is_taken_as_it_is(text: str) -> None:
    assert python_version(text) == text


@pytest.mark.parametrize("text", ["3", "3.11-slim", "3.11\n", "latest", "3.x", " 3.11", "2.7", "\u0663.11"])
def test_what_is_no_version_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="--python takes a version such as"):
        python_version(text)


def test_python_that_is_too_old_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"servegraph runs on Python 3\.11 and later, not on 3\.7"):
        python_version("3.7")


@pytest.mark.parametrize(
    ("text", "user"), [("8888", "8888:0"), ("1000:1000", "1000:1000"), ("0", "0:0"), ("007", "7:0")]
)
def test_user_is_a_number_with_a_group(text: str, user: str) -> None:
    assert user_id(text) == user


@pytest.mark.parametrize("text", ["", "root", "-1", "1:", "1:2:3", "1 ", "1\n", "99999999999", "4294967296", "\u0661"])
def test_user_that_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="--user takes a number"):
        user_id(text)


@given(st.lists(st.text(max_size=20).filter(lambda text: text.isprintable()), max_size=5))
def test_arguments_come_out_of_the_exec_form_as_they_went_in(arguments: list[str]) -> None:
    written = exec_form(arguments)
    assert json.loads(written) == arguments
    assert "\n" not in written
