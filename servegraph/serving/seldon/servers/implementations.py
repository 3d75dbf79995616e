"""The names by which deployments ask for a packaged server, and the class behind each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from servegraph.errors import SpecError, closest
from servegraph.importing import import_object

_HERE: Final = "servegraph.serving.seldon.servers"

IMPLEMENTATIONS: Final[Mapping[str, str]] = {
    "SKLEARN_SERVER": f"{_HERE}.SKLearnServer",
    "XGBOOST_SERVER": f"{_HERE}.XGBoostServer",
    "LIGHTGBM_SERVER": f"{_HERE}.LightGBMServer",
    "MLFLOW_SERVER": f"{_HERE}.MLFlowServer",
    "ONNX_SERVER": f"{_HERE}.ONNXServer",
    "PYTORCH_SERVER": f"{_HERE}.PyTorchServer",
    "TENSORFLOW_SERVER": f"{_HERE}.TfServingProxy",
    "TENSORFLOW": f"{_HERE}.TensorFlowServer",
    "KERAS_SERVER": f"{_HERE}.KerasServer",
    "HUGGINGFACE_SERVER": f"{_HERE}.HuggingFaceServer",
    "TRITON_SERVER": f"{_HERE}.TritonProxy",
    "PRIMEHUB_SKELETON_SERVER": f"{_HERE}.primehub.skeleton.Model",
    "PRIMEHUB_SKLEARN_SERVER": f"{_HERE}.primehub.scikit.Model",
    "PRIMEHUB_PYTORCH_SERVER": f"{_HERE}.primehub.pytorch.Model",
    "PRIMEHUB_TENSORFLOW2_SERVER": f"{_HERE}.primehub.tensorflow2.Model",
}
"""``implementation`` of a graph node -> the server's class."""

MODULE_NAMES: Final[Mapping[str, str]] = {
    "SKLearnServer": IMPLEMENTATIONS["SKLEARN_SERVER"],
    "XGBoostServer": IMPLEMENTATIONS["XGBOOST_SERVER"],
    "MLFlowServer": IMPLEMENTATIONS["MLFLOW_SERVER"],
    "TfServingProxy": IMPLEMENTATIONS["TENSORFLOW_SERVER"],
}
"""The module in which the images of Seldon's own servers have the class of the same name -> ours."""


def server_reference(name: str) -> str | None:
    """The class that a name stands for: an implementation, or ``SKLearnServer`` or ``SKLearnServer.SKLearnServer``."""
    if name in IMPLEMENTATIONS:
        return IMPLEMENTATIONS[name]
    module, _, attribute = name.partition(".")
    return MODULE_NAMES.get(module) if attribute in ("", module) else None


def server_class(name: str) -> type:
    """The class that a name stands for, imported.

    Raises:
        SpecError: there is no packaged server of that name; the message lists those there are.
    """
    reference = server_reference(name)
    if reference is None:
        raise SpecError(f"there is no packaged server {name!r}; {closest(name, IMPLEMENTATIONS)}")
    found: type = import_object(reference)
    return found
