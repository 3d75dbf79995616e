"""The frameworks that could be installed, and why others could not."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest


def framework(module: str, package: str = "") -> Any:
    """The imported module; where it is not installed the test module is skipped, with what pip has said."""
    package = package or module
    if importlib.util.find_spec(module) is None:
        note = Path(sys.prefix) / "not-installed" / package
        said = note.read_text(encoding="utf-8").strip() if note.is_file() else "make test-frameworks installs it"
        pytest.skip(f"{package} is not installed: {said}", allow_module_level=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(module)
