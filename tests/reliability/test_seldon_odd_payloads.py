"""Payloads that fuzzing found to fail: a component that gives back what it gets answers them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from seldon_command import IDENTITY
from seldon_exchange import application_of, asked, component_in
from seldon_fuzz import Request


def answer_to(component: str, body: Any) -> tuple[int, Any]:
    """Status and JSON of the answer to a prediction."""

    async def run() -> tuple[int, bytes]:
        application = application_of(component)
        await application.startup()
        try:
            fields = (("content-type", "application/json"),)
            return await asked(application, Request("POST", b"/predict", fields, json.dumps(body).encode()))
        finally:
            await application.aclose()

    status, raw = asyncio.run(run())
    return status, json.loads(raw)


@pytest.fixture
def identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    return component_in(tmp_path, monkeypatch, IDENTITY)


@pytest.mark.parametrize("rows", [[[1, 2], [3]], [1, [2]], [{"a": [1]}, [[]]]])
def test_list_with_rows_of_several_lengths_is_answered_as_it_is(identity: str, rows: Any) -> None:
    assert answer_to(identity, {"jsonData": rows}) == (200, {"data": {"names": [], "ndarray": rows}, "meta": {}})


@pytest.mark.parametrize(("dtype", "field"), [("DT_COMPLEX64", "scomplexVal"), ("DT_COMPLEX128", "dcomplexVal")])
def test_complex_numbers_are_answered_in_the_tensor_that_has_them(identity: str, dtype: str, field: str) -> None:
    tensor = {"dtype": dtype, "tensorShape": {"dim": [{"size": "1"}]}, field: [1.5, -2.0]}
    status, answer = answer_to(identity, {"data": {"tftensor": tensor}})
    assert (status, answer["data"]["tftensor"]) == (200, tensor)
