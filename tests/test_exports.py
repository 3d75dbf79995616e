"""The public surface is a decision: a name that comes or goes is seen here."""

from __future__ import annotations

import tomllib
from pathlib import Path
from types import ModuleType

import pytest

import servegraph

PUBLIC = [
    "BaseModelRouter",
    "BatchHttpRequests",
    "ChoiceByField",
    "DROP",
    "EnrichmentModelRouter",
    "EnrichmentVotingEnsemble",
    "Event",
    "Filter",
    "GraphContext",
    "Headers",
    "Map",
    "Merge",
    "ModelRouter",
    "ParallelRun",
    "RemoteStep",
    "Response",
    "ServingFunction",
    "StepPolicy",
    "V2ModelServer",
    "VotingEnsemble",
    "__version__",
    "code_to_function",
    "errors",
    "new_function",
]


def test_all_is_the_frozen_list_in_order() -> None:
    assert servegraph.__all__ == PUBLIC
    assert sorted(servegraph.__all__) == servegraph.__all__


@pytest.mark.parametrize("name", PUBLIC)
def test_public_name_when_used_is_what_its_module_defines(name: str) -> None:
    value = getattr(servegraph, name)
    assert value is getattr(servegraph, name)
    if isinstance(value, ModuleType):
        assert value.__name__ == f"servegraph.{name}"
    elif isinstance(value, type):
        assert value.__name__ == name


def test_dir_lists_every_public_name() -> None:
    assert set(PUBLIC) <= set(dir(servegraph))


def test_unknown_name_is_an_attribute_error_that_names_it() -> None:
    with pytest.raises(AttributeError, match="'servegraph' has no attribute 'NoSuchName'"):
        servegraph.NoSuchName  # noqa: B018


def test_version_is_that_of_the_package() -> None:
    pyproject = Path(servegraph.__file__).parent.parent / "pyproject.toml"
    assert tomllib.loads(pyproject.read_text())["project"]["version"] == servegraph.__version__
