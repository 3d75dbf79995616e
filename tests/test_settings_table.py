"""The table of settings in the guide is that of the settings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parent.parent / "tools" / "settings_table.py"


def test_table_of_settings_in_the_guide_is_up_to_date() -> None:
    run = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
