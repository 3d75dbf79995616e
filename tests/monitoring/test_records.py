from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servegraph import jsoncodec
from servegraph.graph.context import Prediction
from servegraph.monitoring.record_schema import BATCH, ERROR, PREDICTION, RECORD_SCHEMA
from servegraph.monitoring.records import Origin, batch_of, record_of, row_of

ORIGIN = Origin(0, "node-1", "shop/srv", 100.0)
WHEN_NS = 1_795_222_189_567_059_123


def prediction(request: Any = None, response: Any = None, **changes: Any) -> Prediction:
    fields: dict[str, Any] = {
        "model": "m1",
        "version": "v2",
        "model_class": "M",
        "endpoint_uid": "uid-1",
        "op": "infer",
        "request": {"inputs": [[5, 6], [7, 8]], "id": "r1"} if request is None else request,
        "response": {"id": "r1", "model_name": "m1", "outputs": [10, 14]} if response is None else response,
        "when_ns": WHEN_NS,
        "microsec": 118,
        "error": None,
        "metrics": None,
        "labels": None,
        "key": "uid-1",
        "request_id": "r1",
        **changes,
    }
    return Prediction(**fields)


def recorded(of: Prediction, percentage: float = 100.0, *, schema: Mapping[str, Any] = PREDICTION) -> dict[str, Any]:
    text = record_of(of, Origin(0, "node-1", "shop/srv", percentage))
    assert text is not None
    data: dict[str, Any] = jsoncodec.loads(text)
    jsonschema.validate(data, schema)
    jsonschema.validate(data, RECORD_SCHEMA)
    return data


def test_record_of_a_prediction_has_the_documented_shape() -> None:
    data = recorded(prediction(labels={"lbl": "x"}, metrics={"mm": np.int64(7)}))
    assert list(data.items()) == list(
        {
            "class": "M",
            "worker": 0,
            "model": "m1",
            "version": "v2",
            "host": "node-1",
            "function_uri": "shop/srv",
            "endpoint_id": "uid-1",
            "sampling_percentage": 100.0,
            "labels": {"lbl": "x"},
            "request": {"inputs": [[5, 6], [7, 8]], "id": "r1"},
            "op": "infer",
            "resp": {"id": "r1", "model_name": "m1", "outputs": [10, 14]},
            "when": "2026-11-21 00:49:49.567059+00:00",
            "microsec": 118,
            "metrics": {"mm": 7},
            "effective_sample_count": 2,
        }.items()
    )


def test_record_without_labels_and_metrics_has_neither() -> None:
    assert not {"labels", "metrics"} & set(recorded(prediction(labels={}, metrics={})))


def test_record_of_a_long_call_has_all_its_microseconds() -> None:
    assert recorded(prediction(microsec=1_200_220))["microsec"] == 1_200_220


def test_record_of_an_error_has_message_and_request_and_no_response() -> None:
    data = recorded(prediction({"inputs": [[1]]}, error=ValueError("no such row")), schema=ERROR)
    assert data["error"] == "ValueError: no such row"
    assert data["request"] == {"inputs": [[1]], "id": "r1"}
    assert not {"resp", "microsec", "metrics", "effective_sample_count"} & set(data)


def test_record_of_an_error_is_not_sampled_and_has_all_rows() -> None:
    failed = prediction({"inputs": [[n] for n in range(50)]}, error=KeyError("k"))
    assert all(len(recorded(failed, 0.001, schema=ERROR)["request"]["inputs"]) == 50 for _ in range(5))


def test_record_of_an_error_with_a_huge_message_is_cut() -> None:
    data = recorded(prediction(error=ValueError("x" * 100_000)), schema=ERROR)
    assert len(data["error"]) < 5000


@pytest.mark.parametrize(
    ("inputs", "shown", "count"),
    [
        ([5, 6], [[5, 6]], 1),
        (["a", "b"], [["a", "b"]], 1),
        ([np.float32(1), np.float32(2)], [[1.0, 2.0]], 1),
        (np.array([5, 6]), [[5, 6]], 1),
        (np.array([[5, 6], [7, 8], [9, 0]]), [[5, 6], [7, 8], [9, 0]], 3),
        ([np.array([5, 6]), np.array([7, 8])], [[5, 6], [7, 8]], 2),
        ([{"a": 1}, {"a": 2}], [{"a": 1}, {"a": 2}], 2),
        ([], [], 0),
        ([[]], [[]], 1),
        ({"a": 1, "b": 2}, {"a": 1, "b": 2}, 1),
    ],
)
def test_record_counts_samples_and_makes_flat_inputs_one_sample(inputs: Any, shown: Any, count: int) -> None:
    data = recorded(prediction({"inputs": inputs}))
    assert data["request"]["inputs"] == shown
    assert data["effective_sample_count"] == count


