from __future__ import annotations

import pickle
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from servegraph.errors import GraphError, NotFoundError, SpecError
from servegraph.runtimes.source import find_functions, load_file, load_function, load_source

ECHO = """
import servegraph

class Echo:
    def do(self, body):
        return {"got": body}

fn = servegraph.new_function("echo")
graph = fn.set_topology("flow", engine="sync")
graph.to(class_name="Echo", name="echo").respond()
"""


@pytest.fixture(autouse=True)
def _clean_modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in set(sys.modules) - before:
        if name.startswith(("servegraph_file_", "servegraph_source_", "neighbour")):
            del sys.modules[name]


def write(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return str(path)


def test_load_file_gives_one_module_whose_classes_can_be_pickled(tmp_path: Path) -> None:
    path = write(tmp_path, "my code.py", "class A:\n    pass\n")
    module = load_file(path)
    assert load_file(tmp_path / "x" / ".." / "my code.py") is module
    assert module.__name__.startswith("servegraph_file_my_code_")
    assert isinstance(pickle.loads(pickle.dumps(module.A())), module.A)


def test_load_file_has_the_same_name_in_another_process(tmp_path: Path) -> None:
    path = write(tmp_path, "m.py", "")
    code = f"from servegraph.runtimes.source import load_file; print(load_file({path!r}).__name__)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == load_file(path).__name__


def test_load_file_finds_its_neighbours_also_later(tmp_path: Path) -> None:
    write(tmp_path, "neighbour_a.py", "A = 1\n")
    write(tmp_path, "neighbour_b.py", "B = 2\n")
    path = write(
        tmp_path, "f.py", "import neighbour_a\ndef late():\n    import neighbour_b\n    return neighbour_b.B\n"
    )
    module = load_file(path)
    assert module.neighbour_a.A == 1
    assert module.late() == 2


def test_load_file_that_raises_shows_the_users_line_and_is_not_kept(tmp_path: Path) -> None:
    path = write(tmp_path, "bad.py", "def f():\n    raise KeyError('mine')\nf()\n")
    with pytest.raises(KeyError, match="mine") as caught:
        load_file(path)
    frames = traceback.extract_tb(caught.value.__traceback__)
    assert (frames[-1].filename, frames[-1].lineno) == (path, 2)
    write(tmp_path, "bad.py", "x = 1\n")
    assert load_file(path).x == 1


def test_load_file_with_a_syntax_error_names_the_line(tmp_path: Path) -> None:
    with pytest.raises(SyntaxError) as caught:
        load_file(write(tmp_path, "bad.py", "x = 1\ny = (\n"))
    assert caught.value.lineno == 2


def test_load_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match=r"no\.py"):
        load_file(tmp_path / "no.py")


def test_load_file_of_an_imported_module_is_that_module() -> None:
    assert load_file(__file__) is sys.modules[__name__]


def test_load_source_gives_one_module_per_text_and_shows_its_lines() -> None:
    text = "def f():\n    raise ValueError('here')\n"
    module = load_source("mine", text)
    assert load_source("other", text) is module
    assert load_source("mine", text + "\n") is not module
    with pytest.raises(ValueError, match="here") as caught:
        module.f()
    frame = traceback.extract_tb(caught.value.__traceback__)[-1]
    assert (frame.filename, frame.lineno) == ("<function mine>", 2)


def test_find_functions_lists_each_once(tmp_path: Path) -> None:
    module = load_file(write(tmp_path, "f.py", ECHO + "again = fn\nother = servegraph.new_function('o')\n"))
    assert list(find_functions(module)) == ["fn", "other"]


def test_load_function_of_a_file_resolves_names_in_it(tmp_path: Path) -> None:
    path = write(tmp_path, "f.py", ECHO)
    function = load_function(path)
    assert function.spec.filename == path
    assert function.spec.workdir == str(tmp_path)
    with function.to_mock_server() as server:
        assert server.test(body={"a": 1}) == {"got": {"a": 1}}


def test_load_function_with_relative_model_paths_starts_from_the_files_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "code/models/m.txt", "weights")
    path = write(
        tmp_path,
        "code/f.py",
        """
import pathlib

import servegraph

class M(servegraph.V2ModelServer):
    def load(self):
        path, _ = self.get_model(".txt")
        self.model = pathlib.Path(path).read_text("utf-8")

    def predict(self, request):
        return [self.model]

fn = servegraph.new_function("m")
fn.add_model("m", class_name=M, model_path="models/m.txt")
""",
    )
    monkeypatch.chdir(tmp_path)
    with load_function(path).to_mock_server() as server:
        assert server.test("/v2/models/m/infer", {"inputs": [1]})["outputs"] == ["weights"]


