from __future__ import annotations

import http.server
import io
import threading
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from servegraph.errors import ModelLoadError
from servegraph.serving.seldon.storage import Storage, StoragePlaces, local_model
from servegraph.serving.seldon.storage import _azure as azure
from servegraph.serving.store_options import FetchOptions
from servegraph.settings import OTHER_VARIABLES

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def store() -> Iterator[Callable[[str, bytes], None]]:
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    yield lambda path, data: memory.pipe(path, data)
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


@pytest.fixture
def places(tmp_path: Path) -> StoragePlaces:
    return StoragePlaces(tmp_path / "claims", cache_dir=tmp_path / "cache")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "model.joblib").write_bytes(b"1")
    (folder / "sub" / "x").write_bytes(b"2")
    return folder


def test_local_model_paths_and_file_uris_are_themselves(folder: Path, places: StoragePlaces) -> None:
    assert local_model(str(folder), places) == folder
    assert local_model(f"file://{folder}/model.joblib", places) == folder / "model.joblib"
    with pytest.raises(ModelLoadError, match="there is no such file or folder"):
        local_model(str(folder / "gone"), places)


def test_local_model_remote_folder_comes_whole(store: Callable[[str, bytes], None], places: StoragePlaces) -> None:
    for name in ("model.pkl", "metadata.yaml", "sub/x"):
        store(f"/bucket/iris/{name}", name.encode())
    path = local_model("memory://bucket/iris", places)
    assert sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()) == [
        "metadata.yaml",
        "model.pkl",
        "sub/x",
    ]


def test_local_model_pvc_is_below_its_mount_point(tmp_path: Path, folder: Path) -> None:
    places = StoragePlaces(tmp_path)
    assert local_model("pvc://claim/model/sub", places) == folder / "sub"
    assert local_model("pvc://claim", places) == tmp_path
    with pytest.raises(ModelLoadError, match=r"the claim 'claim' is to be mounted at .*SERVEGRAPH_PVC_ROOT"):
        local_model("pvc://claim/gone", places)
    with pytest.raises(ModelLoadError, match=r"leads out of its folder"):
        local_model("pvc://claim/../..", places)
    with pytest.raises(ModelLoadError, match=r"a claim and a path in it are needed"):
        local_model("pvc:///x", places)


def test_local_model_pvc_root_and_hosts_come_from_the_environment(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVEGRAPH_PVC_ROOT", str(tmp_path))
    monkeypatch.setenv("SERVEGRAPH_MODEL_HOSTS", "a.example, *.b.example")
    assert StoragePlaces.from_environment().hosts == ("a.example", "*.b.example")
    assert local_model("pvc://claim/model") == folder
    assert {"SERVEGRAPH_PVC_ROOT", "SERVEGRAPH_MODEL_HOSTS"} <= set(OTHER_VARIABLES)


def test_local_model_archive_over_http_is_unpacked_from_listed_hosts_only(tmp_path: Path, folder: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path in folder.rglob("*"):
            archive.write(path, path.relative_to(folder.parent))
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "model.zip").write_bytes(packed.getvalue())

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "served")))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        uri = f"http://127.0.0.1:{server.server_port}/model.zip"
        path = local_model(uri, StoragePlaces(hosts=("127.0.0.1",), cache_dir=tmp_path / "cache"))
        assert (path / "model.joblib").read_bytes() == b"1"
        with pytest.raises(ModelLoadError, match=r"127\.0\.0\.1"):
            local_model(uri, StoragePlaces(cache_dir=tmp_path / "cache"))
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("uri", ["minio:bucket/path", "gs remote:bucket/path"])
def test_local_model_remote_of_rclone_tells_what_is_supported(uri: str, places: StoragePlaces) -> None:
    with pytest.raises(ModelLoadError, match=r"remotes of rclone are not known here; .*s3://bucket/path.*pvc://claim"):
        local_model(uri, places)
    with pytest.raises(ModelLoadError, match="remotes of rclone"):
        Storage.download(uri)


@pytest.mark.parametrize("uri", ["ftp://host/x", "", "hdfs://x/y"])
def test_local_model_other_uris_are_errors_that_say_what_is_supported(uri: str, places: StoragePlaces) -> None:
    with pytest.raises(ModelLoadError, match=r"gs://bucket/path"):
        local_model(uri, places)


def test_azure_uris_name_container_and_account() -> None:
    uri, options = azure("wasbs://models@acct.blob.core.windows.net/iris/v1/", FetchOptions())
    assert (uri, dict(options.storage_options)) == ("az://models/iris/v1", {"account_name": "acct"})
    uri, options = azure("azure://models/iris", FetchOptions())
    assert (uri, dict(options.storage_options)) == ("az://models/iris", {})
    with pytest.raises(ModelLoadError, match="write wasbs://container@account"):
        azure("wasbs://models@evil.example/iris", FetchOptions())


def test_download_without_out_dir_gives_the_path_as_it_was_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Storage.download(str(folder)) == str(folder)
    assert Storage.download(f"file://{folder}") == str(folder)
    monkeypatch.chdir(folder.parent)
    assert Storage.download("model") == "model"


def test_download_to_out_dir_links_the_entries_and_may_be_repeated(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for _ in range(2):
        assert Storage.download(str(folder), str(out)) == str(out)
        assert {p.name: p.resolve() for p in out.iterdir()} == {p.name: p for p in folder.iterdir()}
    single = tmp_path / "single"
    Storage.download(str(folder / "model.joblib"), str(single))
    assert (single / "model.joblib").read_bytes() == b"1"
    (single / "model.joblib").unlink()
    (single / "model.joblib").write_bytes(b"own")
    with pytest.raises(ModelLoadError, match="is there already"):
        Storage.download(str(folder / "model.joblib"), str(single))


def test_download_missing_path_is_a_runtime_error() -> None:
    with pytest.raises(RuntimeError, match="there is no such file or folder"):
        Storage.download("/not/there")


def test_download_remote_comes_through_the_store(
    store: Callable[[str, bytes], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store("/bucket/iris/model.pkl", b"1")
    out = Storage.download("memory://bucket/iris", str(tmp_path / "out"))
    assert (Path(out) / "model.pkl").read_bytes() == b"1"
    assert (Path(Storage.download("memory://bucket/iris/model.pkl"))).read_bytes() == b"1"
