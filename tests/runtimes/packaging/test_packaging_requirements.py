"""Requirements keep what they ask for, except the real seldon-core."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from source_folders import folder

from servegraph.errors import SettingsError
from servegraph.runtimes.packaging.requirements import REPLACED_NOTE, read_requirements, requirements_of


def asked(text: bytes) -> list[str]:
    return [line for line in text.decode().splitlines() if line.strip() and not line.startswith("#")]


@pytest.mark.parametrize(
    "line",
    [
        "seldon-core", "seldon-core==1.6.0", "seldon_core >= 1.2", "Seldon.Core[all]~=1.18 ; python_version < '4'",
        "seldon--core  # the server", "seldon-core @ https://example.com/seldon.whl", "  seldon-core<2",
        "git+https://github.com/SeldonIO/seldon-core.git@v1.2#egg=seldon-core&subdirectory=python",
        "-e git+https://github.com/SeldonIO/seldon-core#egg=seldon_core", "https://x/seldon_core-1.2-py3-none-any.whl",
        "./wheels/seldon_core-1.18.2-py3-none-any.whl", "seldon-core==1.6.0 --hash=sha256:ab",
        "seldon-core==1.6.0 \\\n    --hash=sha256:ab \\\n    --hash=sha256:cd", "seldon\\\n-core",
    ],
)  # fmt: skip
def test_real_seldon_core_is_made_a_comment_and_told(line: str, tmp_path: Path) -> None:
    root = folder(tmp_path, {"requirements.txt": f"numpy\n{line}\npandas\n"})
    found = read_requirements(root, "requirements.txt")
    text = found.files["requirements.txt"]
    assert asked(text) == ["numpy", "pandas"]
    assert f"# {REPLACED_NOTE}\n# {line.splitlines()[0].rstrip()}" in text.decode()
    assert len(found.replaced) == 1
    assert found.replaced[0].startswith(f"{root}/requirements.txt:2: ")
    kept = read_requirements(root, "requirements.txt", keep_seldon=True)
    assert kept.files["requirements.txt"] == (root / "requirements.txt").read_bytes()
    assert kept.real_seldon
    assert kept.replaced == []


@pytest.mark.parametrize(
    "line",
    [
        "seldon-core-tools", "seldon", "my-seldon-core==1", "seldon-core2", "# seldon-core==1",
        "numpy  # not seldon-core", "git+https://github.com/SeldonIO/alibi.git", "-r seldon-core.txt",
        "--extra-index-url https://x/seldon-core/simple",
        "numpy>=1.26 ; python_version >= '3.11'", "pkg @ https://x/y.whl#sha256=ab",
    ],
)  # fmt: skip
def test_everything_else_stays_byte_for_byte(line: str, tmp_path: Path) -> None:
    data = f"{line}\r\n\n  # spaces\nscipy".encode()
    root = folder(tmp_path, {"requirements.txt": data, "seldon-core.txt": "six\n"})
    found = read_requirements(root, "requirements.txt")
    assert found.files["requirements.txt"] == data
    assert found.replaced == []


def test_included_files_come_along_and_are_rewritten_too(tmp_path: Path) -> None:
    root = folder(
        tmp_path,
        {
            "requirements.txt": "-r deep/more.txt\n-cconstraints.txt\n--requirement=deep/more.txt\n-r https://x/y.txt\n",
            "deep/more.txt": "-r ../requirements.txt\n-r 'other file.txt'\nseldon-core[tensorflow, gcs]==1.6\n",
            "deep/other file.txt": "six\n",
            "constraints.txt": "seldon-core==1.6\nnumpy<2\n",
            "unrelated.txt": "x",
        },
    )
    found = read_requirements(root, "requirements.txt")
    assert sorted(found.files) == ["constraints.txt", "deep/more.txt", "deep/other file.txt", "requirements.txt"]
    assert asked(found.files["constraints.txt"]) == ["numpy<2"]
    assert found.extras == ["tensorflow", "gcs"]
    assert not found.needs_source


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"requirements.txt": "six\n-r missing.txt\n"}, "requirements.txt:2: {root}/missing.txt cannot be read"),
        ({"requirements.txt": "-r ../../x.txt\n"}, "outside of {root}"),
        ({"requirements.txt": "-r /etc/hostname\n"}, "outside of {root}"),
        ({"requirements.txt": b"a\xff"}, "requirements.txt is not UTF-8: byte 1"),
    ],
)
def test_file_that_cannot_come_along_is_told(files: dict[str, str | bytes], message: str, tmp_path: Path) -> None:
    root = folder(tmp_path / "s", files)
    with pytest.raises(SettingsError, match=re.escape(message.format(root=root))):
        read_requirements(root, "requirements.txt")


def test_link_to_a_file_outside_is_refused(tmp_path: Path) -> None:
    root = folder(tmp_path / "s", {})
    folder(tmp_path, {"common.txt": "six\n"})
    (root / "requirements.txt").symlink_to("../common.txt")
    with pytest.raises(SettingsError, match="lies outside of"):
        read_requirements(root, "requirements.txt")


@pytest.mark.parametrize(
    ("line", "needed"),
    [
        (".", True), ("-e .", True), ("./lib", True), ("lib/x-1.0-py3-none-any.whl", True), ("../x", True),
        ("file:lib/x", True), ("x-1.0.tar.gz", True), ("-f wheels", True), ("--find-links=wheels", True),
        (".[dev]", True), ("numpy", False), ("-e git+https://x/y#egg=y", False), ("x @ https://y/z.whl", False),
        ("https://x/y.whl", False), ("-f https://x/y", False), ("numpy>=1,<2 ; python_version<'3.13'", False),
        ("-i https://x/y", False),
    ],
)  # fmt: skip
def test_line_that_names_something_in_the_source_is_noticed(line: str, needed: bool) -> None:
    assert requirements_of([line], "requirements.txt", "x").needs_source == needed


def test_hashes_and_servegraph_itself_are_noticed() -> None:
    assert requirements_of(["numpy==1 --hash=sha256:ab"], "r", "x").has_hashes
    assert requirements_of(["--require-hashes"], "r", "x").has_hashes
    assert requirements_of(["servegraph[sklearn]==0.1.0"], "r", "x").has_servegraph
    assert not requirements_of(["servegraph-plugin"], "r", "x").has_servegraph


@pytest.mark.parametrize("line", ["numpy\nseldon-core", "a\x00", "a\u2028b"])
def test_requirement_of_more_than_one_line_is_refused(line: str) -> None:
    with pytest.raises(SettingsError, match=r"pyproject\.toml: .* is no requirement such as"):
        requirements_of([line], "r", "pyproject.toml")
