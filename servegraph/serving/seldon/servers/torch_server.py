"""Models of PyTorch: TorchScript, exported programs, and parameters for a class of Python."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from servegraph.errors import ModelLoadError
from servegraph.importing import import_extra
from servegraph.serving.seldon.errors import SeldonMicroserviceException
from servegraph.serving.seldon.servers.inputs import as_numbers
from servegraph.serving.seldon.servers.packaged import PackagedServer
from servegraph.serving.seldon.servers.torch_files import read_module


class PyTorchServer(PackagedServer):
    """Serves a PyTorch model.

    The file is told by its content: TorchScript (``torch.jit.save``), an exported program (``torch.export.save``,
    ``.pt2``), or the parameters of a module (``torch.save(model.state_dict())``). Parameters need the class that they
    are for: the one ``.py`` file beside them, which is run and so needs the permission for pickles, as does a whole
    module that was saved by ``torch.save``.

    An array is the module's one input; of a JSON object each value is the argument of its name.

    Args:
        model_uri: the model's file or folder.
        class_name: the class in the ``.py`` file.
        device: where it runs, such as ``cuda:0``; by default a GPU if there is one.
        dtype: the type of the inputs' numbers; ``auto`` keeps whole numbers and makes all others ``float32``.
        allow_pickle: whether the model may run code of its own when it is loaded.
        sha256: the digest that the file must have; with a ``.py`` file beside it, their folder.
    """

    FILES = ("model.pt", "model.pt2", "model.pth")
    ENDINGS = (".pt", ".pt2", ".pth")

    def __init__(
        self,
        model_uri: str = "",
        class_name: str = "PyTorchModel",
        device: str = "",
        dtype: str = "float32",
        *,
        allow_pickle: bool | None = None,
        sha256: str = "",
    ) -> None:
        super().__init__(model_uri, allow_pickle=allow_pickle, sha256=sha256)
        self.class_name = class_name
        self.device = device
        self.dtype = dtype
        self._torch: Any = None
        self._module: Any = None

    def _load(self) -> None:
        self._torch = import_extra("torch", feature="serving a PyTorch model", extra="torch")
        if self.dtype != "auto" and not isinstance(getattr(self._torch, self.dtype, None), self._torch.dtype):
            raise ModelLoadError(
                f"the parameter dtype is {self.dtype!r}; use one of PyTorch's, such as float32, or auto"
            )
        self.device = self.device or ("cuda:0" if self._torch.cuda.is_available() else "cpu")
        self._module = read_module(self.model_file(), self.permission, self.class_name, self.device)

    def _predict(self, features: Any, names: list[str]) -> Any:
        torch = self._torch
        with torch.inference_mode():
            if isinstance(features, Mapping):
                result = self._module(**{str(name): self._tensor(value) for name, value in features.items()})
            else:
                result = self._module(self._tensor(features))
        return self._answer(result)

    def _tensor(self, value: Any) -> Any:
        array = as_numbers(value)
        if self.dtype == "auto":
            wanted = self._torch.float32 if array.dtype.kind == "f" else None
        else:
            wanted = getattr(self._torch, self.dtype)
        # A tensor shares the memory of an array, which must be one that can be written.
        return self._torch.tensor(array, dtype=wanted, device=self.device)

    def _answer(self, result: Any) -> Any:
        if isinstance(result, self._torch.Tensor):
            return (result.float() if result.dtype == self._torch.bfloat16 else result).cpu().numpy()
        if isinstance(result, Mapping):
            return {str(name): self._answer(each).tolist() for name, each in result.items()}
        if isinstance(result, (list, tuple)):
            return {f"output_{i}": self._answer(each).tolist() for i, each in enumerate(result)}
        raise SeldonMicroserviceException(f"the model answered with a {type(result).__name__}, not a tensor", 500)
