"""Makes source folders for the tests, and programs that stand in for those of an image."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

MODEL = "class MyModel:\n    def predict(self, X, names=None, meta=None):\n        return X\n"
ENVIRONMENT = "MODEL_NAME=MyModel\nAPI_TYPE=REST\nSERVICE_TYPE=MODEL\nPERSISTENCE=0\n"


def folder(place: Path, files: Mapping[str, str | bytes]) -> Path:
    """A folder with files in it, by their paths."""
    place.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return place


def component(place: Path, files: Mapping[str, str | bytes] | None = None) -> Path:
    """The smallest component, with further files."""
    return folder(place, {"MyModel.py": MODEL, ".s2i/environment": ENVIRONMENT, **(files or {})})


def program(folder_of_programs: Path, name: str) -> Path:
    """A program that prints its arguments and environment as JSON."""
    path = folder_of_programs / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"#!{sys.executable}\nimport json, os, sys\n"
        "seen = {'arguments': sys.argv[1:], 'env': dict(os.environ), 'cwd': os.getcwd(), 'pid': os.getpid()}\n"
        "print(json.dumps(seen))\n"
    )
    path.chmod(0o755)
    return path
