"""Imports named by strings, with errors that tell what is missing where."""

from __future__ import annotations

import collections
import json
import os.path
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from servegraph.errors import GraphError, MissingExtraError
from servegraph.importing import import_extra, import_object


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An importable package ``wares`` of a user, forgotten again after the test."""
    folder = tmp_path / "wares"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "models.py").write_text("class Fast:\n    class Inner:\n        pass\n    def run(self): ...\n")
    (folder / "broken.py").write_text("import a_package_nobody_has\n")
    (folder / "half.py").write_text("import wares.not_there\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield folder
    for name in [n for n in sys.modules if n.split(".")[0] == "wares"]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("json:dumps", json.dumps),
        ("json.dumps", json.dumps),
        ("os.path:join", os.path.join),
        ("os.path.join", os.path.join),
        ("collections:OrderedDict.fromkeys", collections.OrderedDict.fromkeys),
        ("collections.OrderedDict.fromkeys", collections.OrderedDict.fromkeys),
        ("os.path", os.path),
    ],
)
def test_import_object_of_a_reference_is_the_object(reference: str, expected: object) -> None:
    assert import_object(reference) == expected


@pytest.mark.parametrize("reference", ["wares.models:Fast.Inner", "wares.models.Fast.Inner"])
def test_import_object_of_a_users_nested_class_is_the_class(package: Path, reference: str) -> None:
    assert import_object(reference).__qualname__ == "Fast.Inner"


@pytest.mark.parametrize(
    "reference",
    ["", ":", "json", "json:", ":dumps", ".dumps", "..json:dumps", "a..b:c", "a:b:c", "a/b.py:c", "json:a b"],
)
def test_import_object_of_what_is_no_reference_is_a_graph_error(reference: str) -> None:
    with pytest.raises(GraphError, match="is not a reference: write 'module:name'"):
        import_object(reference)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("nowhere:Model", "cannot import 'nowhere:Model': there is no module 'nowhere'"),
        ("nowhere.Model", "cannot import 'nowhere.Model': there is no module 'nowhere'"),
        ("nowhere.deep.er.Model", "cannot import 'nowhere.deep.er.Model': there is no module 'nowhere'"),
        ("wares.gone:Model", "cannot import 'wares.gone:Model': there is no module 'wares.gone'"),
        ("wares.gone.Model", "cannot import 'wares.gone.Model': 'wares' has no attribute 'gone'"),
        (
            "wares.models:Fats",
            "cannot import 'wares.models:Fats': 'wares.models' has no attribute 'Fats'; did you mean 'Fast'",
        ),
        (
            "wares.models.Fast.rum",
            "cannot import 'wares.models.Fast.rum': 'Fast' has no attribute 'rum'; did you mean 'run'",
        ),
    ],
)
def test_import_object_of_what_is_not_there_names_the_missing_part(package: Path, reference: str, message: str) -> None:
    with pytest.raises(GraphError) as caught:
        import_object(reference)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("module", ["broken", "half"])
def test_import_object_when_the_users_module_fails_shows_that_failure(package: Path, module: str) -> None:
    with pytest.raises(ModuleNotFoundError, match=r"a_package_nobody_has|wares\.not_there"):
        import_object(f"wares.{module}:Model")


def test_import_extra_of_an_installed_package_is_the_module() -> None:
    assert import_extra("os.path", feature="paths", extra="paths") is os.path


def test_import_extra_of_a_missing_package_tells_how_to_install_it() -> None:
    with pytest.raises(MissingExtraError) as caught:
        import_extra("no_such_broker.client", feature="the broker stream", extra="broker")
    assert str(caught.value) == (
        "the broker stream needs a package that is not installed: pip install 'servegraph[broker]'"
    )
    assert isinstance(caught.value, ImportError)


@pytest.mark.parametrize("module", ["wares.broken", "wares.half"])
def test_import_extra_when_the_package_itself_fails_shows_that_failure(package: Path, module: str) -> None:
    with pytest.raises(ModuleNotFoundError) as caught:
        import_extra(module, feature="wares", extra="wares")
    assert not isinstance(caught.value, MissingExtraError)
