from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from servegraph import jsoncodec
from servegraph.errors import ModelLoadError
from servegraph.serving.model_metadata import (
    features_of,
    load_model_spec,
    parse_model_spec,
    save_model_spec,
    write_model_spec,
)
from servegraph.serving.model_spec import Feature, ModelSpec

FLAT = """
kind: model
key: iris
db_key: train_iris
tag: v3
labels: {framework: sklearn, owner: me}
model_file: model.pkl
framework: sklearn
algorithm: RandomForest
metrics: {accuracy: 0.97}
parameters: {threshold: 0.5}
inputs:
- {name: sepal_length, value_type: float, description: in cm}
- {name: image, datatype: FP32, dims: [3, null]}
outputs:
- {name: species, value_type: str}
extra_data: {vocabulary: vocabulary.json, plot: 's3://b/plot.html'}
feature_stats: {sepal_length: {mean: 5.8}}
producer: {kind: run, uri: p/1}
"""

NESTED = """
kind: model
project: demo
metadata: {key: iris, project: demo, tag: v3, labels: {framework: sklearn, owner: me}}
spec:
  target_path: s3://bucket/iris/
  model_file: model.pkl
  framework: sklearn
  algorithm: RandomForest
  metrics: {accuracy: 0.97}
  parameters: {threshold: 0.5}
  inputs:
  - {name: sepal_length, value_type: float, description: in cm}
  - {name: image, datatype: FP32, dims: [3, null]}
  outputs:
  - {name: species, value_type: str}
  extra_data: {vocabulary: vocabulary.json, plot: 's3://b/plot.html'}
  feature_stats: {sepal_length: {mean: 5.8}}
  license: ''
status: {state: created}
"""


@pytest.mark.parametrize("text", [FLAT, NESTED], ids=["flat", "nested"])
def test_model_spec_of_mlrun_file_has_all_it_says(text: str) -> None:
    spec = parse_model_spec(text.encode(), "model_spec.yaml")

    assert spec == ModelSpec(
        inputs=[
            Feature("sepal_length", "float", None, {"description": "in cm"}),
            Feature("image", "FP32", (3, None)),
        ],
        outputs=[Feature("species", "str")],
        parameters={"threshold": 0.5},
        labels={"framework": "sklearn", "owner": "me"},
        tag="v3",
        framework="sklearn",
        algorithm="RandomForest",
        metrics={"accuracy": 0.97},
        model_file="model.pkl",
        extra_data={"vocabulary": "vocabulary.json", "plot": "s3://b/plot.html"},
        feature_stats={"sepal_length": {"mean": 5.8}},
    )


def test_model_spec_json_reads_as_yaml_does() -> None:
    data = jsoncodec.dumps(yaml.safe_load(NESTED))
    assert parse_model_spec(data, "m/model_spec.json") == parse_model_spec(NESTED.encode(), "m/model_spec.yaml")


def test_feature_to_dict_has_name_and_value_type() -> None:
    assert Feature("a", "float").to_dict() == {"name": "a", "value_type": "float"}
    assert Feature("a", "int", (2,), {"x": 1}).to_dict() == {"name": "a", "value_type": "int", "shape": [2], "x": 1}


@pytest.mark.parametrize(
    ("value_type", "datatype"),
    [("float", "FP64"), ("int32", "INT32"), ("str", "BYTES"), ("fp16", "FP16"), ("datetime", ""), ("", "")],
)
def test_feature_datatype_is_that_of_the_open_inference_protocol(value_type: str, datatype: str) -> None:
    assert Feature("a", value_type).datatype == datatype


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "model_spec.yaml: model metadata is a mapping, not a list"),
        ("kind: dataset", "kind: these are metadata of a 'dataset', not of a model"),
        ("inputs: {a: 1}", "model_spec.yaml: inputs: a list of features is needed, not a mapping"),
        ("inputs: [3]", r"model_spec.yaml: inputs\[0\]: a feature is a name or a mapping with 'name', not 3"),
        ("spec: {inputs: [a, {x: 1}]}", r"model_spec.yaml: spec.inputs\[1\]: a feature needs a 'name'; it has \['x'\]"),
        ("inputs: [{name: 3}]", r"inputs\[0\].name: a text is needed, not 3"),
        ("inputs: [{name: a, shape: big}]", r"inputs\[0\].shape: a list of whole numbers is needed, not 'big'"),
        ("outputs: [a, b, a]", "outputs: more than one feature has the name 'a'"),
        ("parameters: [1]", "parameters: a mapping is needed, not a list"),
        ("metadata: {labels: 1}", "metadata.labels: a mapping is needed, not 1"),
        ("spec: {}\nstatus: 7", "status: a mapping is needed, not 7"),
        ("model_file: 7", "model_file: a text is needed, not 7"),
        ("extra_data: {a: [1]}", "extra_data.a: a text is needed, not a list"),
        ("a: [", "model_spec.yaml: no readable YAML"),
    ],
)
def test_model_spec_wrong_value_is_told_with_file_and_key(text: str, message: str) -> None:
    with pytest.raises(ModelLoadError, match=message):
        parse_model_spec(text.encode(), "model_spec.yaml")


