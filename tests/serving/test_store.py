from __future__ import annotations

import hashlib
import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from servegraph.errors import ModelLoadError
from servegraph.serving.model_metadata import write_model_spec
from servegraph.serving.model_spec import ModelSpec
from servegraph.serving.store import FetchedModel, fetch_model
from servegraph.serving.store_options import FetchOptions


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.mkdir()
    return path


def _fetch(uri: str | Path, suffix: str = "", **options: object) -> FetchedModel:
    cache = Path(os.environ["XDG_CACHE_HOME"])
    return fetch_model(str(uri), suffix, cache_dir=cache, options=FetchOptions(**options))  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_fetch_model_file_is_used_in_place(folder: Path) -> None:
    (folder / "m.pkl").write_bytes(b"abc")

    for uri in (str(folder / "m.pkl"), f"file://{folder}/m.pkl", f"file://localhost{folder}/m%2Epkl"):
        fetched = _fetch(uri, ".pkl")
        assert fetched.path == folder / "m.pkl"
        assert fetched.digest == hashlib.sha256(b"abc").hexdigest()
        assert (fetched.spec, fetched.extra, fetched.artifact_parameters) == (None, {}, {})
    assert not (folder.parent / "cache").exists()


def test_fetch_model_relative_path_and_home_are_resolved(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "m.pkl").write_bytes(b"abc")
    monkeypatch.chdir(folder.parent)
    monkeypatch.setenv("HOME", str(folder))
    assert _fetch("./model/m.pkl").path == _fetch("model").path == _fetch("~/m.pkl").path == folder / "m.pkl"


def test_fetch_model_file_with_other_ending_is_refused(folder: Path) -> None:
    (folder / "m.pkl").write_bytes(b"")
    with pytest.raises(ModelLoadError, match=r"m.pkl: it does not end in '.onnx'"):
        _fetch(folder / "m.pkl", ".onnx")


@pytest.mark.parametrize("uri", ["", "a\0b", "file://elsewhere/m.pkl", "~nobody-has-this-name/m"])
def test_fetch_model_path_that_cannot_be_is_refused(uri: str) -> None:
    with pytest.raises(ModelLoadError):
        _fetch(uri)


def test_fetch_model_missing_file_is_told(folder: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"none.pkl: there is no such file or folder"):
        _fetch(folder / "none.pkl")


def test_fetch_model_pipe_is_refused_without_waiting(folder: Path) -> None:
    os.mkfifo(folder / "m.pkl")
    with pytest.raises(ModelLoadError, match=r"neither a file nor a folder"):
        _fetch(folder / "m.pkl")
    os.mkfifo(folder / "model_spec.yaml")
    (folder / "n.pkl").write_bytes(b"")
    assert _fetch(folder, ".pkl").path.name == "n.pkl"


def test_fetch_model_folder_without_metadata_gives_file_with_suffix_and_the_others(folder: Path) -> None:
    for name in ("m.onnx", "classes.json", ".hidden.onnx"):
        (folder / name).write_text(name)

    fetched = _fetch(folder, ".onnx")

    assert fetched.path == folder / "m.onnx"
    assert fetched.extra["classes.json"].get("utf-8") == "classes.json"
    assert fetched.extra["classes.json"].path == folder / "classes.json"
    assert fetched.extra["classes.json"].local() == str(folder / "classes.json")


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["a.bin"], "a.bin"),
        (["a.pkl", "b.json"], "a.pkl"),
        (["a.pkl", "b.pkl"], ""),
        (["a.bin", "b.json"], ""),
        (["saved_model.pb", "variables/x"], ""),
        (["variables/x"], ""),
    ],
)
def test_fetch_model_folder_without_suffix_gives_only_file_or_only_pickle_or_folder(
    folder: Path, names: list[str], chosen: str
) -> None:
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(name)
    assert _fetch(folder).path == folder / chosen


