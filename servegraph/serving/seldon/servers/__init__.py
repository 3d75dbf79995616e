"""Servers for models that need no code of their own: components that are told where the model is and how to call it.

Each is imported when it is first used, and imports its framework when it loads a model.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from servegraph.serving.seldon.servers.huggingface_server import HuggingFaceServer as HuggingFaceServer
    from servegraph.serving.seldon.servers.keras_server import KerasServer as KerasServer
    from servegraph.serving.seldon.servers.lightgbm_server import LightGBMServer as LightGBMServer
    from servegraph.serving.seldon.servers.mlflow_server import MLFlowServer as MLFlowServer
    from servegraph.serving.seldon.servers.onnx_server import ONNXServer as ONNXServer
    from servegraph.serving.seldon.servers.packaged import PackagedServer as PackagedServer
    from servegraph.serving.seldon.servers.sklearn_server import SKLearnServer as SKLearnServer
    from servegraph.serving.seldon.servers.tensorflow_server import TensorFlowServer as TensorFlowServer
    from servegraph.serving.seldon.servers.tfserving_proxy import TfServingProxy as TfServingProxy
    from servegraph.serving.seldon.servers.torch_server import PyTorchServer as PyTorchServer
    from servegraph.serving.seldon.servers.triton_proxy import TritonProxy as TritonProxy
    from servegraph.serving.seldon.servers.xgboost_server import XGBoostServer as XGBoostServer

# Public name -> the module that defines it.
_MODULES = {
    "HuggingFaceServer": "huggingface_server",
    "KerasServer": "keras_server",
    "LightGBMServer": "lightgbm_server",
    "MLFlowServer": "mlflow_server",
    "ONNXServer": "onnx_server",
    "PackagedServer": "packaged",
    "PyTorchServer": "torch_server",
    "SKLearnServer": "sklearn_server",
    "TensorFlowServer": "tensorflow_server",
    "TfServingProxy": "tfserving_proxy",
    "TritonProxy": "triton_proxy",
    "XGBoostServer": "xgboost_server",
}

__all__ = [
    "HuggingFaceServer",
    "KerasServer",
    "LightGBMServer",
    "MLFlowServer",
    "ONNXServer",
    "PackagedServer",
    "PyTorchServer",
    "SKLearnServer",
    "TensorFlowServer",
    "TfServingProxy",
    "TritonProxy",
    "XGBoostServer",
]


def __getattr__(name: str) -> object:
    module_name = _MODULES.get(name)
    if module_name is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"{__name__}.{module_name}"), name)
    globals()[name] = value  # the next access is an ordinary one
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
