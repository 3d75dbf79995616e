"""`servegraph.serving`: its public names, and that one of them brings in little."""

from __future__ import annotations

import subprocess
import sys

import pytest

from servegraph import serving

PUBLIC = [
    "BaseModelRouter",
    "BatchHttpRequests",
    "CallableSource",
    "DataFrameSource",
    "DictSource",
    "EnrichmentModelRouter",
    "EnrichmentVotingEnsemble",
    "FeatureSource",
    "ModelRouter",
    "ModelSpec",
    "ParallelRun",
    "RemoteStep",
    "V2ModelServer",
    "VotingEnsemble",
]


def test_all_is_the_frozen_list_in_order() -> None:
    assert serving.__all__ == PUBLIC == sorted(PUBLIC)
    assert set(PUBLIC) <= set(dir(serving))


@pytest.mark.parametrize("name", PUBLIC)
def test_public_name_when_used_is_the_class_of_that_name(name: str) -> None:
    assert getattr(serving, name).__name__ == name


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        serving.Nothing  # noqa: B018


@pytest.mark.parametrize(
    ("name", "absent"),
    [
        ("ModelRouter", ["servegraph.serving.ensembles", "servegraph.serving.remote", "httpx", "numpy", "pandas"]),
        ("VotingEnsemble", ["servegraph.serving.enrichment", "servegraph.serving.remote", "httpx", "numpy"]),
        ("RemoteStep", ["servegraph.serving.ensembles", "httpx", "numpy"]),
        ("DataFrameSource", ["numpy", "pandas"]),
    ],
)
def test_one_name_brings_in_little(name: str, absent: list[str]) -> None:
    code = f"import sys; from servegraph.serving import {name}; print(sorted(sys.modules))"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert [m for m in absent if f"'{m}'" in modules] == []
