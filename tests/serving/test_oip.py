from __future__ import annotations

import contextlib
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from servegraph import jsoncodec
from servegraph.errors import StepError, UnprocessableError
from servegraph.serving.protocols import oip

SIZES = {"INT8": 8, "INT16": 16, "INT32": 32, "INT64": 64, "UINT8": 8, "UINT16": 16, "UINT32": 32, "UINT64": 64}


def elements(datatype: str) -> st.SearchStrategy[Any]:
    if datatype in SIZES:
        bits = SIZES[datatype]
        low, high = (0, 2**bits - 1) if datatype.startswith("U") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        return st.integers(low, high)
    if datatype == "BOOL":
        return st.booleans()
    if datatype == "BYTES":
        return st.text(max_size=5)
    return st.floats(allow_nan=False, allow_infinity=False, width=32)


@st.composite
def tensors(draw: st.DrawFn, first: int | None = None) -> dict[str, Any]:
    datatype = draw(st.sampled_from(oip.DATATYPES))
    shape = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    if first is not None:
        shape[0] = first
    size = math.prod(shape)
    data = draw(st.lists(elements(datatype), min_size=size, max_size=size))
    return {"name": "x", "shape": shape, "datatype": datatype, "data": data}


def nested(data: list[Any], shape: list[int]) -> list[Any]:
    array = np.empty(len(data), dtype=object)
    array[:] = data
    out: list[Any] = array.reshape(shape).tolist()
    return out


@given(tensors(), st.booleans())
def test_decode_gives_the_rows_flat_or_nested(tensor: dict[str, Any], as_nested: bool) -> None:
    rows = nested(tensor["data"], tensor["shape"])
    sent = {**tensor, "data": rows} if as_nested else tensor
    request, wanted = oip.decode({"id": "i", "inputs": [sent]})
    assert request["inputs"] == rows
    assert request["tensors"] == {"x": rows}
    assert request["id"] == "i"
    assert wanted == ()


@given(tensors(), st.integers(-3, 3).filter(bool))
def test_decode_of_a_shape_that_lies_is_refused(tensor: dict[str, Any], lie: int) -> None:
    shape = [*tensor["shape"]]
    shape[0] += lie
    with pytest.raises(UnprocessableError, match=r"\$\.inputs\[0\]"):
        oip.decode({"inputs": [{**tensor, "shape": shape}]})


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=12))
def test_decode_of_any_huge_shape_is_refused_before_anything_is_made(shape: list[int]) -> None:
    tensor = {"name": "x", "shape": [*shape, 2**40], "datatype": "FP32", "data": [1.0]}
    with pytest.raises(UnprocessableError, match="shape"):
        oip.decode({"inputs": [tensor]})


@pytest.mark.parametrize("datatype", sorted(SIZES))
@pytest.mark.parametrize("side", [-1, 1])
def test_decode_of_an_integer_out_of_range_is_refused(datatype: str, side: int) -> None:
    bits = SIZES[datatype]
    low, high = (0, 2**bits - 1) if datatype.startswith("U") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    edge = low if side < 0 else high
    tensor = {"name": "x", "shape": [1], "datatype": datatype, "data": [edge]}
    assert oip.decode({"inputs": [tensor]})[0]["inputs"] == [edge]
    with pytest.raises(UnprocessableError, match=f"{datatype} holds {low} to {high}"):
        oip.decode({"inputs": [{**tensor, "data": [edge + side]}]})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"datatype": "FLOAT"}, "did you mean|is unknown"),
        ({"datatype": None}, "is unknown"),
        ({"shape": []}, "1 to 8 dimensions"),
        ({"shape": [1] * 9}, "1 to 8 dimensions"),
        ({"shape": 2}, "1 to 8 dimensions"),
        ({"shape": [-1]}, "is no dimension"),
        ({"shape": [True, 2]}, "is no dimension"),
        ({"shape": ["2"]}, "is no dimension"),
        ({"shape": [2.0]}, "is no dimension"),
        ({"data": 3}, "must be an array"),
        ({"data": "ab"}, "must be an array"),
        ({"data": [1.0, "a"]}, "holds str"),
        ({"data": [1.0, None]}, "holds NoneType"),
        ({"data": [1.0, True]}, "holds bool"),
        ({"data": [[1.0], [1.0, 2.0]], "shape": [2, 1]}, "not every part at depth 1"),
        ({"data": [[1.0, 2.0], [3.0, 4.0]], "shape": [4]}, "nesting does not fit|not every"),
        ({"data": [[1.0], 2.0], "shape": [2, 1]}, "not every part"),
        ({"data": [1.0, [2.0]]}, "holds list"),
    ],
)
def test_decode_of_a_tensor_that_does_not_fit_together_names_the_place(change: dict[str, Any], message: str) -> None:
    tensor = {"name": "x", "shape": [2], "datatype": "FP64", "data": [1.0, 2.0], **change}
    with pytest.raises(UnprocessableError, match=message) as caught:
        oip.decode({"inputs": [tensor]})
    assert "$.inputs[0]" in str(caught.value)


