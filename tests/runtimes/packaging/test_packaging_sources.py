"""What of a source folder goes into an image."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from source_folders import folder

from servegraph.errors import SettingsError
from servegraph.runtimes.packaging import sources as sources_module
from servegraph.runtimes.packaging.sources import find_sources


def test_files_are_listed_in_order_with_folders_and_modes(tmp_path: Path) -> None:
    root = folder(tmp_path / "s", {"b/y.py": "", "b.py": "", "a b/é.txt": "", "before-run": "#!/bin/sh\n"})
    (root / "before-run").chmod(0o700)
    (root / "empty").mkdir()
    found = find_sources(root)
    assert [(e.path, e.kind, e.executable) for e in found.entries.values()] == [
        ("a b", "folder", False),
        ("a b/é.txt", "file", False),
        ("b", "folder", False),
        ("b/y.py", "file", False),
        ("b.py", "file", False),
        ("before-run", "file", True),
        ("empty", "folder", False),
    ]
    assert found.warnings == []


def test_caches_environments_and_secrets_stay_out(tmp_path: Path) -> None:
    root = folder(
        tmp_path / "s",
        {
            "m.py": "", "__pycache__/m.pyc": "", ".git/HEAD": "", "my-env/pyvenv.cfg": "", "my-env/lib/x.py": "",
            ".env": "A=1", "sub/.venv/x": "", ".s2i/environment": "", "Dockerfile": "", "env/kept.py": "",
        },
    )  # fmt: skip
    found = find_sources(root)
    assert list(found.entries) == ["env", "env/kept.py", "m.py", "sub"]
    assert found.is_left_out("my-env/lib/x.py")
    assert not found.is_left_out("m.py")


def test_what_an_earlier_build_wrote_stays_out(tmp_path: Path) -> None:
    root = folder(
        tmp_path / "s",
        {"m.py": "", "s-image/.servegraph-build.json": "{}", "s-image/source/m.py": "", "other/a.py": ""},
    )
    found = find_sources(root)
    assert list(found.entries) == ["m.py", "other", "other/a.py"]
    assert found.is_left_out("s-image/source/m.py")


def test_ignore_files_of_the_source_are_honoured_and_may_take_back_a_default(tmp_path: Path) -> None:
    root = folder(
        tmp_path / "s",
        {
            ".dockerignore": "data\n*.md\n!.env\n", ".s2iignore": "!README.md\ntests\n",
            "data/x": "", "a.md": "", "README.md": "", "tests/t.py": "", ".env": "", "m.py": "",
        },
    )  # fmt: skip
    assert list(find_sources(root).entries) == [".env", "README.md", "m.py"]


def test_exception_deep_in_a_folder_that_is_left_out_is_found(tmp_path: Path) -> None:
    root = folder(tmp_path / "s", {".dockerignore": "data\n!data/a/keep\n", "data/a/keep": "", "data/b/drop": ""})
    assert list(find_sources(root).entries) == ["data", "data/a", "data/a/keep"]


def test_bad_pattern_of_the_source_is_told_with_its_line(tmp_path: Path) -> None:
    root = folder(tmp_path / "s", {".s2iignore": "a\n[b\n"})
    with pytest.raises(SettingsError, match=re.escape(f"{root}/.s2iignore:2: '[b' is no pattern")):
        find_sources(root)


def test_output_within_the_source_is_no_part_of_it(tmp_path: Path) -> None:
    root = folder(tmp_path / "s", {"m.py": "", "out/Dockerfile": "", "sub/out/x": ""})
    assert list(find_sources(root, root / "out").entries) == ["m.py", "sub", "sub/out", "sub/out/x"]


def test_link_within_the_folder_is_kept_as_a_relative_one(tmp_path: Path) -> None:
    root = folder(tmp_path / "s", {"models/v1/model.bin": "x", "a/b/c": ""})
    (root / "models/latest").symlink_to(root / "models/v1")
    (root / "a/b/m").symlink_to("../../models/latest/model.bin")
    found = find_sources(root)
    links = {e.path: e.link for e in found.entries.values() if e.kind == "link"}
    assert links == {"models/latest": "v1", "a/b/m": "../../models/v1/model.bin"}
    assert "models/latest/model.bin" not in found.entries
    assert found.warnings == []


def test_link_that_goes_round_in_circles_is_followed_by_nobody(tmp_path: Path) -> None:
    root = folder(tmp_path / "s", {"a/b": ""})
    (root / "a/up").symlink_to("..")
    found = find_sources(root)
    assert {e.path: e.link for e in found.entries.values() if e.kind == "link"} == {"a/up": ".."}
    (root / "loop").symlink_to("loop")
    with pytest.raises(SettingsError, match="loop is a link that leads nowhere"):
        find_sources(root)


@pytest.mark.parametrize("through", [False, True])
def test_link_out_of_the_folder_is_refused_unless_it_is_left_out(through: bool, tmp_path: Path) -> None:
    secret = folder(tmp_path / "other", {"secret": "x"}) / "secret"
    root = folder(tmp_path / "s", {"m.py": ""})
    if through:
        (tmp_path / "hop").symlink_to(secret)
    (root / "weights").symlink_to("../hop" if through else secret)
    with pytest.raises(SettingsError, match=re.escape(f"{root}/weights is a link out of the folder, to {secret}")):
        find_sources(root)
    (root / ".dockerignore").write_text("weights\n")
    assert list(find_sources(root).entries) == ["m.py"]


def test_link_whose_target_is_left_out_is_warned_about(tmp_path: Path) -> None:
    root = folder(tmp_path / "s", {".dockerignore": "data\n", "data/x": ""})
    (root / "x").symlink_to("data/x")
    assert find_sources(root).warnings == [f"{root}/x will lead nowhere in the image: data/x is left out"]


def test_large_file_is_warned_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources_module, "LARGE_FILE_BYTES", 1024**2)
    root = folder(tmp_path / "s", {"small": ""})
    with (root / "model.bin").open("wb") as file:
        file.truncate(3 * 1024**2)
    (warning,) = find_sources(root).warnings
    assert warning.startswith(f"{root}/model.bin has 3 MiB: a model may also be mounted")


def test_pipe_is_left_out_with_a_warning(tmp_path: Path) -> None:
    root = folder(tmp_path / "s", {"m.py": ""})
    os.mkfifo(root / "pipe")
    found = find_sources(root)
    assert list(found.entries) == ["m.py"]
    assert found.warnings == [f"{root}/pipe is left out: it is no file, folder or link"]


@pytest.fixture
def as_nobody() -> Iterator[Path]:
    """A folder that an ordinary user may look into, and the rights of one: root may read everything."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o777)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield place.resolve()
    finally:
        if is_root:
            os.seteuid(0)
        for path in place.rglob("*"):
            path.chmod(0o700)
        shutil.rmtree(place)


def test_file_that_cannot_be_read_is_named(as_nobody: Path) -> None:
    root = folder(as_nobody / "s", {"m.py": "", "secret": "x"})
    (root / "secret").chmod(0)
    with pytest.raises(SettingsError, match=re.escape(f"{root}/secret cannot be read; name it in .dockerignore")):
        find_sources(root)


def test_folder_that_cannot_be_read_is_named(as_nobody: Path) -> None:
    root = folder(as_nobody / "s", {"m.py": "", "closed/x": ""})
    (root / "closed").chmod(0)
    with pytest.raises(SettingsError, match=re.escape(f"{root}/closed cannot be read: Permission denied")):
        find_sources(root)


@pytest.mark.parametrize("name", [b"a\nRUN x", b"a\x1b[2J", b"\xff\xfe"])
def test_name_that_no_list_can_hold_is_refused(name: bytes, tmp_path: Path) -> None:
    root = folder(tmp_path / "s", {"m.py": ""})
    Path(os.fsdecode(os.fsencode(root) + b"/" + name)).write_text("")
    with pytest.raises(SettingsError, match=r"holds a control character|is not UTF-8"):
        find_sources(root)
