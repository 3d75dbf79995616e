"""PrimeHub's server of PyTorch models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from servegraph.errors import ModelLoadError
from servegraph.serving.seldon.servers.torch_server import PyTorchServer


class Model(PyTorchServer):
    """Serves one ``.pt`` or ``.pth`` file, with the class ``PyTorchModel`` in the one ``.py`` file beside it.

    In a folder that MLflow has saved both are in ``data``.

    Args:
        model_uri: the model's folder.
        allow_pickle: whether the code beside the model may be run.
        sha256: the digest that the folder of the files must have.
    """

    def __init__(self, model_uri: str = "", *, allow_pickle: bool | None = None, sha256: str = "") -> None:
        super().__init__(model_uri, allow_pickle=allow_pickle, sha256=sha256)

    def model_file(self) -> Path:
        """The model's file.

        Raises:
            ModelLoadError: there is none, or several; the message names them.
        """
        folder = self.path
        if folder.is_file():
            return folder
        if (folder / "MLmodel").is_file() and (folder / "data").is_dir():
            folder = folder / "data"
        found = sorted(each for each in folder.iterdir() if each.suffix in (".pt", ".pth"))
        if len(found) != 1:
            named = ", ".join(each.name for each in found) or "none"
            raise ModelLoadError(f"{folder}: exactly one .pt or .pth file is needed in it, and there are: {named}")
        return found[0]

    def class_names(self) -> list[str]:
        """None, also for answers with columns."""
        return []

    def metrics(self) -> list[dict[str, Any]]:
        """No metrics of its own."""
        return []
