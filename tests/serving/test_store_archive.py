from __future__ import annotations

import gzip
import io
import os
import stat
import struct
import tarfile
import time
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servegraph.errors import ModelLoadError
from servegraph.serving.store_archive import ArchiveLimits, unpack_archive


def _tar(members: list[tuple[tarfile.TarInfo | str, bytes]], form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for info, data in members:
            info = tarfile.TarInfo(info) if isinstance(info, str) else info
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def _info(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def _zip(members: list[tuple[str | zipfile.ZipInfo, bytes]], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as zipped, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that come twice
        for name, data in members:
            zipped.writestr(name, data)
    return out.getvalue()


def _zip_kind(kind: int, name: str = "x") -> bytes:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = (kind | 0o777) << 16
    return _zip([(info, b"/etc/passwd")])


def _unpack(tmp_path: Path, data: bytes, name: str, limits: ArchiveLimits | None = None) -> dict[str, bytes]:
    archive, target = tmp_path / name, tmp_path / "inner" / "out"
    archive.write_bytes(data)
    target.parent.mkdir()
    unpack_archive(archive, target, limits)
    assert not [p for p in target.rglob("*") if p.is_symlink()]
    return {p.relative_to(target).as_posix(): p.read_bytes() for p in target.rglob("*") if p.is_file()}


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("packed", [True, False])
def test_unpack_archive_tar_of_any_form_gives_its_files(tmp_path: Path, form: int, packed: bool) -> None:
    long = "/".join(["d" * 60] * 3) + "/file"
    files = {"a": b"1" * 511, "b/c": b"2" * 512, "b/d": b"", long: b"3" * 513}
    if form != tarfile.USTAR_FORMAT:
        files["é" * 120] = b"name"
    members: list[tuple[tarfile.TarInfo | str, bytes]] = [(_info("./", tarfile.DIRTYPE), b"")]
    members += [(_info("b", tarfile.DIRTYPE), b""), *files.items()]
    data = _tar(members, form)
    assert _unpack(tmp_path, gzip.compress(data) if packed else data, "m.tgz" if packed else "m.tar") == files


def test_unpack_archive_zip_gives_its_files(tmp_path: Path) -> None:
    files = {"a": b"1" * 1000, "b/c": b"", "é/日本": b"2"}
    assert _unpack(tmp_path, _zip([("b/", b""), ("empty/", b""), *files.items()]), "m.ZIP") == files
    assert (tmp_path / "inner/out/empty").is_dir()


def test_unpack_archive_stored_zip_larger_than_its_buffers_is_whole(tmp_path: Path) -> None:
    data = os.urandom(9 * 1024**2)
    assert _unpack(tmp_path, _zip([("w", data)], zipfile.ZIP_STORED), "m.zip") == {"w": data}


_BAD_NAMES = [
    "../x", "a/../../x", "/etc/x", "..", "a/..", "C:/x", "C:\\x", "..\\x", "a\\..\\..\\x", "~/x", "~root/x", "x\ny",
    "file:///x", "x" * 300, "d/" * 40 + "x", "/".join(["p" * 200] * 8), "\x7f",
]  # fmt: skip


@pytest.mark.parametrize("name", _BAD_NAMES)
@pytest.mark.parametrize("kind", ["zip", "tar", "tar folder"])
def test_unpack_archive_name_that_leads_out_is_refused(tmp_path: Path, name: str, kind: str) -> None:
    if kind == "zip":
        data = _zip([("good", b"1"), (name, b"2")])
    else:
        data = _tar([("good", b"1"), (_info(name, tarfile.DIRTYPE) if kind == "tar folder" else name, b"")])
    with pytest.raises(ModelLoadError, match=r"^m."):
        _unpack(tmp_path, data, "m.zip" if kind == "zip" else "m.tar")
    assert not Path("/etc/x").exists()
    written = [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()]
    assert set(written) <= {"m.zip", "m.tar", "inner/out/good"}


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (tarfile.SYMTYPE, "a symbolic link"),
        (tarfile.LNKTYPE, "a hard link"),
        (tarfile.CHRTYPE, "a device"),
        (tarfile.BLKTYPE, "a device"),
        (tarfile.FIFOTYPE, "a pipe"),
        (tarfile.GNUTYPE_SPARSE, "a sparse file"),
        (b"V", "of the unknown kind"),
    ],
)
def test_unpack_archive_tar_member_of_another_kind_is_refused(tmp_path: Path, kind: bytes, what: str) -> None:
    with pytest.raises(ModelLoadError, match=f"'x' is {what}"):
        _unpack(tmp_path, _tar([(_info("x", kind, "/etc/passwd"), b""), ("x/y", b"1")]), "m.tar")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK])