@pytest.mark.parametrize(
    ("request_", "shown"),
    [
        ({"instances": [[1]], "id": "r1"}, {"inputs": [[1]], "id": "r1"}),
        ({"inputs": [[1]], "tensors": {"x": [[1]]}}, {"inputs": [[1]], "id": "r1"}),
        ({"inputs": [[1]], "id": "own", "extra": 1}, {"inputs": [[1]], "id": "own", "extra": 1}),
        ({"text": "hello"}, {"text": "hello", "id": "r1"}),
        ([[1], [2]], {"inputs": [[1], [2]], "id": "r1"}),
        ("hello", {"inputs": [["hello"]], "id": "r1"}),
        (None, {"inputs": [[5, 6], [7, 8]], "id": "r1"}),
    ],
)
def test_record_brings_requests_into_one_form(request_: Any, shown: dict[str, Any]) -> None:
    assert recorded(prediction(request_))["request"] == shown


def test_record_of_a_response_that_is_no_object_has_it_as_outputs() -> None:
    assert recorded(prediction(response=[1, 2]))["resp"] == {"outputs": [1, 2]}


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=50)
@given(_json, _json, st.floats(0.1, 100.0), st.booleans())
def test_record_of_anything_changes_nothing_and_fits_the_schema(
    request: Any, response: Any, percentage: float, failed: bool
) -> None:
    before = jsoncodec.dumps([request, response])
    given_ = prediction(request, response, error=ValueError("x") if failed else None)
    if record_of(given_, Origin(0, "h", "p/f", percentage)) is not None:
        data = jsoncodec.loads(record_of(given_, ORIGIN) or pytest.fail("not sampled"))
        jsonschema.validate(data, RECORD_SCHEMA)
    assert jsoncodec.dumps([request, response]) == before


@pytest.mark.parametrize(
    ("given_id", "shown"),
    [("a", "a"), (7, 7), (["a"], "['a']"), ({"a": 1}, "{'a': 1}"), (True, "True"), ("", "r1"), (None, "r1")],
)
def test_request_id_is_text_or_a_number(given_id: Any, shown: Any) -> None:
    for request in ({"inputs": [[1]], "id": given_id}, {"inputs": [1], "id": given_id}):
        assert recorded(prediction(request))["request"]["id"] == shown


def test_error_with_text_that_is_no_unicode_is_recorded() -> None:
    data = recorded(prediction(error=FileNotFoundError("model\udcff.bin")), schema=ERROR)
    assert data["error"] == "FileNotFoundError: model?.bin"


def test_value_that_holds_itself_many_times_is_described_in_no_time() -> None:
    circle: dict[str, Any] = {"x": object()}
    circle["a"] = circle["b"] = circle
    assert recorded(prediction(response={"outputs": [1], "more": circle}))["resp"]["outputs"] == [1]


def test_sampled_rows_are_picked_with_their_outputs_from_copies() -> None:
    rows = [[n] for n in range(1000)]
    request, response = {"inputs": rows}, {"outputs": [10 * n for n in range(1000)]}
    data = recorded(prediction(request, response), 20.0)
    picked = [row[0] for row in data["request"]["inputs"]]
    assert 100 < len(picked) < 300
    assert picked == sorted(set(picked))
    assert data["resp"]["outputs"] == [10 * n for n in picked]
    assert data["effective_sample_count"] == len(picked)
    assert data["sampling_percentage"] == 20.0
    assert len(request["inputs"]) == len(response["outputs"]) == 1000


