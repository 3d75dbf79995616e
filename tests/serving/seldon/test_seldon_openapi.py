from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from openapi_spec_validator import OpenAPIV30SpecValidator

from servegraph import jsoncodec
from servegraph.serving.seldon.endpoint import OPERATION_PATHS
from servegraph.serving.seldon.openapi import seldon_json


def test_document_is_valid_openapi_and_plain_json() -> None:
    document = seldon_json()
    OpenAPIV30SpecValidator(document).validate()
    assert jsoncodec.loads(jsoncodec.dumps(document)) == document


def test_document_has_the_paths_and_methods_that_components_answer() -> None:
    found = {path: {method.upper() for method in item} for path, item in seldon_json()["paths"].items()}
    pages = ("/health/ping", "/metadata", "/api/v1.0/metadata", "/seldon.json")
    wanted = {path: set(methods) for path, (_, methods) in OPERATION_PATHS.items()}
    assert found == {**wanted, **{page: {"GET"} for page in pages}}


def test_operations_have_names_of_their_own() -> None:
    names = [
        op["operationId"] for item in seldon_json()["paths"].values() for op in item.values() if "operationId" in op
    ]
    assert len(names) == len(set(names))
    assert {"predict", "sendFeedback", "aggregate"} <= set(names)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ("SeldonMessage", {"data": {"names": ["a"], "ndarray": [[1, "x"]]}, "meta": {"tags": {"x": [1]}}}),
        ("SeldonMessage", {"data": {"tensor": {"shape": [1, 2], "values": [1, 2.5]}}}),
        ("SeldonMessage", {"jsonData": [1, None], "status": {"code": 200, "status": "SUCCESS"}}),
        ("SeldonMessage", {"strData": "x", "meta": {"metrics": [{"key": "k", "value": 1, "type": "TIMER"}]}}),
        ("SeldonMessageList", {"seldonMessages": [{"strData": "x"}]}),
        ("SeldonMessageList", [{"strData": "x"}]),
        ("Feedback", {"request": {"strData": "x"}, "reward": 1.0}),
        ("Failure", {"status": {"code": -1, "info": "x", "reason": "y", "status": 1}}),
        ("SeldonModelMetadata", {"name": "", "versions": [""], "inputs": [{"messagetype": "tensor"}], "custom": {}}),
    ],
)
def test_schemas_take_the_messages_that_go_over_the_wire(schema: str, value: Any) -> None:
    jsonschema.validate(value, {"$ref": f"#/components/schemas/{schema}", **seldon_json()})


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ("SeldonMessage", {"strData": 1}),
        ("SeldonMessage", {"data": {"tensor": {"shape": "x"}}}),
        ("SeldonMessageList", {"messages": []}),
        ("Failure", {}),
    ],
)
def test_schemas_refuse_what_is_none(schema: str, value: Any) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(value, {"$ref": f"#/components/schemas/{schema}", **seldon_json()})
