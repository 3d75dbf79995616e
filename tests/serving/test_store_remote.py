from __future__ import annotations

import builtins
import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from servegraph.errors import MissingExtraError, ModelLoadError
from servegraph.serving.model_spec import ModelSpec
from servegraph.serving.store import FetchedModel, fetch_model
from servegraph.serving.store_options import FetchOptions

fsspec = pytest.importorskip("fsspec")

Fetch = Callable[..., FetchedModel]


@pytest.fixture
def store() -> Iterator[Callable[[str, bytes], None]]:
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    yield lambda path, data: memory.pipe(path, data)
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


@pytest.fixture
def fetch(tmp_path: Path) -> Fetch:
    def call(uri: str, suffix: str = "", **options: Any) -> FetchedModel:
        return fetch_model(uri, suffix, cache_dir=tmp_path / "cache", options=FetchOptions(**options))

    return call


Put = Callable[[str, bytes], None]


def test_fetch_model_remote_file_is_fetched_once_for_each_version(store: Put, fetch: Fetch) -> None:
    store("/b/m.pkl", b"one")
    first = fetch("memory://b/m.pkl", ".pkl")
    assert (first.path.read_bytes(), first.path.name) == (b"one", "m.pkl")
    written = first.path.stat().st_mtime_ns
    assert fetch("memory://b/m.pkl").path.stat().st_mtime_ns == written
    store("/b/m.pkl", b"two")
    assert fetch("memory://b/m.pkl").path.read_bytes() == b"two"
    assert first.path.read_bytes() == b"one"


def test_fetch_model_remote_folder_is_searched_as_a_local_one(store: Put, fetch: Fetch) -> None:
    store("/b/iris/m.pkl", b"model")
    store("/b/iris/sub/x.txt", b"x")
    store("/b/iris/c.json", b"{}")
    assert set(fetch("memory://b/iris", ".pkl").extra) == {"c.json"}
    assert fetch("memory://b/iris/").path.name == "m.pkl"
    with pytest.raises(
        ModelLoadError, match=r"memory://b/iris: no file there ends in '.onnx'; it holds: c.json, m.pkl, sub/"
    ):
        fetch("memory://b/iris", ".onnx")
    store("/b/iris/model_spec.yaml", b"model_file: m.pkl\ntag: v1\nextra_data: {x: sub/x.txt, up: ../up, all: sub}")
    for uri in ("memory://b/iris", "memory://b/iris/model_spec.yaml", "memory://b/iris/m.pkl"):
        fetched = fetch(uri)
        assert fetched.path.read_bytes() == b"model"
        assert isinstance(fetched.spec, ModelSpec)
        assert fetched.spec.tag == "v1"
        assert fetched.extra["x"].get() == b"x"
        assert (fetched.extra["all"].path / "x.txt").read_bytes() == b"x"
        with pytest.raises(ModelLoadError, match=r"extra_data.up: '../up' leads out of its folder"):
            fetched.extra["up"].get()


def test_fetch_model_remote_folder_that_is_the_model_comes_whole(store: Put, fetch: Fetch) -> None:
    files = {"saved_model.pb": b"1", "variables/a/index": b"2", "variables/data": b"3"}
    for name, data in files.items():
        store(f"/b/net/{name}", data)

    fetched = fetch("memory://b/net")

    assert fetched.path.name == "net"
    assert {
        p.relative_to(fetched.path).as_posix(): p.read_bytes() for p in fetched.path.rglob("*") if p.is_file()
    } == files
    before = fetched.path
    store("/b/net/variables/data", b"4")
    assert fetch("memory://b/net").path != before


@pytest.mark.parametrize(
    ("options", "message"),
    [({"max_bytes": 25}, "larger than the 25 bytes"), ({"max_files": 2}, "3 files are more than the 2 allowed")],
)
def test_fetch_model_remote_folder_beyond_a_bound_is_refused(
    store: Put, fetch: Fetch, tmp_path: Path, options: dict[str, int], message: str
) -> None:
    for name in "abc":
        store(f"/b/net/{name}.x", b"x" * 10)
    with pytest.raises(ModelLoadError, match=message):
        fetch("memory://b/net", **options)
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.is_file() and p.suffix != ".lock"]
    assert not list((tmp_path / "cache").rglob(".part-*"))