def test_model_spec_unknown_key_is_an_error_in_our_own_file_only() -> None:
    text = b"modelfile: m.pkl"
    assert parse_model_spec(text, "x/model_spec.yaml") == ModelSpec()
    with pytest.raises(ModelLoadError, match=r"x/servegraph-model.yaml: modelfile: .* did you mean 'model_file'"):
        parse_model_spec(text, "x/servegraph-model.yaml")
    nested = b"kind: model\nmetadata: {tag: a}\nspec: {model_file: m.pkl}"
    assert parse_model_spec(nested, "x/servegraph-model.yaml") == ModelSpec(tag="a", model_file="m.pkl")


def test_load_model_spec_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"nothing.yaml: No such file"):
        load_model_spec(tmp_path / "nothing.yaml")


def test_save_model_spec_names_and_dicts_are_read_back(tmp_path: Path) -> None:
    (tmp_path / "m.pkl").write_bytes(b"x")
    path = save_model_spec(
        tmp_path,
        "m.pkl",
        inputs=["a", {"name": "b", "value_type": "int", "unit": "kg"}, Feature("c", "float", (2,))],
        outputs=("y",),
        parameters={"z": 1, "a": 2},
        labels={"owner": "me"},
        framework="sklearn",
    )

    assert path.name == "model_spec.yaml"
    assert load_model_spec(path) == ModelSpec(
        inputs=[Feature("a"), Feature("b", "int", None, {"unit": "kg"}), Feature("c", "float", (2,))],
        outputs=[Feature("y")],
        parameters={"a": 2, "z": 1},
        labels={"owner": "me"},
        framework="sklearn",
        model_file="m.pkl",
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.pkl", "model_spec.yaml"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_save_model_spec_other_order_of_parameters_gives_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(b"")
    first = save_model_spec(tmp_path, "m", parameters={"b": 1, "a": {"y": 1}}).read_bytes()
    second = save_model_spec(tmp_path, "m", parameters={"a": {"y": 1}, "b": 1}).read_bytes()
    assert first == second
    assert first.startswith(b"kind: model\nmodel_file: m\n")


def test_save_model_spec_data_frame_gives_columns_and_types(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    (tmp_path / "m").write_bytes(b"")
    frame = pd.DataFrame({"a": [1], "b": [1.5], "c": ["x"], "d": [True], "e": pd.to_datetime(["2024-01-01"]), 7: [1]})
    frame["f"] = pd.array([1], dtype="Int64")

    spec = load_model_spec(save_model_spec(tmp_path, "m", inputs=frame, outputs=pd.Series([1.0], name="y")))

    types = [(f.name, f.value_type) for f in spec.inputs]
    assert types == [
        ("a", "int64"), ("b", "float64"), ("c", "str"), ("d", "bool"), ("e", "datetime"), ("7", "int64"),
        ("f", "int64"),
    ]  # fmt: skip
    assert spec.outputs == [Feature("y", "float64")]
    assert features_of(pd.Series([1]), "outputs") == [Feature("output", "int64")]
    wide = pd.DataFrame([[1]], columns=pd.MultiIndex.from_tuples([("a", "mean")]))
    assert features_of(wide) == [Feature("a_mean", "int64")]


def test_save_model_spec_numpy_parameters_become_plain_numbers(tmp_path: Path) -> None:
    np = pytest.importorskip("numpy")
    (tmp_path / "m").write_bytes(b"")
    spec = load_model_spec(save_model_spec(tmp_path, "m", parameters={"x": np.float64(0.5), "y": np.arange(2)}))
    assert spec.parameters == {"x": 0.5, "y": [0, 1]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_file": "other.pkl"}, "model_file: there is no 'other.pkl' in"),
        ({"model_file": "../m"}, "leads out of its folder"),
        ({"parameters": {"x": object()}}, r"parameters.x: builtins.object cannot be written"),
        ({"inputs": "abc"}, "inputs: a list of names or of mappings"),
        ({"inputs": [1]}, r"inputs\[0\]: a feature is a name"),
        ({"outputs": ["a", "a"]}, "outputs: more than one feature has the name 'a'"),
    ],
)
def test_save_model_spec_wrong_argument_is_told_and_nothing_written(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    (tmp_path / "m").write_bytes(b"")
    with pytest.raises(ModelLoadError, match=message):
        save_model_spec(tmp_path, **{"model_file": "m", **change})
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_names = _texts.filter(bool)
_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=8,
)
_mappings = st.dictionaries(_texts, _values, max_size=3)
_reserved = {"name", "value_type", "shape", "dims", "datatype"}
_features = st.lists(
    st.builds(
        Feature,
        _names,
        _texts,
        st.none() | st.lists(st.none() | st.integers(-1, 10**6), max_size=3).map(tuple),
        st.dictionaries(
            _texts.filter(lambda k: k not in _reserved), _values.filter(lambda v: v is not None), max_size=2
        ),
    ),
    max_size=3,
    unique_by=lambda f: f.name,
)
_specs = st.builds(
    ModelSpec,
    inputs=_features,
    outputs=_features,
    parameters=_mappings,
    labels=_mappings,
    tag=_texts,
    framework=_texts,
    algorithm=_texts,
    metrics=_mappings,
    extra_data=st.dictionaries(_texts, _names, max_size=2),
    feature_stats=_mappings,
)


@settings(max_examples=150, deadline=None)
@given(_specs)
def test_model_spec_any_spec_written_and_read_is_the_same(
    tmp_path_factory: pytest.TempPathFactory, spec: ModelSpec
) -> None:
    folder = tmp_path_factory.mktemp("spec")
    assert ModelSpec.from_dict(spec.to_dict()) == spec
    assert load_model_spec(write_model_spec(folder, spec)) == spec
