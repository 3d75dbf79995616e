"""Ignore files mean what they mean to Docker."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servegraph.errors import SettingsError
from servegraph.runtimes.packaging.ignore import Ignored, default_patterns, patterns_of, read_patterns


def ignored(tmp_path: Path, *lines: str) -> Ignored:
    file = tmp_path / ".dockerignore"
    file.write_text("\n".join(lines), encoding="utf-8")
    return Ignored(read_patterns(file))


@pytest.mark.parametrize(
    ("lines", "out", "kept"),
    [
        pytest.param(["*/temp*"], ["a/temp", "a/temp.txt", "a/temporary/x"], ["temp", "a/b/temp"], id="one level"),
        pytest.param(["*/*/temp*"], ["a/b/temp.txt"], ["a/temp"], id="two levels"),
        pytest.param(["temp?"], ["tempa", "tempb/x"], ["temp", "tempab", "temp/"], id="one character"),
        pytest.param(["**/*.go"], ["x.go", "a/x.go", "a/b/x.go"], ["x.py", "a/go"], id="any level"),
        pytest.param(["*.md", "!README.md"], ["a.md"], ["README.md", "a/b.md"], id="exception"),
        pytest.param(["*.md", "!R*.md", "README-secret.md"], ["README-secret.md"], ["README.md"], id="last one wins"),
        pytest.param(["data"], ["data", "data/x", "data/a/b"], ["data2", "a/data"], id="folder with all in it"),
        pytest.param(["/data/", "./x"], ["data/x", "x"], ["a/x"], id="slashes around mean nothing"),
        pytest.param(["*", "!src"], ["a", "b/c"], ["src", "src/a/b"], id="only what is named"),
        pytest.param(["a", "!a/b"], ["a/c", "a"], ["a/b", "a/b/d"], id="exception within a folder"),
        pytest.param(["a/**"], ["a/b", "a/b/c"], ["b"], id="all below"),
        pytest.param(["a/**/z"], ["a/z", "a/b/z", "a/b/c/z"], ["a/zz", "z"], id="levels between"),
        pytest.param(["[a-c]?", "x[^0-9]"], ["b1", "xy"], ["d1", "x1"], id="groups"),
        pytest.param([r"\*", r"a\?b"], ["*", "a?b"], ["x", "axb"], id="escaped"),
        pytest.param(["# x", "", "  ", "  y  "], ["y"], ["x", "# x"], id="comments"),
        pytest.param(["a.b+c(d)"], ["a.b+c(d)"], ["axb+c(d)"], id="signs of regular expressions"),
        pytest.param(["é*"], ["école"], ["ecole"], id="other letters"),
    ],
)
def test_patterns_leave_out_what_docker_leaves_out(
    lines: list[str], out: list[str], kept: list[str], tmp_path: Path
) -> None:
    leaves_out = ignored(tmp_path, *lines)
    assert {path: leaves_out(path) for path in out} == dict.fromkeys(out, True)
    assert {path: leaves_out(path) for path in kept} == dict.fromkeys(kept, False)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("[a", "'[' is never closed"),
        ("[]a]", "needs a"),
        ("[z-a]", "z-a is no range"),
        ("a\\", "nothing follows"),
        ("../x", "leads out of the folder"),
        ("a/../../b", "leads out of the folder"),
        ("!", "write a pattern behind the '!'"),
    ],
)
def test_line_that_is_no_pattern_is_told_with_its_place(line: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=re.escape(".dockerignore:2: ") + ".*" + re.escape(reason)):
        ignored(tmp_path, "x", line)


def test_folder_is_skipped_whole_only_if_nothing_in_it_is_kept(tmp_path: Path) -> None:
    leaves_out = ignored(tmp_path, "a", "b", "!b/x/y", "c", "!c*/z")
    assert leaves_out.whole("a")
    assert not leaves_out.whole("b")
    assert not leaves_out.whole("b/x")
    assert leaves_out.whole("b/w")
    assert not leaves_out.whole("c")
    assert not leaves_out.whole("d")
    assert not ignored(tmp_path, "a", "!**/keep").whole("a/b")


def test_pattern_means_the_same_one_folder_further_up(tmp_path: Path) -> None:
    lines = ["*.md", "!README.md", "**/secret", "a/*"]
    here = ignored(tmp_path, *lines)
    above = ignored(tmp_path, *(pattern.written("source") for pattern in here.patterns))
    for path in ["x.md", "README.md", "q/secret/z", "a/b", "b"]:
        assert above(f"source/{path}") == here(path)


def test_defaults_keep_out_caches_and_secrets_but_no_code() -> None:
    leaves_out = Ignored(default_patterns())
    for path in [
        ".git/config",
        ".s2i/environment",
        "a/__pycache__/b.pyc",
        ".venv/bin/python",
        "x/.env",
        ".aws/credentials",
    ]:
        assert leaves_out(path), path
    for path in ["MyModel.py", "model.joblib", "before-run", "environment.py", "env/x.py", "licenses/a", "a/.keep"]:
        assert not leaves_out(path), path


@given(st.text(alphabet="ab*?[]^-\\!/.é ", max_size=12), st.text(alphabet="ab/.é", min_size=1, max_size=8))
def test_any_line_is_a_pattern_or_an_error_with_its_place(line: str, path: str) -> None:
    try:
        patterns = patterns_of(line, "f")
    except SettingsError as exc:
        told = str(exc)
    else:
        told = "f:1: "
        leaves_out = Ignored(patterns)
        assert leaves_out(path) in (True, False)
        assert not leaves_out.whole(path) or leaves_out(f"{path}/below")
    assert told.startswith("f:1: ")
