"""The class that MODEL_NAME names is looked for in the code, which never runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from source_folders import MODEL, folder

from servegraph.errors import SettingsError
from servegraph.runtimes.packaging.component import check_model_name, find_components
from servegraph.runtimes.packaging.environment import Variable
from servegraph.runtimes.packaging.sources import find_sources

BOOM = "raise SystemExit('this code ran')\n"


def check(root: Path, name: str, folders: list[str] | None = None) -> None:
    check_model_name(Variable("MODEL_NAME", name, ".s2i/environment:1"), find_sources(root), folders or [""])


@pytest.mark.parametrize(
    ("files", "name"),
    [
        pytest.param({"MyModel.py": BOOM + MODEL}, "MyModel", id="class of its module's name"),
        pytest.param({"pkg/mod.py": MODEL}, "pkg.mod.MyModel", id="in a package without __init__"),
        pytest.param({"pkg/__init__.py": "from .a import MyModel\n"}, "pkg.MyModel", id="imported into a package"),
        pytest.param({"MyModel/__init__.py": MODEL}, "MyModel", id="a package"),
        pytest.param({"m.py": "from x import *\n"}, "m.Anything", id="star import"),
        pytest.param({"m.py": "def __getattr__(name): ...\n"}, "m.Anything", id="made on demand"),
        pytest.param({"m.py": "try:\n    import z\nexcept ImportError:\n    class A: ...\n"}, "m.A", id="in except"),
        pytest.param({"m.py": "if 1:\n    pass\nelse:\n    A, (B, c) = x\n"}, "m.B", id="unpacked"),
        pytest.param({"m.py": "import a.b as Model\n"}, "m.Model", id="import as"),
        pytest.param({"m.py": "with x:\n    Model: type = make()\n"}, "m.Model", id="annotated"),
        pytest.param({"m.py": "async def make(): ...\n"}, "m.make", id="function"),
        pytest.param({"fast.cpython-311-x86_64-linux-gnu.so": b"\x7fELF"}, "fast.Model", id="compiled"),
        pytest.param({"m.py": "# é\nclass Modèle: ...\n"}, "m.Modèle", id="other letters"),
        pytest.param({}, "servegraph.serving.seldon.servers.SKLearnServer", id="a server of ours"),
    ],
)
def test_class_that_is_there_is_found(files: dict[str, str | bytes], name: str, tmp_path: Path) -> None:
    check(folder(tmp_path / "s", files), name)


@pytest.mark.parametrize(
    ("files", "name", "message"),
    [
        (
            {"MyModel.py": MODEL, "pkg/r.py": "class R:\n    def route(self): ...\n"},
            "MyModell",
            "'MyModell', and {root} holds no MyModell.py; did you mean 'MyModel'? valid: MyModel, pkg.r.R",
        ),
        ({"MyModel.py": MODEL}, "MyModel.Model", "MyModel.py defines no 'Model'; valid: MyModel"),
        ({"m.py": "class A:\n    class B: ...\n"}, "m.B", "m.py defines no 'B'; nor anything else that looks like"),
        ({"m.py": "class A:\n    x = 1\n"}, "pkg.A", "holds no pkg.py; nor anything else"),
        ({"MyModel.py": MODEL, ".dockerignore": "*.py"}, "MyModel", "an ignore file leaves out MyModel.py"),
        ({"MyModel.py": "def broken(:\n"}, "MyModel", "MyModel.py:1: this is no Python 3"),
        ({"MyModel.py": "print 'two'\nclass MyModel: pass\n"}, "MyModel", "MyModel.py:1: this is no Python 3"),
        ({"MyModel.py": b"\x00\x01"}, "MyModel", "MyModel.py"),
        ({}, "MyModel", "holds no MyModel.py; nor anything else that looks like a component"),
    ],
)  # fmt: skip
def test_class_that_is_not_there_is_told_with_what_is(
    files: dict[str, str | bytes], name: str, message: str, tmp_path: Path
) -> None:
    root = folder(tmp_path / "s", files)
    with pytest.raises(SettingsError, match=re.escape(message.format(root=root))):
        check(root, name)


@pytest.mark.parametrize(
    "name", ["", "-x", "My Model", "my-model", '"MyModel"', "a..b", ".a", "a/b", "$(id)", "m.py;x"]
)
def test_model_name_that_python_cannot_import_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="MODEL_NAME is a class as Python imports it"):
        check(folder(tmp_path / "s", {"MyModel.py": MODEL}), name)


def test_module_under_src_is_found_where_the_folder_is_a_project(tmp_path: Path) -> None:
    root = folder(tmp_path / "s", {"src/shop/model.py": MODEL})
    check(root, "shop.model.MyModel", ["", "src/"])
    with pytest.raises(SettingsError, match=r"holds no shop/model\.py"):
        check(root, "shop.model.MyModel")
    assert find_components(find_sources(root), ["", "src/"]) == ["shop.model.MyModel"]


def test_components_are_listed_as_model_name_would_name_them(tmp_path: Path) -> None:
    root = folder(
        tmp_path / "s",
        {
            "MyModel.py": BOOM + MODEL,
            "pkg/__init__.py": "class Raw:\n    def predict_raw(self, msg): ...\n",
            "pkg/t.py": "from seldon_core.user_model import SeldonComponent\nclass T(SeldonComponent): ...\n",
            "pkg/broken.py": "class (",
            "test_model.py": MODEL,
            "train.py": "class Trainer:\n    def fit(self): ...\n",
            "not-a-module.py": MODEL,
        },
    )
    assert find_components(find_sources(root)) == ["MyModel", "pkg.Raw", "pkg.t.T"]
