from __future__ import annotations

from pathlib import Path

import pytest

from servegraph.errors import SettingsError
from servegraph.runtimes.reload import FileWatch


def test_file_watch_tells_written_added_and_removed_files_once(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("1")
    (tmp_path / "b.yaml").write_text("1")
    single = tmp_path / "model.bin"
    single.write_text("1")
    watch = FileWatch([tmp_path, str(single)])
    assert watch.changed() == []
    (tmp_path / "a.py").write_text("22")
    (tmp_path / "b.yaml").unlink()
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "c.toml").write_text("1")
    single.write_text("22")
    assert watch.changed() == [tmp_path / "a.py", tmp_path / "b.yaml", tmp_path / "deep/c.toml", single]
    assert watch.changed() == []


def test_file_watch_leaves_out_caches_hidden_and_other_files(tmp_path: Path) -> None:
    watch = FileWatch([tmp_path])
    for name in ("__pycache__/a.py", ".git/a.py", "venv/a.py", "data.csv", ".hidden.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("1")
    assert watch.changed() == []


def test_file_watch_of_a_missing_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="it is not there"):
        FileWatch([tmp_path / "missing"])