def test_fetch_model_suffix_may_name_a_folder(folder: Path) -> None:
    (folder / "net.savedmodel").mkdir()
    (folder / "net.savedmodel" / "x").write_text("x")
    (folder / "notes.txt").write_text("x")
    assert _fetch(folder, ".savedmodel").path == folder / "net.savedmodel"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.onnx", "b.json"], r"no file there ends in '.pkl'; it holds: a.onnx, b.json"),
        (["a.pkl", "b.pkl"], r"several files there end in '.pkl'; it holds: a.pkl, b.pkl"),
        ([], r"no file there ends in '.pkl'; it is empty"),
    ],
)
def test_fetch_model_no_or_several_candidates_are_listed(folder: Path, names: list[str], message: str) -> None:
    for name in names:
        (folder / name).write_text(name)
    with pytest.raises(ModelLoadError, match=message):
        _fetch(folder, ".pkl")


def test_fetch_model_empty_folder_is_told(folder: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"there is no model in it"):
        _fetch(folder)


def test_fetch_model_metadata_tell_file_parameters_and_extra_data(folder: Path) -> None:
    (folder / "data").mkdir()
    (folder / "data" / "a.csv").write_text("x,y\n1,2\n")
    (folder / "m.bin").write_bytes(b"1")
    (folder / "n.bin").write_bytes(b"2")
    spec = ModelSpec(model_file="n.bin", parameters={"t": 1}, extra_data={"table": "data/a.csv", "gone": "b.csv"})
    write_model_spec(folder, spec)

    for uri in (folder, folder / "n.bin", folder / "model_spec.yaml"):
        fetched = _fetch(uri)
        assert fetched.path == folder / "n.bin"
        assert fetched.spec == spec
        assert fetched.artifact_parameters == {"t": 1}
        assert Path(fetched.extra["table"]).read_text() == "x,y\n1,2\n"
        with pytest.raises(ModelLoadError, match=r"gone|b.csv"):
            fetched.extra["gone"].local()


def test_fetch_model_suffix_does_not_overrule_metadata(folder: Path) -> None:
    (folder / "m.joblib").write_bytes(b"1")
    (folder / "old.pkl").write_bytes(b"2")
    write_model_spec(folder, ModelSpec(model_file="m.joblib"))
    assert _fetch(folder, ".pkl").path.name == "m.joblib"


def test_fetch_model_metadata_about_another_file_are_not_taken_for_a_file(folder: Path) -> None:
    (folder / "m.pkl").write_bytes(b"1")
    (folder / "n.pkl").write_bytes(b"2")
    write_model_spec(folder, ModelSpec(model_file="n.pkl"))
    assert _fetch(folder / "m.pkl").spec is None


def test_fetch_model_metadata_may_name_a_folder_or_no_file(folder: Path) -> None:
    (folder / "net").mkdir()
    (folder / "net" / "weights").write_bytes(b"1")
    write_model_spec(folder, ModelSpec(model_file="net"))
    assert _fetch(folder).path == folder / "net"
    write_model_spec(folder, ModelSpec(tag="v1"))
    (folder / "m.pkl").write_bytes(b"1")
    fetched = _fetch(folder, ".pkl")
    assert (fetched.path, fetched.spec) == (folder / "m.pkl", ModelSpec(tag="v1"))


def test_fetch_model_own_metadata_file_goes_before_mlruns(folder: Path) -> None:
    (folder / "m.pkl").write_bytes(b"1")
    (folder / "model_spec.yaml").write_text("tag: theirs\nmodel_file: m.pkl\n")
    (folder / "servegraph-model.yaml").write_text("tag: ours\nmodel_file: m.pkl\n")
    spec = _fetch(folder).spec
    assert spec is not None
    assert spec.tag == "ours"


def test_fetch_model_missing_model_file_is_told_with_what_is_there(folder: Path) -> None:
    (folder / "model_spec.yaml").write_text("model_file: m.pkl\n")
    with pytest.raises(ModelLoadError, match=r"model_spec.yaml: model_file: .*m.pkl.*; it holds: model_spec.yaml"):
        _fetch(folder)


