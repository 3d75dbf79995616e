"""Modules of component files: each file imports its own neighbours, whatever other folders hold."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from servegraph.serving.seldon import file_modules
from servegraph.serving.seldon.locate import find_component

Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Iterator[Write]:
    """Writes a module below a folder of its own; what was imported from there is forgotten in the end."""
    path, known = list(sys.path), dict(file_modules._folders)

    def write(file: str, code: str) -> Path:
        target = tmp_path / file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(code)
        return target

    yield write
    sys.path[:] = path
    file_modules._folders.clear()
    file_modules._folders.update(known)
    for name, module in list(sys.modules.items()):
        if str(tmp_path) in str(vars(module).get("__file__") or vars(module).get("__path__")):
            del sys.modules[name]


MODEL = "import fm_cfg\nclass Model:\n    value = fm_cfg.VALUE\n"


def test_each_file_imports_its_own_neighbour_of_one_name(write: Write, tmp_path: Path) -> None:
    for folder in "abc":
        write(f"{folder}/Model.py", MODEL)
        write(f"{folder}/fm_cfg.py", f"VALUE = {folder!r}\n")
    assert [find_component(f"{each}/Model.py", tmp_path).value for each in "abc"] == ["a", "b", "c"]
    assert sys.modules["fm_cfg"].VALUE == "a"  # whoever asks for it later gets the one that was there first
    write("b/Other.py", "import fm_cfg\nclass Other:\n    cfg = fm_cfg\n")
    other = find_component("b/Other.py", tmp_path)
    model = sys.modules[find_component("b/Model.py", tmp_path).__module__]
    assert other.cfg is vars(model)["fm_cfg"]  # what a folder got it keeps


def test_packages_of_one_name_are_taken_with_all_that_is_in_them(write: Write, tmp_path: Path) -> None:
    for folder in "ab":
        write(f"{folder}/Model.py", "from fm_lib.deep import VALUE\nimport fm_rest.x\nclass Model:\n"
                                    "    value = VALUE + fm_rest.x.VALUE\n")  # fmt: skip
        write(f"{folder}/fm_lib/__init__.py", "from fm_lib import deep\n")
        write(f"{folder}/fm_lib/deep.py", f"VALUE = {folder!r}\n")
        write(f"{folder}/fm_rest/x.py", f"VALUE = {folder.upper()!r}\n")
    assert [find_component(f"{each}/Model.py", tmp_path).value for each in "ab"] == ["aA", "bB"]


def test_neighbour_of_a_neighbour_is_of_the_same_folder(write: Write, tmp_path: Path) -> None:
    for folder in "ab":
        write(f"{folder}/Model.py", "from fm_near import VALUE\nclass Model:\n    value = VALUE\n")
        write(f"{folder}/fm_near.py", "from fm_far import VALUE\n")
        write(f"{folder}/fm_far.py", f"VALUE = {folder!r}\n")
    assert [find_component(f"{each}/Model.py", tmp_path).value for each in "ab"] == ["a", "b"]


def test_module_that_the_folder_has_not_is_shared(write: Write, tmp_path: Path) -> None:
    for folder in "ab":
        write(f"{folder}/Model.py", MODEL)
    write("a/fm_cfg.py", "VALUE = []\n")
    first, second = (find_component(f"{each}/Model.py", tmp_path) for each in "ab")
    assert first.value is second.value


def test_module_of_the_deployments_own_folder_hides_none(write: Write, tmp_path: Path) -> None:
    write("fm_top.py", MODEL)
    write("fm_cfg.py", "VALUE = 'top'\n")
    write("a/Model.py", MODEL)
    write("a/fm_cfg.py", "VALUE = 'a'\n")
    assert find_component("fm_top.Model", tmp_path).value == "top"
    assert find_component("a/Model.py", tmp_path).value == "a"


def test_file_that_fails_leaves_what_others_have(write: Write, tmp_path: Path) -> None:
    for folder in "ab":
        write(f"{folder}/Model.py", MODEL + ("" if folder == "a" else "raise LookupError('b')\n"))
        write(f"{folder}/fm_cfg.py", f"VALUE = {folder!r}\n")
    find_component("a/Model.py", tmp_path)
    with pytest.raises(LookupError):
        find_component("b/Model.py", tmp_path)
    assert sys.modules["fm_cfg"].VALUE == "a"


LATER = "class Model:\n    def predict(self, X):\n        from fm_cfg import VALUE\n        return VALUE\n"


@pytest.mark.parametrize("later", ["a", "b"])
def test_import_inside_a_function_that_cannot_be_told_apart_is_warned_of(
    write: Write, tmp_path: Path, caplog: Any, later: str
) -> None:
    for folder in "ab":
        write(f"{folder}/Model.py", LATER if folder == later else MODEL.replace("fm_cfg", "fm_else"))
        write(f"{folder}/fm_cfg.py", f"VALUE = {folder!r}\n")
        write(f"{folder}/fm_else.py", "VALUE = 1\n")
    with caplog.at_level(logging.WARNING):
        for folder in "abab":
            find_component(f"{folder}/Model.py", tmp_path)
    [message] = [r.getMessage() for r in caplog.records]
    assert "'fm_cfg'" in message
    assert str(tmp_path / "a") in message
    assert str(tmp_path / "b") in message
    assert "import it at the top" in message
    assert "package" in message


def test_import_inside_a_function_that_finds_the_right_one_is_not_warned_of(
    write: Write, tmp_path: Path, caplog: Any
) -> None:
    write("a/Model.py", "import fm_cfg\n" + LATER)  # it is in sys.modules already
    write("b/Model.py", MODEL)
    for folder in "ab":
        write(f"{folder}/fm_cfg.py", f"VALUE = {folder!r}\n")
    with caplog.at_level(logging.WARNING):
        first, _ = (find_component(f"{each}/Model.py", tmp_path) for each in "ab")
    assert first().predict(None) == "a"
    assert not caplog.records