TWO = ECHO + "second = servegraph.new_function('two')\n\ndef make():\n    return servegraph.new_function('made')\n"


@pytest.mark.parametrize(("part", "name"), [("fn", "echo"), ("second", "two"), ("two", "two"), ("make", "made")])
def test_load_function_of_several_takes_the_named_one(part: str, name: str, tmp_path: Path) -> None:
    path = write(tmp_path, "f.py", TWO)
    assert load_function(f"{path}:{part}").name == name
    assert load_function(path, part).name == name


@pytest.mark.parametrize(
    ("suffix", "message"),
    [
        ("", r"defines 2 functions: say which one: .*f\.py:fn, .*f\.py:second"),
        (":secnd", "did you mean 'second'"),
        (":", "behind the colon"),
        (":ECHO", "has no function 'ECHO'"),
        (":Echo", "not a function"),
    ],
)
def test_load_function_that_is_not_clear_says_what_to_write(suffix: str, message: str, tmp_path: Path) -> None:
    path = write(tmp_path, "f.py", TWO)
    with pytest.raises(NotFoundError, match=message):
        load_function(path + suffix)


def test_load_function_of_a_file_without_one_says_what_to_define(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"fn = servegraph\.new_function"):
        load_function(write(tmp_path, "f.py", "x = 1\n"))


def test_load_function_of_a_missing_file_names_near_ones(tmp_path: Path) -> None:
    write(tmp_path, "function.py", ECHO)
    with pytest.raises(NotFoundError, match=r"did you mean 'function\.py'"):
        load_function(str(tmp_path / "functon.py"))


@pytest.mark.parametrize("target", ["nothing", "f.txt"])
def test_load_function_of_something_else_lists_the_forms(target: str, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"FILE\.py"):
        load_function(target)


def test_load_function_of_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"\.ipynb"):
        load_function(write(tmp_path, "f.txt", "x"))


def test_load_function_of_a_module_imports_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "neighbour_mod.py", TWO)
    monkeypatch.chdir(tmp_path)
    assert load_function("neighbour_mod:fn").name == "echo"
    assert load_function("neighbour_mod:make").name == "made"
    with pytest.raises(GraphError, match="no attribute 'nope'"):
        load_function("neighbour_mod:nope")
    with pytest.raises(NotFoundError, match="not a function"):
        load_function("neighbour_mod:Echo")


def test_load_function_of_a_folder_takes_its_function_file(tmp_path: Path) -> None:
    write(tmp_path, "function.py", ECHO)
    assert load_function(str(tmp_path)).name == "echo"


def test_load_function_of_an_empty_folder_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"function\.py, function\.yaml"):
        load_function(str(tmp_path))


def test_load_function_of_a_spec_reads_functions_and_graphs(tmp_path: Path) -> None:
    graph = {"kind": "router", "routes": {"m": {"class_name": "servegraph.V2ModelServer"}}}
    bare = write(tmp_path, "my_graph.json", _json(graph))
    assert load_function(bare).name == "my-graph"
    assert load_function(bare, "given").name == "given"
    whole = write(tmp_path, "s/function.yaml", "kind: serving\nmetadata: {name: whole}\nspec: {}\n")
    assert load_function(str(tmp_path / "s")).name == "whole"
    with pytest.raises(NotFoundError, match="'whole', not 'other'"):
        load_function(f"{whole}:other")
    assert load_function(write(tmp_path, "t/function.yaml", "steps: {}\n")).name == "t"


def test_load_function_of_a_broken_spec_names_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "g.yaml", "stepz: {}\n")
    with pytest.raises(SpecError, match=r"g\.yaml: .*stepz"):
        load_function(path)


def test_load_function_of_a_notebook_runs_its_cells(tmp_path: Path) -> None:
    cells = [{"cell_type": "code", "metadata": {}, "source": ECHO.splitlines(keepends=True), "outputs": []}]
    path = write(tmp_path, "n.ipynb", _json({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells}))
    function = load_function(path)
    assert (function.name, function.spec.filename) == ("echo", path)
    with function.to_mock_server() as server:
        assert server.test(body=[1]) == {"got": [1]}


def _json(value: object) -> str:
    from servegraph import jsoncodec

    return jsoncodec.dumps(value).decode()
