from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servegraph.serving.seldon.errors import SeldonMicroserviceException, SeldonNotImplementedError
from servegraph.serving.seldon.metadata import ModelMetadata, SeldonInvalidMetadataError, validate_model_metadata
from servegraph.serving.seldon.user_model import SeldonComponent

DEFAULT = {"name": "", "versions": [""], "platform": "", "inputs": [], "outputs": [], "custom": {}}

INPUTS: list[dict[str, Any]] = [
    {"messagetype": "tensor"},
    {"messagetype": "ndarray", "schema": {"names": ["a", "b"], "shape": [2, 2]}},
    {"messagetype": "tftensor", "schema": {"shape": [1]}},
    {"messagetype": "tensor", "schema": {}},
    {"messagetype": "jsonData"},
    {"messagetype": "jsonData", "schema": {"type": "object", "properties": {"x": {"type": "number"}}}},
    {"messagetype": "strData"},
    {"messagetype": "binData"},
    {"messagetype": "customData", "schema": {"anything": [1, None]}},
    {"messagetype": "my own"},
    {"name": "in", "datatype": "FP32", "shape": [-1, 4]},
    {"datatype": "BYTES"},
    {},
]

BAD: list[tuple[dict[str, Any], str]] = [
    ({"nam": "x"}, "metadata has no field 'nam'; did you mean 'name'?"),
    ({"name": 5}, "metadata.name must be a text, got 5"),
    ({"versions": "v1"}, "metadata.versions must be a list, got 'v1'"),
    ({"versions": ["v1", 2]}, "metadata.versions[1] must be a text, got 2"),
    ({"platform": None}, "metadata.platform must be a text, got None"),
    ({"custom": {"a": 1}}, "metadata.custom.a must be a text, got 1"),
    ({"custom": {1: "a"}}, "metadata.custom must be a mapping with texts as keys, got 1"),
    ({"custom": []}, "metadata.custom must be a mapping"),
    ({"inputs": {}}, "metadata.inputs must be a list"),
    ({"inputs": ["x"]}, "metadata.inputs[0] must be a mapping, got 'x'"),
    ({"inputs": [{"nam": "x"}]}, "metadata.inputs[0] has no field 'nam'; did you mean 'name'?"),
    ({"inputs": [{}, {"datatype": "FP33"}]}, "metadata.inputs[1].datatype must be a datatype, got 'FP33'; did you"),
    ({"inputs": [{"datatype": 5}]}, "metadata.inputs[0].datatype must be a datatype, got 5; valid: BOOL, BYTES"),
    ({"outputs": [{"shape": [1.5]}]}, "metadata.outputs[0].shape[0] must be an integer of 64 bits, got 1.5"),
    ({"outputs": [{"shape": [True]}]}, "metadata.outputs[0].shape[0] must be an integer"),
    ({"outputs": [{"shape": [2**63]}]}, "metadata.outputs[0].shape[0] must be an integer of 64 bits"),
    ({"outputs": [{"shape": 3}]}, "metadata.outputs[0].shape must be a list"),
    ({"inputs": [{"messagetype": 3}]}, "metadata.inputs[0].messagetype must be a text"),
    ({"inputs": [{"messagetype": "strData", "schema": {}}]}, "metadata.inputs[0] has no field 'schema'"),
    ({"inputs": [{"messagetype": "tensor", "name": "x"}]}, "metadata.inputs[0] has no field 'name'"),
    (
        {"inputs": [{"messagetype": "tensor", "schema": {"names": [1]}}]},
        "metadata.inputs[0].schema.names[0] must be a text",
    ),
    ({"inputs": [{"messagetype": "tensor", "schema": {"dtype": "x"}}]}, "metadata.inputs[0].schema has no field"),
    ({"inputs": [{"messagetype": "jsonData", "schema": 3}]}, "metadata.inputs[0].schema must be a mapping"),
    ({"inputs": [{"messagetype": "mine", "schema": {"x": {1, 2}}}]}, "metadata.inputs[0].schema must be plain JSON"),
]


def component(given_metadata: Any) -> Any:
    class Model:
        def init_metadata(self) -> Any:
            if isinstance(given_metadata, Exception):
                raise given_metadata
            return given_metadata

    return Model()


def test_metadata_of_nothing_is_all_defaults() -> None:
    assert ModelMetadata.of(object()).to_dict() == DEFAULT
    assert ModelMetadata.of(SeldonComponent()).to_dict() == DEFAULT


def test_image_gives_name_and_version_split_at_its_last_colon() -> None:
    found = ModelMetadata.of(object(), image="registry:5000/iris:0.3").to_dict()
    assert found == {**DEFAULT, "name": "registry:5000/iris", "versions": ["0.3"]}


