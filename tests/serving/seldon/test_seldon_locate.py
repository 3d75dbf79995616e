"""How a component is found by its name, and made with its parameters."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from servegraph.errors import GraphError
from servegraph.serving.seldon.locate import class_name, component_of, find_component, make_component
from servegraph.serving.seldon.servers import SKLearnServer

CODE = """
from pathlib import Path

LOADED = []
LOADED.append(1)

class {name}:
    where = Path(__file__).name

    class Inner:
        pass

    def predict(self, X, names):
        return X

def make():
    return {name}()
"""


@pytest.fixture
def write(tmp_path: Path) -> Iterator[Callable[[str, str], Path]]:
    """Writes a module below a folder of its own; what was imported from there is forgotten in the end."""
    modules, path = set(sys.modules), list(sys.path)

    def write(file: str, code: str) -> Path:
        target = tmp_path / file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(code)
        return target

    yield write
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", None)):
            del sys.modules[name]


Write = Callable[[str, str], Path]


@pytest.mark.parametrize(
    ("file", "name", "found"),
    [
        ("LocateOne.py", "LocateOne", "LocateOne"),
        ("locate_two.py", "locate_two.Model", "Model"),
        ("locate_pkg/deep/model.py", "locate_pkg.deep.model.Model", "Model"),
        ("locate_pkg2/model.py", "locate_pkg2.model:Model", "Model"),
        ("locate_three.py", "locate_three:Model.Inner", "Inner"),
        ("Model.py", "Model.py", "Model"),
        ("Model.py", "Model.py:Model", "Model"),
        ("Model.py", "Model.py:Model.Inner", "Inner"),
        ("sub/Model.py", "sub/Model.py:Model", "Model"),
    ],
)
def test_each_form_of_a_name_finds_the_class(write: Write, tmp_path: Path, file: str, name: str, found: str) -> None:
    write(file, CODE.format(name="LocateOne" if file == "LocateOne.py" else "Model"))
    factory = find_component(name, tmp_path)
    assert (factory.__name__, class_name(name)) == (found, found if ":" not in name else name.rpartition(":")[2])


def test_file_of_an_absolute_path_is_found_from_anywhere(write: Write) -> None:
    file = write("Model.py", CODE.format(name="Model"))
    assert find_component(f"{file}:Model") is find_component(str(file))


def test_file_is_imported_once_and_files_of_one_name_are_apart(write: Write, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write(f"{folder}/Model.py", CODE.format(name="Model"))
    first, again, other = (find_component("Model.py", tmp_path / folder) for folder in ("a", "a", "b"))
    assert first is again
    assert first is not other
    assert sys.modules[first.__module__].LOADED == [1]


def test_module_beside_a_file_can_be_imported_by_it(write: Write, tmp_path: Path) -> None:
    write("locate_beside.py", "VALUE = 7\n")
    write("Model.py", "from locate_beside import VALUE\nclass Model:\n    value = VALUE\n")
    assert find_component("Model.py", tmp_path).value == 7


def test_folder_comes_behind_what_is_installed(write: Write, tmp_path: Path) -> None:
    write("colorsys.py", "class colorsys: pass\n")
    assert find_component("colorsys.rgb_to_hsv", tmp_path).__module__ == "colorsys"
    find_component("colorsys.hsv_to_rgb", tmp_path)
    assert sys.path[-1] == str(tmp_path)
    assert sys.path.count(str(tmp_path)) == 1


@pytest.mark.parametrize("name", ["SKLEARN_SERVER", "SKLearnServer", "SKLearnServer.SKLearnServer"])
def test_packaged_server_has_a_name(name: str) -> None:
    assert find_component(name) is SKLearnServer


def test_own_module_wins_over_a_packaged_server_of_its_name(write: Write, tmp_path: Path) -> None:
    write("SKLearnServer.py", CODE.format(name="SKLearnServer"))
    assert find_component("SKLearnServer", tmp_path).where == "SKLearnServer.py"


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("Nowhere", "there is no module 'Nowhere' for the component 'Nowhere', neither installed nor in {folder}"),
        ("nowhere.mod.Model", "there is no module 'nowhere' for the component 'nowhere.mod.Model'"),
        ("json.nowhere.Model", "there is no module 'json.nowhere' for the component 'json.nowhere.Model'"),
        ("a..b", "there is no module 'a' for the component 'a..b'"),
        ("Nowhere.py", "there is no file '{folder}/Nowhere.py'"),
        ("sub/Nowhere.py:Model", "there is no file '{folder}/sub/Nowhere.py'"),
        ("", "'' is no name of a component: write Name, package.module.Name or File.py:Name"),
        (".Model", "'.Model' is no name of a component"),
        ("..Model", "'..Model' is no name of a component"),
    ],
)
def test_module_that_is_not_there_is_told(tmp_path: Path, name: str, problem: str) -> None:
    path = list(sys.path)
    try:
        with pytest.raises(GraphError) as caught:
            find_component(name, tmp_path)
    finally:
        sys.path[:] = path
    assert problem.format(folder=tmp_path) in str(caught.value)


def test_class_that_is_not_there_is_told_with_the_nearest_one(write: Write, tmp_path: Path) -> None:
    file = write("locate_four.py", CODE.format(name="Model") + "class Other: pass\nfrom pathlib import PurePath\n")
    for name, missing in (("locate_four", "locate_four"), ("locate_four.Modal", "Modal")):
        with pytest.raises(GraphError) as caught:
            find_component(name, tmp_path)
        assert f"component {name!r}: {file} has no {missing!r}; " in str(caught.value)
        assert str(caught.value).endswith("valid: Model, Other")
    assert "did you mean 'Model'?" in str(caught.value)
    with pytest.raises(GraphError, match=r"has no 'Model.Outer'; "):
        find_component(f"{file}:Model.Outer")
    with pytest.raises(GraphError, match=r"cannot import 'locate_four:Modal'"):
        find_component("locate_four:Modal", tmp_path)


def test_module_that_lacks_a_module_of_its_own_says_so(write: Write, tmp_path: Path) -> None:
    write("locate_five.py", "import a_package_that_nobody_has\n")
    with pytest.raises(ModuleNotFoundError, match="a_package_that_nobody_has"):
        find_component("locate_five.Model", tmp_path)
    file = write("Model.py", "import a_package_that_nobody_has\n")
    for _ in range(2):  # a module that failed is not kept
        with pytest.raises(ModuleNotFoundError, match="a_package_that_nobody_has"):
            find_component(str(file))


def test_error_of_a_module_is_raised_as_it_is(write: Write, tmp_path: Path) -> None:
    write("locate_six.py", "raise ZeroDivisionError('at import')\n")
    with pytest.raises(ZeroDivisionError, match="at import"):
        find_component("locate_six.Model", tmp_path)


def test_lack_of_flask_has_a_hint(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flask", None)
    write("locate_seven.py", "import flask\n")
    write("Model.py", "from flask import request\n")
    for name in ("locate_seven.Model", "Model.py"):
        with pytest.raises(ImportError) as caught:
            find_component(name, tmp_path)
        assert caught.value.__notes__ == ["Components that use Flask need it: pip install 'servegraph[flask]'"]


# -- making ------------------------------------------------------------------------------------------------------------


class Plain:
    def __init__(self, a: int = 1, b: str = "b") -> None:
        self.made = (a, b)


class Needs:
    def __init__(self, model_uri: str) -> None:
        self.made = (model_uri,)


class Pushed:
    def __init__(self, push_frequency: int = 0) -> None:
        self.made = (push_frequency,)


class Anything:
    def __init__(self, **kwargs: Any) -> None:
        self.made = tuple(sorted(kwargs.items()))


class Fails:
    def __init__(self, a: int = 1) -> None:
        raise TypeError("inside of the constructor")


@pytest.mark.parametrize(
    ("factory", "parameters", "made"),
    [
        (Plain, {}, (1, "b")),
        (Plain, {"a": 2}, (2, "b")),
        (Plain, {"a": 2, "push_frequency": 5}, (2, "b")),
        (Pushed, {"push_frequency": 5}, (5,)),
        (Anything, {"push_frequency": 5, "a": 1}, (("a", 1), ("push_frequency", 5))),
        (lambda a=1: Plain(a), {"a": 3, "push_frequency": 5}, (3, "b")),
    ],
)
def test_component_is_made_with_its_parameters(factory: Any, parameters: dict[str, Any], made: Any) -> None:
    assert make_component(factory, parameters).made == made
    assert component_of(factory, parameters).made == made


@pytest.mark.parametrize(
    ("factory", "parameters", "problem"),
    [
        (Plain, {"c": 1, "a": 2}, r"Plain cannot be made with parameters c, a: .*unexpected keyword argument 'c'"),
        (Needs, {}, r"Needs cannot be made with parameters none: .*missing 1 required .*'model_uri'"),
        (object, {"a": 1}, r"object cannot be made with parameters a: "),
    ],
)
def test_parameters_that_a_class_does_not_take_are_told(factory: Any, parameters: Any, problem: str) -> None:
    with pytest.raises(GraphError, match=problem):
        make_component(factory, parameters)


def test_type_error_inside_a_constructor_is_raised_as_it_is() -> None:
    with pytest.raises(TypeError, match=r"^inside of the constructor$"):
        make_component(Fails, {"a": 1})


def test_object_is_the_component_itself_and_takes_no_parameters() -> None:
    user_object = Plain()
    assert make_component(user_object, {}) is user_object
    assert make_component(user_object, {"push_frequency": 5}) is user_object
    with pytest.raises(GraphError, match="Plain is an object already: parameters are for a class"):
        make_component(user_object, {"a": 1})


def test_object_that_can_be_called_and_predicts_is_the_component_itself() -> None:
    class Model:
        def __call__(self) -> Any:
            raise AssertionError("called")

        def predict(self, X: Any, names: Any) -> Any:
            return X

    model = Model()
    assert component_of(model, {}) is model


def test_component_of_a_name_is_made(write: Write, tmp_path: Path) -> None:
    write("Model.py", "class Model:\n    def __init__(self, a):\n        self.a = a\n")
    assert component_of("Model.py", {"a": 5}, tmp_path).a == 5
    write("Made.py", CODE.format(name="Model"))
    assert type(component_of("Made.py:make", {}, tmp_path)).__name__ == "Model"


@pytest.mark.parametrize(
    ("reference", "name"),
    [("Model", "Model"), ("a.b.Model", "Model"), ("a.b:Model", "Model"), ("x/My.py", "My"), ("x/My.py:Model", "Model")],
)
def test_class_name_is_the_last_part(reference: str, name: str) -> None:
    assert class_name(reference) == name
