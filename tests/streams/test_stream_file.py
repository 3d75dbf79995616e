from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servegraph import jsoncodec
from servegraph.errors import StreamError
from servegraph.streams import PushError, Record, open_stream


def read(path: Path) -> list[object]:
    return [jsoncodec.loads(line) for line in path.read_bytes().splitlines()]


def read_all(folder: Path) -> list[object]:
    return [item for path in folder.iterdir() for item in read(path)]


def test_push_appends_lines_and_makes_directories(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "x.jsonl"
    with open_stream(f"file://{path}") as stream:
        stream.push([Record({"n": 1}), Record("zwei\nlines")])
        stream.push([Record(b'{"raw": true}'), Record(b"\xff\xfe\n")])
        stream.flush(1)
    assert path.read_bytes() == b'{"n":1}\n"zwei\\nlines"\n{"raw": true}\n\xff\xfe\n'
    with open_stream(f"file://{path}") as stream:
        stream.push([Record(3)])
    assert path.read_bytes().endswith(b"\n3\n")


def test_relative_and_quoted_paths_are_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with open_stream("file://logs/a%3Fb%20c.jsonl") as stream:
        monkeypatch.chdir("/")
        stream.push([Record(1)])
    assert read(tmp_path / "logs" / "a?b c.jsonl") == [1]


@pytest.mark.parametrize("uri", ["file://", "file:///", "file:///logs/", "file:///a?max_bytes=1", "file:///a%00b"])
def test_address_without_a_usable_path_is_told(uri: str) -> None:
    with pytest.raises(StreamError, match=r"names no file|give options beside|NUL"):
        open_stream(uri)


@pytest.mark.parametrize(
    "options", [{"max_bytes": 0}, {"max_bytes": "1M"}, {"backups": -1}, {"lock_timeout_s": 0}, {"backups": True}]
)
def test_options_out_of_range_are_told(tmp_path: Path, options: dict[str, object]) -> None:
    with pytest.raises(StreamError, match=f"{next(iter(options))} must be a"):
        open_stream(f"file://{tmp_path}/x.jsonl", **options)


def test_rotation_keeps_the_newest_files(tmp_path: Path) -> None:
    with open_stream(f"file://{tmp_path}/x.jsonl", max_bytes=10, backups=2) as stream:
        for number in range(10, 20):
            stream.push([Record(number)])  # three bytes each: three to a file
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.jsonl", "x.jsonl.1", "x.jsonl.2"]
    assert read(tmp_path / "x.jsonl") == [19]
    assert read(tmp_path / "x.jsonl.1") == [16, 17, 18]
    assert read(tmp_path / "x.jsonl.2") == [13, 14, 15]


def test_rotation_without_backups_keeps_one_file(tmp_path: Path) -> None:
    with open_stream(f"file://{tmp_path}/x.jsonl", max_bytes=6, backups=0) as stream:
        stream.push([Record(n) for n in range(10, 15)])
    assert [p.name for p in tmp_path.iterdir()] == ["x.jsonl"]
    assert read(tmp_path / "x.jsonl") == [14]


def test_file_takes_a_line_that_just_fits(tmp_path: Path) -> None:
    with open_stream(f"file://{tmp_path}/x.jsonl", max_bytes=6) as stream:
        stream.push([Record(10), Record(11)])
        assert [p.name for p in tmp_path.iterdir()] == ["x.jsonl"]
        stream.push([Record(1)])
    assert read(tmp_path / "x.jsonl.1") == [10, 11]
    assert read(tmp_path / "x.jsonl") == [1]


def test_max_bytes_none_never_rotates(tmp_path: Path) -> None:
    with open_stream(f"file://{tmp_path}/x.jsonl", max_bytes=None) as stream:
        stream.push([Record("a" * 1000) for _ in range(100)])
    assert len(list(tmp_path.iterdir())) == 1


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.text(max_size=30), min_size=1, max_size=6), max_size=8), st.integers(1, 60))
def test_rotation_loses_and_reorders_nothing(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[str]], max_bytes: int
) -> None:
    folder = tmp_path_factory.mktemp("rotation")
    with open_stream(f"file://{folder}/x", max_bytes=max_bytes, backups=100) as stream:
        for batch in batches:
            stream.push([Record(text) for text in batch])
    files = sorted(folder.iterdir(), key=lambda p: -int(p.suffix[1:] or 0))
    assert [item for path in files for item in read(path)] == [text for batch in batches for text in batch]
    for path in files:
        assert path.stat().st_size <= max_bytes or len(read(path)) == 1


_WORKER = """
import sys
from servegraph.streams import Record, open_stream
uri, worker = sys.argv[1], int(sys.argv[2])
with open_stream(uri, max_bytes=4000, backups=1000) as stream:
    for number in range(0, 600, 3):
        stream.push([Record([worker, n, "x" * (n % 50)]) for n in range(number, number + 3)])
"""


