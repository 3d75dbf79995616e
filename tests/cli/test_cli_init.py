"""``servegraph init``: projects whose own tests pass and that serve."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from served_command import Served

from servegraph.cli.init import TEMPLATES
from servegraph.cli.main import main


def init(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, ["init", *arguments])
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("template", TEMPLATES)
def test_project_passes_its_own_tests_and_serves_its_readmes_request(template: str, tmp_path: Path) -> None:
    project = tmp_path / f"my-{template}"
    assert init(str(project), "--template", template)[0] == 0
    tests = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"], cwd=project, capture_output=True, text=True
    )
    assert tests.returncode == 0, tests.stdout
    with Served("function.py", cwd=project) as served:
        assert f"serves default/my-{template}" in served.log()
        line = re.search(r"^\$ (curl .*)$", (project / "README.md").read_text(), flags=re.MULTILINE)
        assert line is not None
        command = shlex.split(line.group(1).replace(":8080", f":{served.port}"))
        asked = subprocess.run(command, capture_output=True, check=True)
        assert "status" not in json.loads(asked.stdout)
        shown = re.search(r"try\s+(curl .*)", served.log())
        assert shown is not None
        answer = json.loads(subprocess.run(shlex.split(shown.group(1)), capture_output=True, check=True).stdout)
        assert "status" not in answer
        assert answer.keys() & {"outputs", "mood"}


def test_files_that_are_there_are_never_replaced_without_force(tmp_path: Path) -> None:
    (tmp_path / "function.py").write_text("mine = True\n")
    code, _, err = init(str(tmp_path))
    assert code == 1
    assert "function.py is there already; --force" in err
    assert [p.name for p in tmp_path.iterdir()] == ["function.py"], "nothing was written"
    assert (tmp_path / "function.py").read_text() == "mine = True\n"
    assert init(str(tmp_path), "--force")[0] == 0
    assert "NearestMean" in (tmp_path / "function.py").read_text()


@pytest.mark.parametrize("template", TEMPLATES)
def test_project_is_named_after_its_folder_and_has_no_gaps(template: str, tmp_path: Path) -> None:
    project = tmp_path / "House Prices"
    code, out, err = init(str(project), "--template", template)
    assert code == 0
    assert {"function.py", "test_function.py", "requirements.txt", "README.md"} <= set(out.split())
    assert "servegraph serve function.py" in err
    assert 'new_function("house-prices")' in (project / "function.py").read_text()
    for file in filter(Path.is_file, project.rglob("*")):
        assert "{{" not in file.read_text(), file


def test_folder_whose_name_cannot_be_a_functions_is_refused(tmp_path: Path) -> None:
    code, _, err = init(str(tmp_path / "---"))
    assert code == 1
    assert "is no function name" in err