@pytest.mark.parametrize(
    "name", ["../secret", "a/../../secret", "/etc/passwd", "link", "linked/secret", "~/secret", "file:///etc/passwd",
    "a\\b", ".", "x" * 300]
)  # fmt: skip
def test_fetch_model_metadata_that_lead_out_of_the_folder_are_refused(folder: Path, name: str) -> None:
    (folder.parent / "secret").write_text("secret")
    (folder / "link").symlink_to(folder.parent / "secret")
    (folder / "linked").symlink_to(folder.parent)
    (folder / "m.pkl").write_bytes(b"1")
    (folder / "model_spec.json").write_bytes(b'{"model_file": "%s"}' % name.replace("\\", "\\\\").encode())
    with pytest.raises(ModelLoadError, match=r"model_file"):
        _fetch(folder)
    (folder / "model_spec.json").write_bytes(b'{"extra_data": {"x": "%s"}}' % name.replace("\\", "\\\\").encode())
    extra = _fetch(folder, ".pkl").extra["x"]
    with pytest.raises(ModelLoadError, match=r"extra_data|extra data"):
        extra.get()


def test_fetch_model_listed_link_out_of_the_folder_is_refused(folder: Path) -> None:
    (folder.parent / "secret.pkl").write_text("secret")
    (folder / "m.pkl").symlink_to(folder.parent / "secret.pkl")
    with pytest.raises(ModelLoadError, match=r"a link that leads out of"):
        _fetch(folder, ".pkl")
    assert _fetch(folder / "m.pkl").path == folder / "m.pkl"


def test_fetch_model_link_within_the_folder_is_followed(folder: Path) -> None:
    (folder / "..data").mkdir()
    (folder / "..data" / "m.pkl").write_text("x")
    (folder / "m.pkl").symlink_to("..data/m.pkl")
    assert _fetch(folder, ".pkl").path.read_text() == "x"


def test_fetch_model_pinned_digest_has_to_match(folder: Path) -> None:
    (folder / "m.pkl").write_bytes(b"abc")
    digest = hashlib.sha256(b"abc").hexdigest()
    assert _fetch(folder, sha256=digest.upper()).digest == digest
    with pytest.raises(ModelLoadError, match=f"its SHA-256 is {digest}, not 0000"):
        _fetch(folder, sha256="0" * 64)


def test_fetch_model_digest_of_a_folder_tells_names_and_contents(folder: Path) -> None:
    def digest(files: dict[str, str]) -> str:
        sub = folder / str(len(list(folder.iterdir())))
        for name, text in files.items():
            (sub / name).parent.mkdir(parents=True, exist_ok=True)
            (sub / name).write_text(text)
        return _fetch(sub).digest

    same = {"a/x": "1", "b": "2"}
    assert digest(same) == digest(dict(reversed(same.items())))
    assert len({digest(f) for f in (same, {"a/y": "1", "b": "2"}, {"a/x": "2", "b": "1"}, {"a/x": "1", "c": "2"})}) == 4


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("gopher://h/m", "models may not come by gopher://; valid: abfs, "),
        ("ftp://h/m", "models may not come by ftp://"),
        ("store://models/p/m", "MLRun's store:// needs its service"),
    ],
)
def test_fetch_model_scheme_that_is_not_allowed_is_refused(uri: str, message: str) -> None:
    with pytest.raises(ModelLoadError, match=message):
        _fetch(uri)


def test_fetch_model_plain_path_where_files_are_not_allowed_is_refused(folder: Path) -> None:
    (folder / "m.pkl").write_bytes(b"")
    with pytest.raises(ModelLoadError, match=r"models may not come by file://; valid: https"):
        _fetch(folder, schemes=("https",))


