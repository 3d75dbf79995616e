"""The size check of ``make check``, run as that runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parent.parent / "tools" / "check_sizes.py"


def _check(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, folder], capture_output=True, text=True, check=False)


def test_check_sizes_of_short_code_is_silent(tmp_path: Path) -> None:
    (tmp_path / "short.py").write_text("def f():\n" + "    pass\n" * 69 + "\n" * 480)
    run = _check(tmp_path)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_check_sizes_of_long_code_names_the_places(tmp_path: Path) -> None:
    room = tmp_path / "room"
    room.mkdir()
    (room / "long.py").write_text("\n" * 551)
    (room / "deep.py").write_text("class A:\n    async def f(self):\n" + "        pass\n" * 70)
    run = _check(tmp_path)
    assert run.returncode == 1
    assert run.stdout.splitlines() == [
        f"{room / 'deep.py'}:2: f has 71 lines; 70 are the most",
        f"{room / 'long.py'}:1: the module has 551 lines; 550 are the most",
    ]


def test_check_sizes_of_no_code_is_an_error(tmp_path: Path) -> None:
    run = _check(tmp_path)
    assert run.returncode == 2
    assert "no Python files here" in run.stderr
