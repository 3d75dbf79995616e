"""A copy of an example, trained as its README says, so that nothing is written into the repository."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


def trained_copy(name: str, folder: Path) -> Path:
    """The folder of a trained copy of an example."""
    copy = folder / name
    shutil.copytree(EXAMPLES / name, copy, ignore=shutil.ignore_patterns("models", "records", "__pycache__"))
    done = subprocess.run([sys.executable, "train.py"], cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "written to" in done.stdout
    return copy
