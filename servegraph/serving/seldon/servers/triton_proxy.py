"""A node whose model is in a Triton server, or in any other that speaks the Open Inference Protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from servegraph.errors import ModelLoadError
from servegraph.importing import import_extra
from servegraph.serving.seldon.errors import INTERNAL, SeldonMicroserviceException
from servegraph.serving.seldon.servers.inputs import as_array, as_numbers
from servegraph.serving.seldon.servers.proxied import JsonServer

_DTYPES: Final = {
    "BOOL": "bool", "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64",
    "INT8": "int8", "INT16": "int16", "INT32": "int32", "INT64": "int64",
    "FP16": "float16", "FP32": "float32", "FP64": "float64",
}  # fmt: skip


class TritonProxy:
    """Hands requests on to a model of a Triton server, by the REST form of the Open Inference Protocol.

    An array is the model's one input, with the type that the model says it takes. A JSON object with ``inputs`` goes
    there and back as it is; any other holds an array for each input.

    Args:
        model_name: the model's name there.
        endpoint: the server's URL.
        model_version: the version to ask; empty leaves it to the server.
        model_input: the input that an array is; by default the model's only one.
        model_output: the output to answer with as an array; by default the model's only one.
        model_uri: accepted, since operators set it; the other server has the model.
        timeout_s: seconds for one call.
    """

    def __init__(
        self,
        model_name: str = "",
        endpoint: str = "http://0.0.0.0:8000",
        model_version: str = "",
        model_input: str = "",
        model_output: str = "",
        model_uri: str = "",
        timeout_s: float = 60.0,
    ) -> None:
        if not model_name:
            raise ModelLoadError("the parameter model_name is needed: it says which model of the server is asked")
        self.model_name = model_name
        self.model_input = model_input
        self.model_output = model_output
        self.model_uri = model_uri
        self._server = JsonServer(endpoint, timeout_s)
        version = f"/versions/{quote(model_version, safe='')}" if model_version else ""
        self._path = f"/v2/models/{quote(model_name, safe='')}{version}"
        self._inputs: dict[str, str] = {}  # name -> datatype, once the server has told

    def predict(self, features: Any, names: Sequence[str] | None = None, meta: dict[str, Any] | None = None) -> Any:
        """What the model answers: an array for one output, a JSON object for several.

        Raises:
            SeldonMicroserviceException: the payload does not fit the model, or the server fails.
        """
        if isinstance(features, Mapping) and isinstance(features.get("inputs"), list):
            return self._server.call(f"{self._path}/infer", features)
        inputs = self._described()
        given = features if isinstance(features, Mapping) else {self._only_input(inputs): features}
        unknown = sorted(set(given) - set(inputs))
        if unknown:
            raise SeldonMicroserviceException(f"the model's inputs are {list(inputs)}; the request has {unknown}")
        body: dict[str, Any] = {"inputs": [_tensor(name, inputs[name], value) for name, value in given.items()]}
        if self.model_output:
            body["outputs"] = [{"name": self.model_output}]
        answer = self._server.call(f"{self._path}/infer", body)
        try:
            outputs = {each["name"]: _array(each) for each in answer["outputs"]}
        except (KeyError, TypeError, ValueError) as exc:
            raise SeldonMicroserviceException(
                f"the model server at {self._server.endpoint} gave no readable outputs: {exc}", 502, reason=INTERNAL
            ) from exc
        if self.model_output in outputs or len(outputs) == 1:
            return outputs.get(self.model_output, next(iter(outputs.values())))
        return {name: array.tolist() for name, array in outputs.items()}

    def init_metadata(self) -> dict[str, Any]:
        """Nothing: the server may not be up yet when this is asked."""
        return {}

    def close(self) -> None:
        """Give up the connections to the server."""
        self._server.close()

    def tags(self) -> dict[str, Any]:
        """No tags of its own."""
        return {}

    def _described(self) -> dict[str, str]:
        if not self._inputs:
            about = self._server.call(self._path)
            try:
                self._inputs = {each["name"]: each["datatype"] for each in about["inputs"]}
            except (KeyError, TypeError) as exc:
                raise SeldonMicroserviceException(
                    f"the model server at {self._server.endpoint} does not tell the inputs of {self.model_name!r}",
                    502,
                    reason=INTERNAL,
                ) from exc
        return self._inputs

    def _only_input(self, inputs: Mapping[str, str]) -> str:
        if self.model_input:
            return self.model_input
        if len(inputs) != 1:
            raise SeldonMicroserviceException(
                f"the model's inputs are {list(inputs)}: send a JSON object with an array for each"
            )
        return next(iter(inputs))


def _tensor(name: str, datatype: str, value: Any) -> dict[str, Any]:
    """A value as the protocol has it."""
    if datatype == "BYTES":
        array = as_array(value)
        data = [each if isinstance(each, str) else str(each) for each in array.ravel().tolist()]
    else:
        array = as_numbers(value, _DTYPES.get(datatype, "float32"))
        data = array.ravel().tolist()
    return {"name": name, "datatype": datatype, "shape": list(array.shape), "data": data}


def _array(output: Mapping[str, Any]) -> Any:
    np = import_extra("numpy", feature="reading tensors", extra="numpy")
    return np.array(output["data"], dtype=_DTYPES.get(output["datatype"])).reshape(output["shape"])