def test_component_wins_over_image_and_deployment_over_both() -> None:
    own = {"name": "own", "versions": ["v1"], "platform": "own", "custom": {"a": "1", "b": "2"}}
    override = "name: env\ncustom: {c: '3'}\n"
    found = ModelMetadata.of(component(own), image="img:v0", override=override).to_dict()
    assert found == {**DEFAULT, "name": "env", "versions": ["v1"], "platform": "own", "custom": {"c": "3"}}


def test_override_may_be_json() -> None:
    assert ModelMetadata.of(object(), override=json.dumps({"name": "j"})).to_dict()["name"] == "j"


@pytest.mark.parametrize("override", ["name: [", "- a list", "just text", "!!python/object:os.system {}"])
def test_override_that_is_no_mapping_is_passed_over_and_logged(override: str, caplog: pytest.LogCaptureFixture) -> None:
    assert ModelMetadata.of(object(), override=override).to_dict() == DEFAULT
    assert "MODEL_METADATA is passed over" in caplog.text


def test_own_metadata_that_is_no_dict_is_passed_over_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    assert ModelMetadata.of(component(["x"])).to_dict() == DEFAULT
    assert "init_metadata of Model must give a dict, got list" in caplog.text


def test_method_that_is_a_coroutine_function_is_waited_for() -> None:
    class Model:
        async def init_metadata(self) -> dict[str, Any]:
            return {"name": "slow"}

    assert ModelMetadata.of(Model()).to_dict()["name"] == "slow"


def test_method_that_is_not_implemented_counts_as_missing_and_another_error_is_raised() -> None:
    assert ModelMetadata.of(component(SeldonNotImplementedError("x"))).to_dict() == DEFAULT
    with pytest.raises(ZeroDivisionError):
        ModelMetadata.of(component(ZeroDivisionError()))


@pytest.mark.parametrize("item", INPUTS, ids=str)
def test_inputs_and_outputs_of_each_form_are_taken(item: dict[str, Any]) -> None:
    found = validate_model_metadata({"inputs": [item], "outputs": [item, item]})
    assert found == {**DEFAULT, "inputs": [item], "outputs": [item, item]}


@pytest.mark.parametrize(("bad", "message"), BAD, ids=[message for _, message in BAD])
def test_what_is_not_valid_is_named_with_its_place(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(SeldonInvalidMetadataError) as caught:
        validate_model_metadata(bad)
    assert message in str(caught.value)


def test_invalid_metadata_is_logged_and_told_to_those_who_ask(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, logger="servegraph"):
        metadata = ModelMetadata.of(component({"inputs": [{"nam": "input", "datatype": 5}]}))
    assert "the metadata of Model is not valid: metadata.inputs[0] has no field 'nam'" in caplog.text
    with pytest.raises(SeldonMicroserviceException) as caught:
        metadata.to_dict()
    assert caught.value.status_code == 500
    assert caught.value.to_dict()["status"] == {
        "code": -1,
        "info": "Model metadata unavailable",
        "reason": "MICROSERVICE_BAD_METADATA",
        "status": 1,
    }


def test_proto_form_has_shapes_as_texts_and_numbers_as_floats() -> None:
    from google.protobuf import json_format

    own = {
        "name": "m",
        "inputs": [
            {"messagetype": "tensor", "schema": {"shape": [2]}},
            {"name": "x", "datatype": "FP32", "shape": [3]},
        ],
        "custom": {"a": "b"},
    }
    found = json_format.MessageToDict(ModelMetadata.of(component(own)).to_proto())
    assert found == {
        "name": "m",
        "versions": [""],
        "inputs": [
            {"messagetype": "tensor", "schema": {"shape": [2.0]}},
            {"name": "x", "datatype": "FP32", "shape": ["3"]},
        ],
        "custom": {"a": "b"},
    }


def test_proto_form_of_invalid_metadata_is_empty() -> None:
    message = ModelMetadata.of(component({"name": 5})).to_proto()
    assert message.DESCRIPTOR.name == "SeldonModelMetadata"
    assert message.SerializeToString() == b""


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda c: st.lists(c, max_size=3) | st.dictionaries(st.text(max_size=5), c, max_size=3),
)
_ITEM = st.dictionaries(st.sampled_from(["messagetype", "schema", "name", "datatype", "shape"]), _JSON, max_size=3)


@given(
    st.fixed_dictionaries({}, optional={"name": _JSON, "versions": _JSON, "inputs": st.lists(_ITEM), "custom": _JSON})
)
def test_any_document_is_valid_as_json_and_protobuf_or_refused(document: dict[str, Any]) -> None:
    metadata = ModelMetadata.of(component(document))
    metadata.to_proto()
    if metadata.problem:
        assert metadata.problem.startswith("metadata")
    else:
        assert validate_model_metadata(metadata.to_dict()) == metadata.to_dict()
