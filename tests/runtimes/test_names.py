"""Where the names of handlers and classes are looked up."""

from __future__ import annotations

from typing import Any

import defining_module

from servegraph.runtimes.function import ServingFunction


def test_names_are_found_in_the_module_that_made_the_function() -> None:
    with defining_module.fn.to_mock_server() as server:
        assert server.test("/", 1) == [1]
    assert defining_module.fn.validate() == []
    assert defining_module.fn.invoke("/", 2) == [2]


def test_names_that_a_test_gives_go_before_those_of_the_module() -> None:
    def fake(body: Any) -> str:
        return "fake"

    with defining_module.fn.to_mock_server(namespace={"wrap": fake}) as server:
        assert server.test("/", 1) == "fake"


def test_names_of_a_function_that_nobody_made_are_looked_up_as_before() -> None:
    assert ServingFunction("made").namespaces() == []