def test_unpack_archive_zip_member_of_another_kind_is_refused(tmp_path: Path, kind: int) -> None:
    with pytest.raises(ModelLoadError, match=r"'x' is neither a file nor a folder"):
        _unpack(tmp_path, _zip_kind(kind), "m.zip")


def test_unpack_archive_pax_sparse_member_is_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.size": "99999999999"}
    with pytest.raises(ModelLoadError, match=r"a sparse file"):
        _unpack(tmp_path, _tar([(info, b"1")]), "m.tar")


@pytest.mark.parametrize("name", ["m.zip", "m.tar"])
@pytest.mark.parametrize("names", [["a", "a"], ["a", "./a"], ["a", "a/b"], ["a/b", "a"]])
def test_unpack_archive_name_that_comes_twice_is_refused(tmp_path: Path, name: str, names: list[str]) -> None:
    data = _zip([(n, b"1") for n in names]) if name == "m.zip" else _tar([(n, b"1") for n in names])
    with pytest.raises(ModelLoadError):
        _unpack(tmp_path, data, name)


_ZEROS = b"\0" * 40 * 1024**2


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("m.zip", lambda: _zip([("x", _ZEROS)])),
        ("m.tar.gz", lambda: gzip.compress(_tar([("x", _ZEROS)]))),
        ("m.tgz", lambda: gzip.compress(_tar([(f"{i}/x", _ZEROS[: 1024**2]) for i in range(40)]))),
    ],
)
def test_unpack_archive_bomb_is_stopped_by_its_ratio(tmp_path: Path, name: str, data: Callable[[], bytes]) -> None:
    with pytest.raises(ModelLoadError, match=r"it unpacks to more than the 16777216 bytes"):
        _unpack(tmp_path, data(), name)
    assert sum(p.stat().st_size for p in (tmp_path / "inner").rglob("*") if p.is_file()) <= 16 * 1024**2


@pytest.mark.parametrize("name", ["m.zip", "m.tar"])
def test_unpack_archive_larger_than_allowed_is_stopped(tmp_path: Path, name: str) -> None:
    data = _zip([("x", os.urandom(5000))]) if name == "m.zip" else _tar([("x", os.urandom(5000))])
    with pytest.raises(ModelLoadError, match=r"more than the 4000 bytes"):
        _unpack(tmp_path, data, name, ArchiveLimits(max_bytes=4000))


@pytest.mark.parametrize("name", ["m.zip", "m.tar"])
def test_unpack_archive_with_too_many_entries_is_stopped(tmp_path: Path, name: str) -> None:
    names = [f"d{i}/" if i % 2 else f"f{i}" for i in range(101)]
    data = (
        _zip([(n, b"") for n in names])
        if name == "m.zip"
        else _tar([(_info(n, tarfile.DIRTYPE) if n.endswith("/") else n, b"") for n in names])
    )
    with pytest.raises(ModelLoadError, match=r"more than 100 entries"):
        _unpack(tmp_path, data, name, ArchiveLimits(max_entries=100))


def test_unpack_archive_zip_with_a_million_entries_is_refused_quickly(tmp_path: Path) -> None:
    entry = struct.pack("<4s4B4HL2L5H2L", b"PK\1\2", 20, 3, 20, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"x"
    count = 1_000_000
    directory = entry * count
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count & 0xFFFF, count & 0xFFFF, len(directory), 0, 0)
    start = time.perf_counter()
    with pytest.raises(ModelLoadError, match=r"its directory is larger than"):
        _unpack(tmp_path, directory + end, "m.zip")
    assert time.perf_counter() - start < 5


