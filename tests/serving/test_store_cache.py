from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from servegraph.errors import ModelLoadError
from servegraph.serving.store_cache import ModelCache, tree_digest

BODY = os.urandom(3 * 1024**2)

_CLIENT = """
import sys
from pathlib import Path
from servegraph.serving.store import fetch_model
from servegraph.serving.store_options import FetchOptions
print("ready", flush=True)
sys.stdin.readline()
fetched = fetch_model(sys.argv[1], cache_dir=Path(sys.argv[2]), options=FetchOptions(hosts=("127.0.0.1",)))
print(fetched.digest, fetched.path)
"""


class _Server(ThreadingHTTPServer):
    bodies = 0
    hold = False
    half_sent = threading.Event()
    over = threading.Event()


@pytest.fixture
def server() -> Iterator[_Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert isinstance(self.server, _Server)
            found = self.path == "/m.bin?x"
            self.send_response(200 if found else 404)
            self.send_header("Content-Length", str(len(BODY)) if found else "0")
            self.send_header("ETag", '"1"')
            self.end_headers()
            if found:
                half = len(BODY) // 2
                self.wfile.write(BODY[:half])
                if self.server.hold:
                    self.server.half_sent.set()
                    self.server.over.wait()
                self.wfile.write(BODY[half:])
                self.server.bodies += 1

        def log_message(self, *_: Any) -> None:
            pass

    class Server(_Server):
        half_sent = threading.Event()
        over = threading.Event()

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Clients that go away are what is tested."""

    httpd = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield httpd
    httpd.over.set()
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def _start(server: _Server, cache: Path) -> subprocess.Popen[str]:
    url = f"http://127.0.0.1:{server.server_port}/m.bin?x"
    return subprocess.Popen(
        [sys.executable, "-c", _CLIENT, url, str(cache)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_fetch_model_by_several_processes_at_once_gives_one_whole_copy(server: _Server, tmp_path: Path) -> None:
    clients = [_start(server, tmp_path) for _ in range(4)]
    for client in clients:
        assert client.stdout is not None
        assert client.stdout.readline() == "ready\n"
    answers = set()
    for client in clients:
        assert client.stdin is not None
        client.stdin.write("\n")
        client.stdin.flush()
    for client in clients:
        answers.add(client.communicate()[0])
        assert client.returncode == 0
    (answer,) = answers
    digest, path = answer.split()
    assert Path(path).read_bytes() == BODY
    assert digest == tree_digest(Path(path))
    assert len(list(tmp_path.rglob("m.bin"))) == 1


def test_fetch_model_after_a_killed_download_is_whole_and_leaves_nothing_else(server: _Server, tmp_path: Path) -> None:
    server.hold = True
    first = _start(server, tmp_path)
    assert first.stdin is not None
    first.stdin.write("\n")
    first.stdin.flush()
    assert server.half_sent.wait(30)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert not list(tmp_path.rglob("entry.json"))

    server.hold = False
    second = _start(server, tmp_path)
    out, _ = second.communicate("\n")
    assert Path(out.split()[-1]).read_bytes() == BODY
    assert not list(tmp_path.rglob(".part-*"))


def test_model_cache_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def build(path: Path) -> None:
        path.write_bytes(b"half")
        raise ModelLoadError("the line was cut")

    with pytest.raises(ModelLoadError, match=r"the line was cut"), ModelCache(tmp_path).lock("source") as shelf:
        shelf.publish("1", "m", build)
    assert [p for p in tmp_path.rglob("*") if p.is_file() and p.suffix != ".lock"] == []
    with ModelCache(tmp_path).lock("source") as shelf:
        assert shelf.find("1", "m") is None


@pytest.mark.parametrize("damage", ["content", "no entry", "entry", "no content"])
def test_model_cache_damaged_entry_is_not_found(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    with ModelCache(tmp_path).lock("source") as shelf:
        path = shelf.publish("1", "m", lambda p: p.write_bytes(b"x"))
        assert shelf.find("1", "m") == path
        entry = path.parent.parent / "entry.json"
        if damage == "content":
            path.write_bytes(b"y")
        elif damage == "no entry":
            entry.unlink()
        elif damage == "entry":
            entry.write_bytes(b"[")
        else:
            path.unlink()
        assert shelf.find("1", "m") is None
        assert "it is fetched again" in caplog.text
        assert shelf.publish("1", "m", lambda p: p.write_bytes(b"z")).read_bytes() == b"z"


def test_model_cache_publishing_the_same_version_again_keeps_the_first(tmp_path: Path) -> None:
    with ModelCache(tmp_path).lock("source") as shelf:
        first = shelf.publish(None, "m", lambda p: p.write_bytes(b"x"))
        inode = first.stat().st_ino
        assert shelf.publish(None, "m", lambda p: p.write_bytes(b"x")) == first
        assert first.stat().st_ino == inode
    assert not list(tmp_path.rglob(".part-*"))


def test_model_cache_sources_and_versions_do_not_mix(tmp_path: Path) -> None:
    cache = ModelCache(tmp_path)
    paths = set()
    for source in ("a", "b"):
        with cache.lock(source) as shelf:
            for version in ("1", "2"):
                paths.add(shelf.publish(version, "m", lambda p: p.write_bytes(b"x")))
    assert len(paths) == 4


def test_model_cache_default_is_in_the_users_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert ModelCache().root == tmp_path / "x/servegraph/models"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "h"))
    assert ModelCache().root == tmp_path / "h/.cache/servegraph/models"
    assert ModelCache().root.stat().st_mode & 0o777 == 0o700


def test_model_cache_without_a_writable_home_is_private_among_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    root = ModelCache().root
    assert root == tmp_path / f"servegraph-models-{os.getuid()}"
    assert root.stat().st_mode & 0o777 == 0o700
    root.chmod(0o777)
    with pytest.raises(ModelLoadError, match=r"belongs to somebody else"):
        _ = ModelCache().root
    root.rmdir()
    root.symlink_to(tmp_path)
    with pytest.raises(ModelLoadError, match=r"belongs to somebody else"):
        _ = ModelCache().root