@pytest.mark.parametrize("missing", ["name", "shape", "datatype", "data"])
def test_decode_of_a_tensor_without_a_field_names_it(missing: str) -> None:
    tensor = {"name": "x", "shape": [1], "datatype": "FP64", "data": [1.0]}
    good = dict(tensor, name="y")
    del tensor[missing]
    with pytest.raises(UnprocessableError, match=rf"\$\.inputs\[1\].*{missing}"):
        oip.decode({"inputs": [good, tensor]})


@pytest.mark.parametrize("second", ["text", 3, None, [1]])
def test_decode_of_something_beside_a_tensor_is_refused(second: Any) -> None:
    good = {"name": "y", "shape": [1], "datatype": "FP64", "data": [1.0]}
    with pytest.raises(UnprocessableError, match=r"\$\.inputs\[1\]"):
        oip.decode({"inputs": [good, second]})


@pytest.mark.parametrize("name", [["x"], {"a": 1}, 3, None])
def test_decode_of_a_name_that_is_no_text_is_refused(name: Any) -> None:
    tensors = [
        {"name": name, "shape": [1], "datatype": "FP64", "data": [1.0]},
        {"name": "y", "shape": [1], "datatype": "FP64", "data": [1.0]},
    ]
    for inputs in (tensors[:1], tensors):
        with pytest.raises(UnprocessableError, match="name"):
            oip.decode({"inputs": inputs})


@given(st.integers(1, 3).flatmap(lambda n: st.tuples(tensors(n), tensors(n))))
def test_decode_of_several_tensors_puts_their_columns_side_by_side(pair: tuple[dict[str, Any], dict[str, Any]]) -> None:
    inputs = [{**t, "name": name} for t, name in zip(pair, "ab", strict=True)]
    request, _ = oip.decode({"inputs": inputs})
    assert list(request["tensors"]) == ["a", "b"]
    for i, row in enumerate(request["inputs"]):
        parts = [request["tensors"][name][i] for name in "ab"]
        assert row == [e for p in parts for e in (p if isinstance(p, list) else [p])]


def test_decode_of_several_tensors_that_do_not_go_together_is_refused() -> None:
    one = {"name": "a", "shape": [1], "datatype": "FP64", "data": [1.0]}
    two = {"name": "b", "shape": [2], "datatype": "FP64", "data": [1.0, 2.0]}
    with pytest.raises(UnprocessableError, match=r"first dimension: \{'a': 1, 'b': 2\}"):
        oip.decode({"inputs": [one, two]})
    with pytest.raises(UnprocessableError, match="two tensors named 'a'"):
        oip.decode({"inputs": [one, one]})


@pytest.mark.parametrize(("shape", "rows"), [([0], []), ([0, 3], []), ([2, 0], [[], []]), ([2, 0, 4], [[], []])])
def test_decode_of_an_empty_tensor_gives_its_rows(shape: list[int], rows: list[Any]) -> None:
    request, _ = oip.decode({"inputs": [{"name": "x", "shape": shape, "datatype": "FP32", "data": []}]})
    assert request["inputs"] == rows


def test_decode_reads_which_outputs_are_wanted() -> None:
    tensor = {"name": "x", "shape": [1], "datatype": "FP64", "data": [1]}
    request, wanted = oip.decode({"inputs": [tensor], "outputs": [{"name": "b"}, {"name": "a"}]})
    assert wanted == ("b", "a")
    assert "outputs" not in request
    assert request["inputs"] == [1.0]
    strange: list[Any] = ["x", [1], [{}], [{"name": 3}], {"name": "a"}]
    for wrong in strange:
        with pytest.raises(UnprocessableError, match=r"\$\.outputs"):
            oip.decode({"inputs": [tensor], "outputs": wrong})


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
fields = st.sampled_from(["name", "shape", "datatype", "data", "x"])
any_json = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(fields, inner, max_size=5), max_leaves=12
)


@given(any_json)
def test_decode_of_any_json_gives_a_request_or_422(value: Any) -> None:
    body = {"inputs": [{"datatype": "FP32", "shape": [1], **(value if isinstance(value, dict) else {"data": value})}]}
    assert oip.is_tensor_request(body)
    with contextlib.suppress(UnprocessableError):
        oip.decode(body)


@pytest.mark.parametrize(
    "body", [{}, {"inputs": []}, {"inputs": [1]}, {"inputs": {"a": 1}}, {"inputs": [{"a": 1}]}, {"inputs": [[1, 2]]}]
)
def test_is_tensor_request_tells_rows_from_tensors(body: dict[str, Any]) -> None:
    assert not oip.is_tensor_request(body)


