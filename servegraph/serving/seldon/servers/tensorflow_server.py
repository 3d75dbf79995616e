"""Models of TensorFlow, in this process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from servegraph.errors import ModelLoadError, closest
from servegraph.importing import import_extra
from servegraph.serving.seldon.errors import SeldonMicroserviceException
from servegraph.serving.seldon.servers.inputs import as_array
from servegraph.serving.seldon.servers.keras_server import call_keras, read_keras
from servegraph.serving.seldon.servers.packaged import PackagedServer, find_file

KERAS_ENDINGS = (".keras", ".h5", ".hdf5")


class TensorFlowServer(PackagedServer):
    """Serves a SavedModel by one of its signatures, or a ``.keras`` or ``.h5`` file.

    A folder of numbered versions is served in its highest one. An array is the signature's one input; of a JSON
    object each value is the input of its name.

    Args:
        model_uri: the model's folder or file.
        signature_name: the signature of a SavedModel to call.
        outputs: the names of the signature's outputs to answer with, with commas between them; all when empty. One is
            answered as an array, several as a JSON object.
        allow_pickle: whether a Keras model may run code of its own (its ``Lambda`` layers).
        sha256: the digest that the folder or file must have.
    """

    def __init__(
        self,
        model_uri: str = "",
        signature_name: str = "serving_default",
        outputs: str = "",
        *,
        allow_pickle: bool | None = None,
        sha256: str = "",
    ) -> None:
        super().__init__(model_uri, allow_pickle=allow_pickle, sha256=sha256)
        self.signature_name = signature_name
        self.outputs = outputs.replace(",", " ").split()
        self._tensorflow: Any = None
        self._saved: Any = None  # the signature's function needs what it is of
        self._signature: Any = None
        self._inputs: dict[str, Any] = {}
        self._keras: Any = None

    def _load(self) -> None:
        self._tensorflow = import_extra("tensorflow", feature="serving a TensorFlow model", extra="tensorflow")
        folder = saved_model_folder(self.path)
        if folder is None:
            self._keras = read_keras(find_file(self.path, ("model.keras", "model.h5"), KERAS_ENDINGS), self.permission)
            return
        self.permission.check_digest(folder)
        self._saved, self._signature = read_signature(folder, self.signature_name)
        self._inputs = dict(self._signature.structured_input_signature[1])
        there = list(self._signature.structured_outputs)
        for name in self.outputs:
            if name not in there:
                raise ModelLoadError(
                    f"{folder}: its {self.signature_name} has no output {name!r}; {closest(name, there)}"
                )
        self.outputs = self.outputs or there

    def _predict(self, features: Any, names: list[str]) -> Any:
        if self._keras is not None:
            return call_keras(self._keras, as_array(features))
        results = self._signature(**self._feed(features))
        if len(self.outputs) == 1:
            return results[self.outputs[0]].numpy()
        return {name: results[name].numpy().tolist() for name in self.outputs}

    def _feed(self, features: Any) -> dict[str, Any]:
        given = features if isinstance(features, Mapping) else {next(iter(self._inputs)): features}
        if set(given) != set(self._inputs):
            raise SeldonMicroserviceException(
                f"the model's inputs are {sorted(self._inputs)}: send a JSON object with an array for each"
            )
        return {name: self._tensor(name, value) for name, value in given.items()}

    def _tensor(self, name: str, value: Any) -> Any:
        spec, array = self._inputs[name], as_array(value)
        try:
            tensor = self._tensorflow.cast(array, spec.dtype) if array.dtype.kind in "biuf" else array
            tensor = self._tensorflow.convert_to_tensor(tensor, dtype=spec.dtype)
        except (TypeError, ValueError) as exc:
            raise SeldonMicroserviceException(f"the input {name!r} takes {spec.dtype.name}: {exc}") from exc
        if not spec.shape.is_compatible_with(tensor.shape):
            raise SeldonMicroserviceException(
                f"the input {name!r} takes the shape {spec.shape}; the request has {list(tensor.shape)}"
            )
        return tensor


def saved_model_folder(path: Path) -> Path | None:
    """The folder of a SavedModel: the path, or the highest number in it; ``None`` where there is none."""
    if not path.is_dir():
        return None
    if any((path / name).is_file() for name in ("saved_model.pb", "saved_model.pbtxt")):
        return path
    versions = [each for each in path.iterdir() if each.name.isdecimal() and each.is_dir()]
    return saved_model_folder(max(versions, key=lambda each: int(each.name))) if versions else None


def read_signature(folder: Path, name: str) -> tuple[Any, Any]:
    """What a SavedModel holds, and one signature of it.

    Raises:
        ModelLoadError: it cannot be read, or has no such signature; the message lists those it has.
    """
    import tensorflow as tf

    try:
        saved = tf.saved_model.load(str(folder))
    except (OSError, ValueError, KeyError, RuntimeError, tf.errors.OpError) as exc:
        raise ModelLoadError(f"{folder}: TensorFlow {tf.__version__} cannot load it: {exc}") from exc
    if name not in saved.signatures:
        raise ModelLoadError(f"{folder}: it has no signature {name!r}; {closest(name, saved.signatures)}")
    return saved, saved.signatures[name]