def test_fetch_model_remote_names_that_lead_out_are_refused(store: Put, fetch: Fetch, tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    store("/b/net/ok", b"1")
    store("/b/net/good.bin", b"1")
    memory.store["/b/net/../../evil"] = memory.store["/b/net/ok"]
    with pytest.raises(ModelLoadError, match=r"leads out of its folder"):
        fetch("memory://b/net")
    assert not list(tmp_path.rglob("evil"))


def test_fetch_model_remote_missing_is_told(store: Put, fetch: Fetch) -> None:
    with pytest.raises(ModelLoadError, match=r"memory://b/none.pkl: there is no such file or folder"):
        fetch("memory://b/none.pkl")


def test_fetch_model_remote_shorter_than_announced_is_refused(
    store: Put, fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    store("/b/m.pkl", b"x" * 10)
    kind = type(fsspec.filesystem("memory"))
    info = kind.info
    monkeypatch.setattr(kind, "info", lambda self, path, **kw: {**info(self, path, **kw), "size": 20})
    with pytest.raises(ModelLoadError, match=r"10 of 20 bytes were received"):
        fetch("memory://b/m.pkl")


def test_fetch_model_remote_failure_of_the_filesystem_is_told(
    store: Put, fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    store("/b/m.pkl", b"x" * 10)

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("credentials are stale")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "info", fail)
    with pytest.raises(
        ModelLoadError, match=r"memory://b/m.pkl: it cannot be read: RuntimeError: credentials are stale"
    ):
        fetch("memory://b/m.pkl")


def test_fetch_model_remote_archive_is_unpacked(store: Put, fetch: Fetch, tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "x.zip", "w") as zipped:
        zipped.writestr("m.onnx", b"model")
    store("/b/x.zip", (tmp_path / "x.zip").read_bytes())
    assert fetch("memory://b/x.zip", ".onnx").path.read_bytes() == b"model"


@pytest.mark.parametrize(
    ("uri", "missing", "extra"),
    [
        ("memory://b/m", "fsspec", "remote"),
        ("s3://b/m", "s3fs", "s3"),
        ("gs://b/m", "gcsfs", "gcs"),
        ("az://b/m", "adlfs", "azure"),
        ("abfss://c@a.dfs.core.windows.net/m", "adlfs", "azure"),
    ],
)
def test_fetch_model_without_the_package_tells_how_to_install_it(
    fetch: Fetch, monkeypatch: pytest.MonkeyPatch, uri: str, missing: str, extra: str
) -> None:
    real = importlib.import_module

    def without(name: str, package: str | None = None) -> ModuleType:
        if name == missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(MissingExtraError, match=rf"pip install 'servegraph\[{extra}\]'"):
        fetch(uri)


@pytest.mark.parametrize(
    "uri", ["simplecache::memory://b/m.pkl", "memory://b/m.zip::zip://x", "zip://m.pkl::http://127.0.0.1/x"]
)
def test_fetch_model_chained_uri_is_refused(fetch: Fetch, uri: str) -> None:
    with pytest.raises(ModelLoadError):
        fetch(uri, schemes=("memory", "zip", "file"))


def test_fetch_model_scheme_that_fsspec_does_not_know_is_told(fetch: Fetch) -> None:
    with pytest.raises(
        ModelLoadError, match=r"nothing://x: it cannot be read: ValueError: Protocol not known: nothing"
    ):
        fetch("nothing://x", schemes=("nothing",))


def test_fetch_model_plain_paths_and_http_need_no_fsspec(
    fetch: Fetch, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        assert not name.startswith("fsspec")
        return real(name, *args, **kwargs)

    (tmp_path / "m.pkl").write_bytes(b"1")
    monkeypatch.setattr(builtins, "__import__", without)
    assert fetch(str(tmp_path / "m.pkl")).path.exists()
    with pytest.raises(ModelLoadError, match=r"not a public one"):
        fetch("http://127.0.0.1:1/m.pkl")