def test_sampled_arrays_and_named_outputs_are_picked_alike() -> None:
    inputs = np.arange(400).reshape(200, 2)
    response = {"outputs": {"label": np.arange(200), "score": list(range(200)), "model": "a"}}
    data = recorded(prediction({"inputs": inputs}, response), 50.0)
    picked = [row[0] // 2 for row in data["request"]["inputs"]]
    assert data["resp"]["outputs"] == {"label": picked, "score": picked, "model": "a"}


def test_sampled_prediction_without_a_picked_row_has_no_record() -> None:
    origin = Origin(0, "h", "p/f", 25.0)
    for make in (record_of, row_of):
        made = [make(prediction({"inputs": [[1]]}), origin) for _ in range(2000)]
        assert 400 < sum(one is not None for one in made) < 600


def test_batch_has_headers_and_one_row_for_each_prediction() -> None:
    of = [prediction({"inputs": [[n]] * n}, metrics={"n": n} if n else None, labels={"l": "x"}) for n in range(3)]
    data = jsoncodec.loads(batch_of([row_of(one, ORIGIN) or pytest.fail("not sampled") for one in of]))
    jsonschema.validate(data, BATCH)
    jsonschema.validate(data, RECORD_SCHEMA)
    assert data["labels"] == {"l": "x"}
    assert data["headers"] == ["request", "op", "resp", "when", "microsec", "metrics"]
    assert [row[5] for row in data["values"]] == [None, {"n": 1}, {"n": 2}]
    assert [len(row[0]["inputs"]) for row in data["values"]] == [0, 1, 2]
    assert data["effective_sample_count"] == 3


class Picture:
    mode = "RGB"
    size = (64, 48)


@pytest.mark.parametrize(
    ("inputs", "shown"),
    [
        ([b"\xff\x00" * 10], [{"kind": "bytes", "size": 20}]),
        ([[1, b"abc"]], [[1, {"kind": "bytes", "size": 3}]]),
        ([io.BytesIO(b"abc")], [{"kind": "bytes", "size": 3}]),
        (b"abc", [{"kind": "bytes", "size": 3}]),
        ([Picture()], [{"kind": "image", "size": [64, 48], "mode": "RGB"}]),
        ([np.zeros((100, 100, 3), "uint8")], [{"kind": "array", "shape": [100, 100, 3], "dtype": "uint8"}]),
        (np.zeros((2, 80, 80)), [{"kind": "array", "shape": [80, 80], "dtype": "float64"}] * 2),
        ([[[0.5] * 80] * 80] * 2, [{"kind": "array", "shape": [80, 80]}] * 2),
        ([[object()]], [[{"kind": "object", "type": "builtins.object"}]]),
    ],
)
def test_record_describes_images_bytes_and_large_tensors(inputs: Any, shown: Any) -> None:
    assert (
        recorded(prediction(inputs if isinstance(inputs, bytes) else {"inputs": inputs}))["request"]["inputs"] == shown
    )


@pytest.mark.parametrize("inputs", [[[[1, 2], [3, 4]]], [[0.5] * 5000], [list(range(10))] * 2000])
def test_record_keeps_small_tensors_and_long_rows(inputs: Any) -> None:
    assert recorded(prediction({"inputs": inputs}))["request"]["inputs"] == inputs


def test_record_describes_large_outputs_and_what_has_no_json() -> None:
    data = recorded(prediction(response={"outputs": [np.zeros((90, 90))], "model": object}))
    assert data["resp"]["outputs"] == [{"kind": "array", "shape": [90, 90], "dtype": "float64"}]
    assert data["resp"]["model"] == {"kind": "object", "type": "builtins.type"}


def test_record_of_a_body_that_holds_itself_is_described() -> None:
    loop: dict[str, Any] = {"inputs": [[1]]}
    loop["self"] = loop
    assert recorded(prediction(loop))["request"]["inputs"] == [[1]]


@pytest.mark.parametrize(
    ("returned", "inputs", "outputs"),
    [
        ((None, None), [[5, 6], [7, 8]], [10, 14]),
        (([["a"]], ["b"]), [["a"]], ["b"]),
        (([["a"]], None), [["a"]], []),
        ((None, ["b"]), [], ["b"]),
    ],
)
def test_logged_results_stand_in_for_the_real_ones(returned: Any, inputs: Any, outputs: Any) -> None:
    data = recorded(prediction(logged=lambda request, response, op: returned))
    assert (data["request"]["inputs"], data["resp"]["outputs"]) == (inputs, outputs)
    assert data["effective_sample_count"] == len(inputs)


def test_logged_results_that_return_no_pair_are_refused() -> None:
    async def later(request: Any, response: Any, op: str) -> None: ...

    for wrong in (later, lambda request, response, op: [1, 2]):
        with pytest.raises(TypeError, match=r"M\.logged_results must return a pair \(inputs, outputs\), not"):
            record_of(prediction(logged=wrong), ORIGIN)