# -- answers ----------------------------------------------------------------------------------------------------------


def encode(outputs: Any, wanted: tuple[str, ...] = (), names: tuple[str, ...] = (), version: str = "") -> Any:
    answer = oip.encode({"id": "i", "outputs": outputs}, wanted, names, "m", version)
    return json.loads(jsoncodec.dumps(answer))


@given(tensors())
def test_encode_of_nested_lists_is_decoded_to_the_same(tensor: dict[str, Any]) -> None:
    rows = nested(tensor["data"], tensor["shape"])
    (output,) = encode(rows)["outputs"]
    assert output["shape"] == tensor["shape"]
    try:
        request, _ = oip.decode({"inputs": [output]})
    except UnprocessableError:
        assert output["datatype"] == "INT64"  # of a whole number that only an unsigned one holds
        assert max(tensor["data"]) >= 2**63
    else:
        assert request["inputs"] == rows


@pytest.mark.parametrize("dtype", ["bool", "int8", "int64", "uint16", "uint64", "float16", "float32", "float64"])
def test_encode_of_an_array_has_its_datatype(dtype: str) -> None:
    array = np.array([[0, 1], [1, 0]], dtype=dtype)
    (output,) = encode(array)["outputs"]
    expected = dtype.upper().replace("FLOAT", "FP")
    assert (output["datatype"], output["shape"], output["data"]) == (expected, [2, 2], array.reshape(-1).tolist())


@pytest.mark.parametrize(
    ("value", "datatype", "shape", "data"),
    [
        (np.array(["a", "b"]), "BYTES", [2], ["a", "b"]),
        (np.float32(1.5), "FP32", [1], [1.5]),
        ([np.int64(3), np.int64(4)], "INT64", [2], [3, 4]),
        ([np.float64(3)], "FP64", [1], [3.0]),
        ([b"\xff\x00", "x"], "BYTES", [2], ["/wA=", "x"]),
        ([True, False], "BOOL", [2], [True, False]),
        ([1, 2.5], "FP64", [2], [1.0, 2.5]),
        (7, "INT64", [1], [7]),
        ("label", "BYTES", [1], ["label"]),
        ((1, 2), "INT64", [2], [1, 2]),
        ([], "FP64", [0], []),
        ([[], []], "FP64", [2, 0], []),
    ],
)
def test_encode_of_outputs_gives_a_tensor(value: Any, datatype: str, shape: list[int], data: list[Any]) -> None:
    (output,) = encode(value)["outputs"]
    assert (output["datatype"], output["shape"], output["data"]) == (datatype, shape, data)


def test_encode_of_a_whole_number_above_int64_is_unsigned() -> None:
    (output,) = encode([2**63, 1])["outputs"]
    assert output["datatype"] == "UINT64"
    with pytest.raises(StepError, match="no tensor form"):
        encode([2**64])
    with pytest.raises(StepError, match="no tensor form"):
        encode([2**63, -1])


def test_encode_of_a_frame_and_a_series_gives_their_values() -> None:
    import pandas as pd

    (output,) = encode(pd.Series([1.0, 2.0]))["outputs"]
    assert (output["datatype"], output["shape"]) == ("FP64", [2])


@pytest.mark.parametrize("value", [[[1], [1, 2]], [[[1], [2]], [[3]]]])
def test_encode_of_ragged_outputs_says_so(value: Any) -> None:
    with pytest.raises(StepError, match="ragged"):
        encode(value)


@pytest.mark.parametrize("value", [[{"a": 1}], [1, "a"], [True, 1], [None], [object()], [[1], 2]])
def test_encode_of_what_is_no_tensor_says_so(value: Any) -> None:
    with pytest.raises(StepError, match=r"no tensor form|ragged"):
        encode(value)


def test_encode_names_outputs_and_gives_the_wanted_ones_in_order() -> None:
    assert encode([1])["outputs"][0]["name"] == "output-0"
    assert encode([1], names=("label",))["outputs"][0]["name"] == "label"
    several = {"a": [1], "b": [2.0]}
    assert [o["name"] for o in encode(several)["outputs"]] == ["a", "b"]
    assert [o["name"] for o in encode(several, wanted=("b", "a"))["outputs"]] == ["b", "a"]
    assert [o["name"] for o in encode(several, wanted=("b",))["outputs"]] == ["b"]
    with pytest.raises(UnprocessableError, match="gives no 'c'; valid: a, b"):
        encode(several, wanted=("c",))


def test_encode_tells_model_version_id_and_parameters() -> None:
    answer = encode([1], version="v1")
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("m", "v1", "i")
    assert "model_version" not in encode([1])
    assert oip.encode({"outputs": [1], "parameters": {"k": 1}}, (), (), "m", "")["parameters"] == {"k": 1}