def test_several_processes_and_threads_write_whole_lines_and_lose_none(tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/shared.jsonl"
    workers = [subprocess.Popen([sys.executable, "-c", _WORKER, uri, str(n)]) for n in range(3)]
    with open_stream(uri, max_bytes=4000, backups=1000) as stream:

        def work(number: int) -> None:
            for n in range(200):
                stream.push([Record([number, n, ""])])

        threads = [threading.Thread(target=work, args=(n,)) for n in (10, 11)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [worker.wait(60) for worker in workers] == [0, 0, 0]
    seen = Counter((item[0], item[1]) for item in read_all(tmp_path) if isinstance(item, list))
    wanted = {(w, n) for w in range(3) for n in range(600)} | {(w, n) for w in (10, 11) for n in range(200)}
    assert seen == dict.fromkeys(wanted, 1)
    assert len(list(tmp_path.iterdir())) > 5


@pytest.mark.parametrize("how", ["moved", "removed", "truncated"])
def test_file_that_another_program_rotates_is_followed(tmp_path: Path, how: str) -> None:
    path = tmp_path / "x.jsonl"
    with open_stream(f"file://{path}") as stream:
        stream.push([Record(1)])
        if how == "moved":
            path.rename(tmp_path / "old")
        elif how == "removed":
            path.unlink()
        else:
            os.truncate(path, 0)
        stream.push([Record(2)])
    assert read(path) == [2]


def test_line_that_a_crash_left_unfinished_does_not_swallow_the_next(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'1\n{"half": ')
    with open_stream(f"file://{path}") as stream:
        stream.push([Record(2)])
    assert path.read_bytes() == b'1\n{"half": \n2\n'


def test_bytes_with_a_line_break_inside_are_refused_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    bad = Record(b"two\nlines")
    with open_stream(f"file://{path}") as stream:
        with pytest.raises(PushError, match="are not one line") as caught:
            stream.push([Record(1), bad, Record(2)])
        assert (caught.value.refused, caught.value.undelivered) == ((bad,), ())
    assert read(path) == [1, 2]


def test_full_device_raises_with_every_record_to_push_again() -> None:
    records = [Record(1), Record(2)]
    with open_stream("file:///dev/full") as stream:
        with pytest.raises(PushError, match="file:///dev/full: No space left on device") as caught:
            stream.push(records)
        assert caught.value.undelivered == tuple(records)


_FULL = """
import resource, signal, sys
from servegraph.streams import PushError, Record, open_stream
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
stream = open_stream(sys.argv[1])
stream.push([Record("first")])
try:
    stream.push([Record("x" * 60), Record("y" * 60)])
except PushError as exc:
    assert len(exc.undelivered) == 2, exc.undelivered
else:
    sys.exit("no error")
stream.push([Record("last")])
"""


def test_write_that_breaks_off_leaves_no_part_of_a_line(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    run = subprocess.run([sys.executable, "-c", _FULL, f"file://{path}"], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert path.read_bytes() == b'"first"\n"last"\n'


def test_path_that_cannot_be_made_raises(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for uri, reason in (
        (f"file://{tmp_path}/file/x", "Not a directory|File exists"),
        (f"file://{tmp_path}", "directory"),
    ):
        with open_stream(uri) as stream, pytest.raises(PushError, match=reason):
            stream.push([Record(1)])


@pytest.fixture
def no_root(tmp_path: Path) -> Iterator[None]:
    """The test's folder cannot be written: root, who may write anywhere, is nobody for a while."""
    before = os.geteuid()
    tmp_path.chmod(0o500)
    if before == 0:
        os.seteuid(65534)
    yield
    os.seteuid(before)


def test_directory_without_permission_raises(tmp_path: Path, no_root: None) -> None:
    with open_stream(f"file://{tmp_path}/x") as stream, pytest.raises(PushError, match="Permission denied"):
        stream.push([Record(1)])


def test_file_that_stays_locked_raises_in_time(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    with path.open("wb") as other, open_stream(f"file://{path}", lock_timeout_s=0.05) as stream:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(PushError, match="another process kept it locked"):
            stream.push([Record(1)])
        fcntl.flock(other, fcntl.LOCK_UN)
        stream.push([Record(2)])
    assert read(path) == [2]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fork_child_uses_a_descriptor_and_lock_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    with open_stream(f"file://{path}") as stream:
        stream.push([Record("parent")])
        child = os.fork()
        if child == 0:
            code = 1
            try:
                stream.push([Record("child")])
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        stream.push([Record("parent again")])
    assert read(path) == ["parent", "child", "parent again"]
