"""The notebooks run from top to bottom, and are kept without outputs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent.parent / "notebooks").glob("*.ipynb"))

# In a process of its own: what Jupyter's packages warn of is no failure of a notebook.
RUN = """
import sys
import nbformat
from nbclient import NotebookClient

notebook = nbformat.read(sys.argv[1], 4)
NotebookClient(notebook, timeout=100, kernel_name="python3").execute()
nbformat.write(notebook, sys.argv[2])
"""


def cells_of(notebook: Path) -> list[dict[str, Any]]:
    cells: list[dict[str, Any]] = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return cells


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_from_top_to_bottom(notebook: Path, tmp_path: Path) -> None:
    executed = tmp_path / "executed.ipynb"
    line = [sys.executable, "-c", RUN, str(notebook), str(executed)]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    for cell in cells_of(executed):
        for output in cell.get("outputs", []):
            assert output.get("name") != "stderr", f"{cell['source']}\nwrites to standard error:\n{output['text']}"


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_kept_without_outputs(notebook: Path) -> None:
    assert [c["source"] for c in cells_of(notebook) if c.get("outputs") or c.get("execution_count")] == []
