from __future__ import annotations

import base64
import gzip
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servegraph import jsoncodec
from servegraph.errors import SpecError
from servegraph.runtimes.serving_spec import LARGE, function_from_spec, function_from_text, spec_text, unpack

ROUTER = {"kind": "router", "routes": {"m": {"kind": "task", "class_name": "M"}}}


def packed(value: object) -> str:
    return base64.b64encode(gzip.compress(jsoncodec.dumps(value))).decode()


MLRUN = {
    "function_name": "iris",
    "function_tag": None,
    "function_uri": "demo/iris:v1@abcdef",
    "function_hash": "abcdef",
    "version": "v2",
    "parameters": {"log_stream": "file:///x.jsonl"},
    "graph": ROUTER,
    "load_mode": "async",
    "functions": {},
    "graph_initializer": None,
    "error_stream": "file:///e.jsonl",
    "track_models": True,
    "default_content_type": "application/json",
    "model_endpoint_creation_task_name": None,
    "streaming": False,
    "filename": "/no/such/file.py",
}


@pytest.mark.parametrize("text", [jsoncodec.dumps(MLRUN), packed(MLRUN), f"\n{packed(MLRUN)}\n".encode()])
def test_serving_spec_is_read_plain_and_packed(text: Any) -> None:
    function = function_from_text(text, is_json=True)
    assert function.uri == "demo/iris:v1"
    assert function.spec.load_mode == "async"
    assert function.spec.tracking is not None
    assert function.spec.tracking.stream_path == "file:///x.jsonl"
    assert (function.spec.error_stream, function.spec.filename) == ("file:///e.jsonl", "")
    assert list(function.graph.routes) == ["m"]


def test_serving_spec_with_secret_sources_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "t0p")
    function = function_from_spec({**MLRUN, "secret_sources": [{"kind": "env", "source": "TOKEN"}]})
    assert function.new_context().get_secret("TOKEN") == "t0p"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({**MLRUN, "streaming": True}, r"^\$\.streaming: "),
        ({**MLRUN, "grap": 1}, r"^\$\.grap: .*did you mean 'graph'"),
        ({**MLRUN, "load_mode": "x"}, r"^\$\.load_mode: "),
        ({**MLRUN, "secret_sources": [{"kind": "vault", "source": {}}]}, r"^\$\.secret_sources\[0\]: .*vault"),
        ({"apiVersion": "nuclio.io/v1", "kind": "NuclioFunction", "spec": {}}, "for Nuclio"),
        ({"x": 1}, r"^\$: this is no spec that is known \(it has list \['x'\]\)"),
        ({"kind": "router", "rutes": {}}, r"^\$\.rutes: "),
        ([1], r"^\$: a spec must be an object"),
    ],
)
def test_spec_that_is_wrong_names_the_path(data: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        function_from_spec(data)


def test_spec_of_a_bare_graph_gets_the_name() -> None:
    assert function_from_spec(ROUTER, "mine").name == "mine"
    assert function_from_text("steps:\n  s: {handler: json.dumps}\n", "flow").graph.kind == "flow"


def test_spec_in_yaml_that_is_wrong_names_the_line() -> None:
    with pytest.raises(SpecError, match=r"^line 2: \$\.steps\.s\.hander"):
        function_from_text("steps:\n  s: {hander: x}\n")


@pytest.mark.parametrize("text", ["H4sIAAAA", "H4sI!", packed(MLRUN)[:-12]])
def test_packed_spec_that_is_broken_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="packed spec"):
        function_from_text(text, is_json=True)


def test_packed_spec_that_grows_too_large_is_refused() -> None:
    bomb = base64.b64encode(gzip.compress(b" " * 100_000_000)).decode()
    with pytest.raises(SpecError, match="more than the 8 MiB"):
        function_from_text(bomb, is_json=True)


@given(st.dictionaries(st.text("ab", max_size=3), st.text(st.characters(codec="utf-8"), max_size=9000), max_size=2))
def test_spec_text_comes_back_and_is_packed_when_large(data: dict[str, str]) -> None:
    text = spec_text(data)
    assert text == spec_text(dict(data))
    assert len(text.encode()) <= max(LARGE, len(jsoncodec.dumps(data)))
    assert jsoncodec.loads(unpack(text) if text.startswith("H4sI") else text) == data
