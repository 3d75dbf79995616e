"""A build writes its own files, and touches no others."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from source_folders import folder

from servegraph.errors import SettingsError
from servegraph.runtimes.packaging.output import MANIFEST, Entry, _read_manifest, write_entries


def snapshot(place: Path) -> dict[str, str]:
    return {
        str(path.relative_to(place)): (str(path.readlink()) if path.is_symlink() else path.read_text())
        for path in sorted(place.rglob("*"))
        if path.name != MANIFEST and (path.is_symlink() or path.is_file())
    }


FIRST = [
    Entry("Dockerfile", b"one"),
    Entry("source", None),
    Entry("source/a/x.py", b"x"),
    Entry("source/l", None, link="a"),
]
SECOND = [
    Entry("Dockerfile", b"two"),
    Entry("source", None),
    Entry("source/a", b"a file now"),
    Entry("source/l/y", b"y"),
]


def test_entries_are_written_with_modes_that_no_umask_changes(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    source = folder(tmp_path, {"big": "content"}) / "big"
    old = os.umask(0o077)
    try:
        write_entries(out, [Entry("run", b"#", executable=True), Entry("d/f", source), Entry("l", None, link="d/f")])
    finally:
        os.umask(old)
    assert snapshot(out) == {"d/f": "content", "l": "d/f", "run": "#"}
    assert {p: oct((out / p).stat().st_mode & 0o777) for p in ("run", "d", "d/f")} == {
        "run": "0o775",
        "d": "0o775",
        "d/f": "0o664",
    }


def test_folder_that_is_not_empty_is_refused_without_force(tmp_path: Path) -> None:
    folder(tmp_path / "out", {"mine": "x"})
    with pytest.raises(SettingsError, match="out is not empty; --force replaces what an earlier build wrote there"):
        write_entries(tmp_path / "out", FIRST)
    assert snapshot(tmp_path / "out") == {"mine": "x"}


def test_force_replaces_what_was_written_and_leaves_the_rest(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_entries(out, FIRST)
    folder(out, {"notes.txt": "mine", "own/x": "mine"})
    write_entries(out, SECOND, force=True)
    assert snapshot(out) == {
        "Dockerfile": "two", "source/a": "a file now", "source/l/y": "y", "notes.txt": "mine", "own/x": "mine",
    }  # fmt: skip
    write_entries(out, FIRST, force=True)
    assert snapshot(out) == {
        "Dockerfile": "one", "source/a/x.py": "x", "source/l": "a", "notes.txt": "mine", "own/x": "mine",
    }  # fmt: skip


def test_force_does_not_replace_what_no_build_wrote(tmp_path: Path) -> None:
    out = folder(tmp_path / "out", {"Dockerfile": "mine", "source/a/x.py": "mine"})
    with pytest.raises(SettingsError, match=r"no build wrote Dockerfile, source/a/x\.py: move it away"):
        write_entries(out, FIRST, force=True)
    assert snapshot(out) == {"Dockerfile": "mine", "source/a/x.py": "mine"}
    assert not (out / MANIFEST).exists()


def test_file_of_another_in_a_folder_of_ours_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_entries(out, FIRST)
    folder(out, {"source/a/mine": "mine"})
    write_entries(out, [Entry("Dockerfile", b"three")], force=True)
    assert snapshot(out) == {"Dockerfile": "three", "source/a/mine": "mine"}
    with pytest.raises(SettingsError, match="no build wrote source/a: move it away"):
        write_entries(out, SECOND, force=True)
    assert snapshot(out) == {"Dockerfile": "three", "source/a/mine": "mine"}


def test_nothing_is_written_or_removed_through_a_link(tmp_path: Path) -> None:
    elsewhere = folder(tmp_path / "elsewhere", {"a/x.py": "mine"})
    out = folder(tmp_path / "out", {})
    (out / "source").symlink_to(elsewhere)
    with pytest.raises(SettingsError, match="no build wrote source"):
        write_entries(out, FIRST, force=True)
    (out / "source").unlink()
    write_entries(out, FIRST, force=True)
    (out / "source/a/x.py").unlink()
    (out / "source/a").rmdir()
    (out / "source/a").symlink_to(elsewhere / "a")
    with pytest.raises(SettingsError, match="leads out of the folder"):
        write_entries(out, SECOND, force=True)
    assert snapshot(elsewhere) == {"a/x.py": "mine"}


@pytest.mark.parametrize("path", ["../victim", "/etc/hostname", "a/../../victim", "", ".", "a//b", 1, None])
def test_list_that_leads_out_of_the_folder_is_refused(path: object, tmp_path: Path) -> None:
    victim = folder(tmp_path, {"victim": "mine"}) / "victim"
    out = folder(tmp_path / "out", {MANIFEST: json.dumps({"version": 1, "wrote": [path]})})
    with pytest.raises(SettingsError, match="is not what a build wrote"):
        write_entries(out, FIRST, force=True)
    assert victim.read_text() == "mine"


def test_output_that_is_a_file_or_a_link_is_refused(tmp_path: Path) -> None:
    folder(tmp_path, {"file": ""})
    (tmp_path / "link").symlink_to(folder(tmp_path / "elsewhere", {}))
    for name in ("file", "link"):
        with pytest.raises(SettingsError, match=f"--output .*{name} is no folder"):
            write_entries(tmp_path / name, FIRST, force=True)


def test_build_that_failed_halfway_can_be_repeated(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(
        SettingsError, match=r"the build context is not complete: .*vanished.*; --force writes it again"
    ):
        write_entries(out, [Entry("Dockerfile", b"one"), Entry("z", tmp_path / "vanished")])
    write_entries(out, FIRST, force=True)
    assert snapshot(out) == {"Dockerfile": "one", "source/a/x.py": "x", "source/l": "a"}


@given(st.text(max_size=30))
def test_any_text_as_a_list_is_read_or_refused(text: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        out = folder(Path(name), {MANIFEST: text.encode("utf-8", "surrogatepass")})
        with pytest.raises(SettingsError, match="is not what a build wrote"):
            _read_manifest(out)
