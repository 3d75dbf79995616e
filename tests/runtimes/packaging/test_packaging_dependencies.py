"""What a source folder needs is read from the first file that says so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from source_folders import folder

from servegraph.errors import SettingsError
from servegraph.runtimes.packaging.dependencies import find_dependencies

SETUP = "from setuptools import setup\nraise SystemExit('this code ran')\n"


def asked(data: bytes) -> list[str]:
    return [line for line in data.decode().splitlines() if not line.startswith("#")]


def test_requirements_come_before_a_project_and_a_project_before_conda(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "requirements.txt": "six\n",
        "setup.py": "from setuptools import setup\nsetup(name='x')\n",
        "pyproject.toml": "[tool.ruff]\nline-length = 120\n",
        "environment.yml": "dependencies: [python=3.11, pip]\n",
    }
    root = folder(tmp_path, files)
    found = find_dependencies(root)
    assert (found.kind, found.origin) == ("requirements", "requirements.txt")
    assert found.notes == [
        "setup.py is not installed from: requirements.txt comes first",
        "environment.yml is not installed from: requirements.txt comes first",
    ]
    (root / "requirements.txt").unlink()
    assert (find_dependencies(root).kind, find_dependencies(root).origin) == ("project", "setup.py")
    (root / "setup.py").unlink()
    assert (find_dependencies(root).kind, find_dependencies(root).origin) == ("conda", "environment.yml")
    (root / "environment.yml").unlink()
    assert find_dependencies(root).kind == "none"
    assert "servegraph only" in find_dependencies(root).notes[0]


@pytest.mark.parametrize(
    ("files", "lines"),
    [
        pytest.param({"setup.py": SETUP + "setup(install_requires=['numpy', 'seldon-core==1'])"}, ["numpy"], id="list"),
        pytest.param(
            {"setup.py": SETUP + "R = ('six', 'numpy')\nsetup(install_requires=R)"}, ["six", "numpy"], id="name"
        ),
        pytest.param({"setup.py": SETUP + "setup(install_requires='six')"}, ["six"], id="text"),
        pytest.param({"setup.py": SETUP + "import setuptools\nsetuptools.setup(name='x')"}, [], id="nothing"),
        pytest.param(
            {
                "setup.py": SETUP + "setup()",
                "setup.cfg": "[options]\ninstall_requires =\n  # x\n  six\n  seldon_core\n",
            },
            ["six"],
            id="setup.cfg",
        ),
        pytest.param(
            {"pyproject.toml": '[project]\nname = "x"\ndependencies = ["six>=1", "seldon-core[all]"]\n'},
            ["six>=1"],
            id="pyproject",
        ),
        pytest.param(
            {"pyproject.toml": '[project]\nname = "x"\n', "setup.py": SETUP + "setup(install_requires=['z'])"},
            [],
            id="pyproject before setup.py",
        ),
    ],
)
def test_what_a_project_needs_is_read_without_running_it(
    files: dict[str, str | bytes], lines: list[str], tmp_path: Path
) -> None:
    found = find_dependencies(folder(tmp_path, files))
    assert found.kind == "project"
    assert found.complete
    assert asked(found.requirements.files["requirements.txt"]) == lines


@pytest.mark.parametrize(
    "files",
    [
        pytest.param({"setup.py": "setup(install_requires=open('r.txt').read().split())"}, id="computed"),
        pytest.param({"setup.py": "R = ['a']\nR.append('b')\nsetup(install_requires=R)"}, id="changed"),
        pytest.param({"setup.py": "setup(**options)"}, id="unpacked"),
        pytest.param({"setup.py": "if x:\n    setup(name='a')\nelse:\n    setup(name='b')"}, id="two"),
        pytest.param({"setup.py": "setup()", "setup.cfg": "[options]\ninstall_requires = file: r.txt\n"}, id="file:"),
        pytest.param({"pyproject.toml": '[project]\nname = "x"\ndynamic = ["dependencies"]\n'}, id="dynamic"),
        pytest.param({"pyproject.toml": "[build-system]\nrequires = []\n[tool.poetry]\nname = 'x'\n"}, id="poetry"),
    ],
)
def test_project_that_has_to_run_to_tell_is_installed_as_a_whole(files: dict[str, str | bytes], tmp_path: Path) -> None:
    root = folder(tmp_path, files)
    found = find_dependencies(root)
    assert (found.kind, found.complete, found.requirements.files) == ("project", False, {})
    assert "should it name seldon-core, the image removes that again" in found.warnings[0]
    assert find_dependencies(root, keep_seldon=True).warnings == []


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"setup.py": "def x(:\n"}, "setup.py cannot be read"),
        ({"pyproject.toml": "[project\n"}, "pyproject.toml cannot be read"),
        ({"pyproject.toml": "[project]\ndependencies = [1]\n"}, "project.dependencies is no list of texts"),
        ({"environment.yml": "- a\n"}, "is no conda environment: it needs a list of dependencies"),
        ({"environment.yml": "dependencies: [1]\n"}, "a dependency is a text"),
        ({"environment.yml": "!!python/object/apply:os.system [true]\n"}, "environment.yml: "),
    ],
)
def test_file_that_cannot_be_read_is_named(files: dict[str, str | bytes], message: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=re.escape(message)):
        find_dependencies(folder(tmp_path, files))


CONDA = """\
# ours
name: x
channels: [conda-forge]
dependencies:
  - python=3.11
  - pip
  - conda-forge::numpy >=1.26
  - pip:
      - six
      - seldon-core==1.6.0
"""


def test_conda_environment_loses_seldon_core_and_nothing_else(tmp_path: Path) -> None:
    found = find_dependencies(folder(tmp_path, {"environment.yml": CONDA}))
    assert yaml.safe_load(found.conda) == {
        "name": "x",
        "channels": ["conda-forge"],
        "dependencies": ["python=3.11", "pip", "conda-forge::numpy >=1.26", {"pip": ["six"]}],
    }
    assert b"# seldon-core==1.6.0\n" in found.conda
    assert found.warnings == []
    assert find_dependencies(tmp_path, keep_seldon=True).conda == CONDA.encode()


def test_conda_environment_without_seldon_core_stays_byte_for_byte(tmp_path: Path) -> None:
    text = CONDA.replace("      - seldon-core==1.6.0\n", "")
    assert find_dependencies(folder(tmp_path, {"environment.yaml": text})).conda == text.encode()


def test_conda_environment_with_only_seldon_core_under_pip_has_no_empty_list(tmp_path: Path) -> None:
    text = "dependencies: [python, pip, seldon-core=1.2, {pip: [seldon-core]}]\n"
    found = find_dependencies(folder(tmp_path, {"environment.yml": text}))
    assert yaml.safe_load(found.conda) == {"dependencies": ["python", "pip"]}
    assert len(found.requirements.replaced) == 2


def test_conda_environment_that_cannot_take_servegraph_is_warned_about(tmp_path: Path) -> None:
    found = find_dependencies(folder(tmp_path, {"environment.yml": "dependencies: [numpy, 'pip>=23']\n"}))
    assert found.warnings == [
        f"{tmp_path}/environment.yml does not name python, and servegraph is installed with it: add it"
    ]


def test_extras_of_seldon_core_are_warned_about(tmp_path: Path) -> None:
    found = find_dependencies(folder(tmp_path, {"requirements.txt": "seldon-core[tensorflow]==1.6\n"}))
    assert found.warnings == [
        "seldon-core[tensorflow] brought further packages: name those that the component uses in requirements.txt"
    ]