def _archive(folder: Path, name: str, files: dict[str, bytes]) -> Path:
    source = folder / "source"
    for each, data in files.items():
        (source / each).parent.mkdir(parents=True, exist_ok=True)
        (source / each).write_bytes(data)
    path = folder / name
    if name.endswith(".zip"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
            for each in files:
                zipped.write(source / each, each)
    else:
        with tarfile.open(path, "w:gz" if "gz" in name else "w") as tarred:
            for item in sorted(source.iterdir()):
                tarred.add(item, item.name)
    return path


@pytest.mark.parametrize("name", ["m.zip", "m.tar.gz", "m.tgz", "m.tar"])
def test_fetch_model_archive_is_unpacked_when_another_ending_is_asked(folder: Path, name: str) -> None:
    files = {"iris/m.onnx": b"model", "iris/model_spec.yaml": b"model_file: m.onnx\ntag: a\n", "iris/c.txt": b"c"}
    archive = _archive(folder, name, files)

    fetched = _fetch(archive, ".onnx")

    assert fetched.path.read_bytes() == b"model"
    assert fetched.spec == ModelSpec(model_file="m.onnx", tag="a")
    assert _fetch(archive).path == archive
    assert _fetch(archive, extract=True).path == fetched.path
    assert _fetch(archive, name[1:]).path == archive
    with pytest.raises(ModelLoadError, match=r"it does not end in '.onnx'"):
        _fetch(archive, ".onnx", extract=False)


def test_fetch_model_archive_named_by_metadata_is_unpacked(folder: Path) -> None:
    _archive(folder, "net.zip", {"net/weights.h5": b"w", "net/other": b"o"})
    (folder / "model_spec.yaml").write_text("model_file: net.zip\ntag: t\nextra_data: {src: source/net/other}\n")

    fetched = _fetch(folder, ".h5")

    assert fetched.path.read_bytes() == b"w"
    assert fetched.spec is not None
    assert fetched.spec.tag == "t"
    assert set(fetched.extra) == {"src", "other"}
    assert _fetch(folder).path == folder / "net.zip"


def test_fetch_model_hostile_archive_leaves_nothing_behind(folder: Path) -> None:
    path = folder / "m.zip"
    with zipfile.ZipFile(path, "w") as zipped:
        zipped.writestr("good.pkl", "x")
        zipped.writestr("../../evil.pkl", "x")
    with pytest.raises(ModelLoadError, match=r"m.zip: '../../evil.pkl' leads out of its folder"):
        _fetch(path, ".pkl")
    assert {p.name for p in folder.parent.rglob("*") if p.is_file() and p.suffix != ".lock"} == {"m.zip"}
    assert not list((folder.parent / "cache").rglob(".part-*"))


def test_extra_file_as_df_reads_by_ending(folder: Path) -> None:
    pytest.importorskip("pandas")
    (folder / "m.bin").write_bytes(b"1")
    (folder / "t.csv").write_text("a,b\n1,2\n")
    (folder / "t.json").write_text('[{"a": 1, "b": 2}]')
    (folder / "t.txt").write_text("x")
    extra = _fetch(folder, ".bin").extra
    assert extra["t.csv"].as_df().to_dict("records") == extra["t.json"].as_df().to_dict("records") == [{"a": 1, "b": 2}]
    with pytest.raises(
        ModelLoadError, match=r"a data frame cannot be read from it; .*valid: .csv, .json, .parquet, .pq"
    ):
        extra["t.txt"].as_df()
    extra["t.txt"].download(folder / "copy.txt")
    assert (folder / "copy.txt").read_text() == "x"
    assert repr(extra["t.txt"]) == f"ExtraFile('t.txt', '{folder}/t.txt')"


def test_fetch_options_from_parameters_reads_texts() -> None:
    given = {
        "model_hosts": "a.example, b.example",
        "model_max_bytes": "10",
        "model_timeout_s": 5,
        "model_extract": True,
    }
    options = FetchOptions.from_parameters(lambda key, default: given.get(key, default))
    assert options == FetchOptions(hosts=("a.example", "b.example"), max_bytes=10, timeout_s=5.0, extract=True)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model_max_bytes": "many"}, "parameter model_max_bytes: 'many' cannot be read"),
        ({"model_extract": "yes"}, "parameter model_extract: a bool is needed"),
        ({"model_hosts": 7}, "parameter model_hosts: 7 cannot be read"),
        ({"model_hosts": [7]}, "parameter model_hosts: a list of texts is needed"),
        ({"model_sha256": "abc"}, "sha256 is 64 hexadecimal digits"),
        ({"model_timeout_s": 0}, "timeout_s must be above 0"),
    ],
)
def test_fetch_options_wrong_parameter_is_told(given: dict[str, object], message: str) -> None:
    with pytest.raises(ModelLoadError, match=message):
        FetchOptions.from_parameters(lambda key, default: given.get(key, default))
