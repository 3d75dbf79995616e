"""`servegraph.serving.seldon`: its public names, and that it brings in nothing by itself."""

from __future__ import annotations

import subprocess
import sys

import pytest

from servegraph.serving import seldon

PUBLIC = [
    "ComponentStep",
    "EpsilonGreedy",
    "Feedback",
    "IsolationForestDetector",
    "MahalanobisDetector",
    "Message",
    "Meta",
    "SeldonClient",
    "SeldonComponent",
    "SeldonMicroserviceException",
    "SeldonNotImplementedError",
    "SeldonResponse",
    "Storage",
    "ThompsonSampling",
    "UnitIdentity",
    "install_names",
]


def test_seldon_all_is_the_frozen_list_in_order() -> None:
    assert seldon.__all__ == PUBLIC == sorted(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_seldon_name_is_there_and_listed(name: str) -> None:
    assert getattr(seldon, name).__module__.startswith("servegraph.serving.seldon.")
    assert name in dir(seldon)


def test_seldon_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'Nothing'"):
        seldon.Nothing  # noqa: B018 - the access is the test


def test_seldon_import_brings_in_neither_numpy_nor_grpc_nor_flask() -> None:
    code = "import servegraph.serving.seldon, sys; print([m for m in ('numpy', 'grpc', 'flask') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
