"""Contracts: reading them, requests made of them, answers checked against them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from servegraph.serving.seldon.contract import Contract, SeldonTesterException
from servegraph.serving.seldon.contract_batches import make_batch
from servegraph.serving.seldon.contract_checks import check_answer
from servegraph.serving.seldon.contract_writing import create_seldon_api_testing_file
from servegraph.serving.seldon.message import Message


def column(name: str = "x", **fields: Any) -> dict[str, Any]:
    return {"name": name, "ftype": "continuous", "dtype": "FLOAT", "range": [0, 1], **fields}


def contract(*features: dict[str, Any], targets: tuple[dict[str, Any], ...] = ()) -> Contract:
    return Contract.of({"features": list(features), "targets": list(targets)})


def data(values: Any, names: list[str] | None = None) -> Message:
    return Message("data", np.array(values), names or [])


# -- reading ---------------------------------------------------------------------------------------------------------


def test_contract_of_a_file_has_its_columns(tmp_path: Path) -> None:
    file = tmp_path / "contract.json"
    features = [column("a", range=[-1, "inf"], repeat=2), column("c", ftype="CATEGORICAL", values=["x", 1])]
    file.write_text(json.dumps({"features": features, "targets": [column("class", repeat=3)]}), encoding="utf-8")
    read = Contract.read(file)
    assert read.feature_names == ["a1", "a2", "c"]
    assert read.target_names == ["class:0", "class:1", "class:2"]
    assert (read.features[0].low, read.features[0].high) == (-1, math.inf)
    assert read.features[1].values == ("x", 1)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "features and targets"),
        ({"features": []}, "features is empty"),
        ({"features": {}}, "must be a list"),
        ({"features": [{}]}, r"features\[0\] must be an object with a name"),
        ({"features": [column(ftype="continous")]}, "did you mean 'continuous'"),
        ({"features": [column(dtype="STRING")]}, "valid: FLOAT, INT"),
        ({"features": [column(rnge=[0, 1])]}, "did you mean 'range'"),
        ({"features": [column(range=[1, 0])]}, "wrong way round"),
        ({"features": [column(range=[1])]}, "least, largest"),
        ({"features": [column(range=["a", 1])]}, "a number or 'inf'"),
        ({"features": [column(dtype="INT", range=[0.2, 0.8])]}, "no whole number"),
        ({"features": [column(dtype="INT", range=[0, 1e300])]}, "not told apart"),
        ({"features": [column(shape=[0])]}, "shape must be"),
        ({"features": [column(repeat=0)]}, "repeat must be"),
        ({"features": [column(ftype="categorical")]}, "needs values"),
        ({"features": [column("a", shape=[2, 3]), column("b")]}, r"beside each other.*a \[2, 3\], b \[1\]"),
    ],
)
def test_contract_that_is_wrong_is_refused_with_its_place(document: Any, message: str) -> None:
    with pytest.raises(SeldonTesterException, match=message):
        Contract.of(document)


def test_contract_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(SeldonTesterException, match="No such file"):
        Contract.read(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{", encoding="utf-8")
    with pytest.raises(SeldonTesterException, match="is not JSON"):
        Contract.read(tmp_path / "bad.json")


# -- batches ---------------------------------------------------------------------------------------------------------

BOUNDS = st.floats(-1e12, 1e12)


@st.composite
def ranges(draw: st.DrawFn) -> list[Any]:
    low, high = sorted((draw(BOUNDS), draw(BOUNDS)))
    return [draw(st.sampled_from([low, "inf"])), draw(st.sampled_from([high, "inf"]))]


VALUES = st.lists(st.one_of(st.text(max_size=5), st.integers(-99, 99), st.booleans()), min_size=1, max_size=4)
CONTINUOUS = st.builds(lambda r: column(range=r), ranges())
WHOLE = st.tuples(st.integers(-(10**9), 10**9), st.integers(0, 100)).map(
    lambda pair: column(dtype="INT", range=[pair[0], pair[0] + pair[1]])
)
CATEGORICAL = st.builds(lambda v: column(ftype="categorical", values=v), VALUES)
COLUMNS = st.tuples(
    st.one_of(CONTINUOUS, WHOLE, CATEGORICAL), st.integers(1, 3), st.lists(st.integers(1, 3), min_size=1, max_size=1)
).map(lambda parts: {**parts[0], "repeat": parts[1], "shape": parts[2]})


@given(st.lists(COLUMNS, min_size=1, max_size=4), st.integers(1, 20), st.integers(0, 2**32))
def test_batch_keeps_its_contract(columns: list[dict[str, Any]], rows: int, seed: int) -> None:
    made = contract(*columns, targets=tuple(columns))
    batch = make_batch(made, rows, np.random.default_rng(seed))
    assert batch.shape == (rows, sum(c["repeat"] * c["shape"][0] for c in columns))
    assert check_answer(made, Message("data", batch), rows) == []
    np.testing.assert_array_equal(batch, make_batch(made, rows, np.random.default_rng(seed)))


def test_batch_of_numbers_has_three_decimals_and_stays_in_its_range() -> None:
    made = contract(column(range=[0.0001, 0.0002]), column(range=[0, 1], shape=[500]))
    batch = make_batch(made, 2, np.random.default_rng(1))
    assert batch[:, 0].min() >= 0.0001
    np.testing.assert_array_equal(batch[:, 1:], np.round(batch[:, 1:], 3))


def test_batch_with_texts_keeps_its_numbers() -> None:
    made = contract(column(), column(ftype="categorical", values=["red", "blue"]), column(dtype="INT", range=[1, 9]))
    first = make_batch(made, 1, np.random.default_rng(1)).tolist()[0]
    assert [type(value) for value in first] == [float, str, int]


def test_batch_of_tensors_has_their_shape() -> None:
    assert make_batch(contract(column(shape=[28, 28, 1])), 3, np.random.default_rng(1)).shape == (3, 28, 28, 1)


def test_batch_of_whole_numbers_alone_is_of_whole_numbers() -> None:
    made = contract(column(dtype="INT", range=[0, 1]), column(ftype="categorical", values=[7, 8]))
    assert make_batch(made, 50, np.random.default_rng(1)).dtype.kind == "i"


# -- checks ----------------------------------------------------------------------------------------------------------

PROBABILITIES = contract(column(), targets=(column("class", repeat=2),))
LABEL = contract(column(), targets=(column("label", ftype="categorical", values=["a", "b", 1]),))
COUNT = contract(column(), targets=(column("n", dtype="INT", range=[0, "inf"]),))


@pytest.mark.parametrize(
    ("agreed", "answer"),
    [
        (PROBABILITIES, data([[0, 1], [0.5, 0.5]])),
        (PROBABILITIES, data([[0, 1], [0.5, 0.5]], ["t:0", "t:1"])),
        (PROBABILITIES, data([[0, 1], [0.5, 0.5]], ["class:0", "class:1"])),
        (LABEL, data([["a"], ["b"]])),
        (LABEL, data(["a", "b"])),
        (LABEL, data([1.0, 1.0])),
        (COUNT, data([[3], [10**9]])),
        (COUNT, data([[3.0], [4.0]])),
        (contract(column()), Message("strData", "anything")),
    ],
)
def test_answer_that_keeps_the_contract_has_no_findings(agreed: Contract, answer: Message) -> None:
    assert check_answer(agreed, answer, 2) == []


@pytest.mark.parametrize(
    ("agreed", "answer", "finding"),
    [
        (PROBABILITIES, Message("strData", "x"), "the answer holds strData: the targets are columns of data"),
        (PROBABILITIES, Message(), "the answer holds no data: the targets are columns of data"),
        (PROBABILITIES, data([[0, 1]]), "the answer has the shape [1, 2]: the targets make [2, 2]"),
        (PROBABILITIES, data([[0, 1, 0], [0, 1, 0]]), "the answer has the shape [2, 3]: the targets make [2, 2]"),
        (PROBABILITIES, data([[0, 1], [0, 1.5]]), "class is outside of 0 to 1: 1.5 (row 1, column 1)"),
        (PROBABILITIES, data([[0, 1], [0, math.nan]]), "class is no number: nan (row 1, column 1)"),
        (PROBABILITIES, data([[0, 1], [0, None]]), "class is no number: None (row 1, column 1)"),
        (
            PROBABILITIES,
            data([[-1, -2], [-3, -4]]),
            "class is outside of 0 to 1: -1 (row 0, column 0), -2 (row 0, column 1), -3 (row 1, column 0) and 1 more",
        ),
        (
            PROBABILITIES,
            data([[0, 1], [0, 1]], ["setosa", "virginica"]),
            "the names are setosa, virginica: the targets are class:0, class:1",
        ),
        (LABEL, data([["a"], ["c"]]), "label is none of its values: 'c' (row 1, column 0)"),
        (COUNT, data([[1], [2.5]]), "n is not whole: 2.5 (row 1, column 0)"),
        (COUNT, data([[1], [-2]]), "n is outside of 0 to inf: -2 (row 1, column 0)"),
    ],
)
def test_answer_that_breaks_the_contract_has_a_finding(agreed: Contract, answer: Message, finding: str) -> None:
    assert check_answer(agreed, answer, 2) == [finding]


def test_names_are_checked_only_when_wanted() -> None:
    answer = data([[0, 1], [0, 1]], ["setosa", "virginica"])
    assert check_answer(PROBABILITIES, answer, 2, names=False) == []


# -- contracts of data frames ----------------------------------------------------------------------------------------


def test_contract_of_a_frame_is_kept_by_its_rows(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "size": [1.5, None, 3.25],
            "count": [1, 2, 7],
            "colour": ["red", None, "blue"],
            "good": [True, False, True],
            "empty": [math.nan] * 3,
            "class": ["a", "b", "a"],
        }
    )
    file = tmp_path / "contract.json"
    assert create_seldon_api_testing_file(frame, "class", str(file)) is True
    document = json.loads(file.read_text(encoding="utf-8"))
    assert document == {
        "features": [
            {"name": "size", "ftype": "continuous", "dtype": "FLOAT", "range": [1.5, 3.25]},
            {"name": "count", "ftype": "continuous", "dtype": "INT", "range": [1, 7]},
            {"name": "colour", "ftype": "categorical", "values": ["red", "blue"]},
            {"name": "good", "ftype": "categorical", "values": [True, False]},
            {"name": "empty", "ftype": "continuous", "dtype": "FLOAT"},
        ],
        "targets": [{"name": "class", "ftype": "categorical", "values": ["a", "b"]}],
    }
    read = Contract.read(file)
    assert make_batch(read, 5, np.random.default_rng(1)).shape == (5, 5)
    assert check_answer(read, Message("data", frame["class"].to_numpy()), 3) == []


def test_contract_of_a_frame_without_its_target_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SeldonTesterException, match="no column 'y'; it has x"):
        create_seldon_api_testing_file(pd.DataFrame({"x": [1]}), "y", tmp_path / "contract.json")
    with pytest.raises(SeldonTesterException, match="'x' has no values"):
        create_seldon_api_testing_file(pd.DataFrame({"x": [None], "y": [1]}), "y", tmp_path / "contract.json")