def test_unpack_archive_zip_that_overlaps_itself_is_stopped(tmp_path: Path) -> None:
    # Every entry of the directory names the same, only, content.
    one = io.BytesIO(_zip([("a000", b"\0" * 15 * 1024**2)]))
    with zipfile.ZipFile(one) as zipped:
        content, start = one.getvalue()[: zipped.start_dir], zipped.start_dir
    entry = one.getvalue()[start:-22]
    directory = b"".join(entry.replace(b"a000", b"a%03d" % i) for i in range(50))
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 50, 50, len(directory), start, 0)
    with pytest.raises(ModelLoadError):
        _unpack(tmp_path, content + directory + end, "m.zip")
    assert sum(p.stat().st_size for p in (tmp_path / "inner").rglob("*") if p.is_file()) <= 16 * 1024**2


def test_unpack_archive_encrypted_zip_is_refused(tmp_path: Path) -> None:
    data = bytearray(_zip([("x", b"1")]))
    at = data.index(b"PK\1\2")
    data[at + 8] |= 1
    with pytest.raises(ModelLoadError, match=r"'x' is encrypted"):
        _unpack(tmp_path, bytes(data), "m.zip")


def test_unpack_archive_zip_packed_with_another_method_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"not packed with deflate"):
        _unpack(tmp_path, _zip([("x", b"1")], zipfile.ZIP_LZMA), "m.zip")


@pytest.mark.parametrize("size", [b"77777777777\0", b"\x80" + b"\xff" * 11, b"\xff" * 12, b"12x45678901\0"])
def test_unpack_archive_tar_that_lies_about_a_size_is_refused(tmp_path: Path, size: bytes) -> None:
    header = bytearray(_tar([("x", b"1")])[:512])
    header[124:136] = size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    with pytest.raises(ModelLoadError, match=r"it is not a readable archive"):
        _unpack(tmp_path, bytes(header) + b"data" * 128, "m.tar")


def test_unpack_archive_tar_header_that_is_huge_is_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.pax_headers = {"comment": "c" * 100_000}
    with pytest.raises(ModelLoadError, match=r"a header of 100"):
        _unpack(tmp_path, _tar([(info, b"1")]), "m.tar")


@pytest.mark.parametrize("name", ["m.zip", "m.tar.gz", "m.tar"])
@pytest.mark.parametrize("cut", [0, 10, 300, 700, -30])
def test_unpack_archive_that_is_cut_short_is_refused(tmp_path: Path, name: str, cut: int) -> None:
    files: list[tuple[str, bytes]] = [("x", os.urandom(1000))]
    data = _zip([*files]) if name == "m.zip" else _tar([*files])[: 512 + 1024]
    data = gzip.compress(data) if name == "m.tar.gz" else data
    with pytest.raises(ModelLoadError):
        _unpack(tmp_path, data[:cut], name)


def test_unpack_archive_changed_content_is_noticed(tmp_path: Path) -> None:
    data = bytearray(_zip([("x", b"a" * 100)], zipfile.ZIP_STORED))
    data[data.index(b"aaaa")] = 98
    with pytest.raises(ModelLoadError, match=r"CRC"):
        _unpack(tmp_path, bytes(data), "m.zip")


_SEEDS = [
    _zip([("a", b"1" * 100), ("b/c", b"2")]),
    _tar([("a", b"1" * 100), (_info("b", tarfile.DIRTYPE), b""), ("b/" + "c" * 120, b"2")]),
]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([0, 1]), st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=6))
def test_unpack_archive_any_damage_ends_in_files_or_error(
    tmp_path_factory: pytest.TempPathFactory, which: int, damage: list[tuple[int, int]]
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    data = bytearray(_SEEDS[which])
    for at, value in damage:
        data[at % len(data)] = value
    try:
        _unpack(folder, bytes(data), ["m.zip", "m.tar"][which])
    except ModelLoadError:
        pass
    outside = [p for p in folder.rglob("*") if p.is_file() and (folder / "inner/out") not in p.parents]
    assert len(outside) == 1
