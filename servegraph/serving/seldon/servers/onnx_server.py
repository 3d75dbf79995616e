"""Models in the ONNX format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from servegraph.errors import ModelLoadError, closest
from servegraph.importing import import_extra
from servegraph.serving.seldon.errors import SeldonMicroserviceException
from servegraph.serving.seldon.servers.inputs import as_array, as_numbers, columns_for, plain
from servegraph.serving.seldon.servers.packaged import PackagedServer

_DTYPES = {
    "float": "float32", "double": "float64", "float16": "float16", "bool": "bool", "string": "object",
    "int8": "int8", "int16": "int16", "int32": "int32", "int64": "int64",
    "uint8": "uint8", "uint16": "uint16", "uint32": "uint32", "uint64": "uint64",
}  # fmt: skip


class ONNXServer(PackagedServer):
    """Serves ``model.onnx``.

    A model with one input takes an array. One with several takes a JSON object with an array for each, or a table
    with a column for each, by the columns' names or else in the order of the inputs. One output is answered as an
    array, several are answered as a JSON object.

    Args:
        model_uri: the model's file or folder.
        outputs: the names of the outputs to answer with, with commas between them; all when empty.
        providers: the names of onnxruntime's execution providers, with commas between them, the best first.
        threads: how many threads work on one request; 0 leaves it to onnxruntime.
        sha256: the digest that the file must have.
    """

    FILES = ("model.onnx",)
    ENDINGS = (".onnx",)

    def __init__(
        self,
        model_uri: str = "",
        outputs: str = "",
        providers: str = "CPUExecutionProvider",
        threads: int = 0,
        *,
        sha256: str = "",
    ) -> None:
        super().__init__(model_uri, sha256=sha256)
        self.outputs: list[str] = outputs.replace(",", " ").split()
        self.providers = providers.replace(",", " ").split()
        self.threads = threads
        self._session: Any = None
        self._inputs: dict[str, tuple[str, list[Any]]] = {}  # name -> dtype and shape, in which a text is any size

    def _load(self) -> None:
        onnxruntime = import_extra("onnxruntime", feature="serving an ONNX model", extra="onnx")
        path = self.model_file()
        self.permission.check_digest(path)
        unknown = [each for each in self.providers if each not in onnxruntime.get_available_providers()]
        if unknown:
            there = closest(unknown[0], onnxruntime.get_available_providers())
            raise ModelLoadError(f"onnxruntime has no {unknown[0]!r} here; {there}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=self.providers)
        except Exception as exc:  # it raises errors of its own and of protobuf, by many types
            raise ModelLoadError(f"{path}: onnxruntime {onnxruntime.__version__} cannot read it: {exc}") from exc
        self._inputs = {
            each.name: (_dtype(each.type, each.name, path), list(each.shape)) for each in self._session.get_inputs()
        }
        outputs = [str(each.name) for each in self._session.get_outputs()]
        for name in self.outputs:
            if name not in outputs:
                raise ModelLoadError(f"{path}: it has no output {name!r}; {closest(name, outputs)}")
        self.outputs = self.outputs or outputs

    def _predict(self, features: Any, names: list[str]) -> Any:
        results = self._session.run(self.outputs, self._feed(features, names))
        if len(results) == 1:
            return results[0] if hasattr(results[0], "ndim") else plain(results[0])
        return {name: plain(result) for name, result in zip(self.outputs, results, strict=True)}

    def _feed(self, features: Any, names: list[str]) -> dict[str, Any]:
        if isinstance(features, Mapping):
            if set(features) != set(self._inputs):
                raise SeldonMicroserviceException(
                    f"the model's inputs are {list(self._inputs)}; the request has {sorted(features)}"
                )
            return {name: self._shaped(name, value) for name, value in features.items()}
        if len(self._inputs) == 1:
            name = next(iter(self._inputs))
            return {name: self._shaped(name, features)}
        array = as_array(features)
        if array.ndim != 2 or array.shape[1] < len(self._inputs):
            raise SeldonMicroserviceException(
                f"the model has the inputs {list(self._inputs)}: send a JSON object with an array for each, "
                "or a table with a column for each"
            )
        columns = columns_for(names, list(self._inputs)) or list(range(len(self._inputs)))
        return {name: self._shaped(name, array[:, [at]]) for name, at in zip(self._inputs, columns, strict=True)}

    def _shaped(self, name: str, value: Any) -> Any:
        """A value as the input of that name takes it."""
        dtype, shape = self._inputs[name]
        array = as_array(value).astype(object) if dtype == "object" else as_numbers(value, dtype)
        if array.ndim == len(shape) + 1 and array.shape[-1] == 1:
            array = array[..., 0]
        fits = array.ndim == len(shape) and all(
            wanted == size for wanted, size in zip(shape, array.shape, strict=True) if isinstance(wanted, int)
        )
        if not fits:
            raise SeldonMicroserviceException(
                f"the input {name!r} takes the shape {shape}; the request has {list(array.shape)}"
            )
        return array


def _dtype(type_name: str, name: str, path: Any) -> str:
    dtype = _DTYPES.get(type_name.removeprefix("tensor(").removesuffix(")"))
    if dtype is None:
        raise ModelLoadError(f"{path}: its input {name!r} is a {type_name}, which no payload can be")
    return dtype
