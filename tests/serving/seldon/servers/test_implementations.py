from __future__ import annotations

import subprocess
import sys

import pytest

import servegraph.serving.seldon.servers as servers
from servegraph.errors import SpecError
from servegraph.serving.seldon.servers.implementations import (
    IMPLEMENTATIONS,
    MODULE_NAMES,
    server_class,
    server_reference,
)


@pytest.mark.parametrize("name", [*IMPLEMENTATIONS, *MODULE_NAMES])
def test_server_class_of_each_name_is_a_component(name: str) -> None:
    assert callable(server_class(name).predict)  # type: ignore[attr-defined]


def test_server_reference_knows_upstream_modules_and_classes() -> None:
    expected = "servegraph.serving.seldon.servers.SKLearnServer"
    assert server_reference("SKLearnServer") == expected
    assert server_reference("SKLearnServer.SKLearnServer") == expected
    assert server_reference("SKLEARN_SERVER") == expected
    assert server_reference("SKLearnServer.Other") is None
    assert server_reference("MyModel") is None


def test_server_class_unknown_name_lists_those_there_are() -> None:
    with pytest.raises(SpecError, match=r"no packaged server 'SKLEARN_SERVR'.*SKLEARN_SERVER"):
        server_class("SKLEARN_SERVR")


def test_servers_package_gives_each_public_name() -> None:
    assert [getattr(servers, name).__name__ for name in servers.__all__] == servers.__all__
    assert set(servers.__all__) <= set(dir(servers))
    with pytest.raises(AttributeError, match="nothing"):
        servers.nothing  # noqa: B018


def test_servers_import_no_framework_before_they_load() -> None:
    code = (
        "import sys; import servegraph.serving.seldon.servers as s; [getattr(s, n) for n in s.__all__]; "
        "print(sorted({'sklearn', 'xgboost', 'lightgbm', 'mlflow', 'onnxruntime', 'torch', 'tensorflow', 'httpx', "
        "'grpc', 'transformers', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
