"""A node whose model is in TensorFlow Serving."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from servegraph.errors import ModelLoadError
from servegraph.importing import import_extra
from servegraph.serving.seldon.errors import INTERNAL, SeldonMicroserviceException, SeldonNotImplementedError
from servegraph.serving.seldon.message import Message, Meta
from servegraph.serving.seldon.servers.inputs import as_array
from servegraph.serving.seldon.servers.proxied import JsonServer
from servegraph.serving.seldon.servers.tfserving_grpc import PREDICT_REQUEST, PREDICT_RESPONSE, PredictService

logger = logging.getLogger("servegraph.serving.seldon")

_REST: Final = "http://0.0.0.0:2001"
_GRPC: Final = "0.0.0.0:2000"


class TfServingProxy:
    """Hands requests on to a model of TensorFlow Serving: those that came by REST over REST, those by gRPC over gRPC.

    Over REST a JSON object goes there and back as it is, and an array becomes ``instances``. Over gRPC an array or a
    TFTensor is the one input, and a ``PredictRequest`` packed into ``customData`` goes there as it is and its answer
    comes back so.

    Args:
        rest_endpoint: URL of the server's REST interface.
        grpc_endpoint: address of its gRPC interface; empty sends everything over REST.
        model_name: the model's name there.
        signature_name: the signature to call.
        model_input: the name of the signature's input that an array is; needed over gRPC.
        model_output: the name of the output to answer with; by default the only one.
        model_uri: where the other server has its model from; not read here. With it and no endpoint, a warning says
            what is to be started.
        timeout_s: seconds for one call.
    """

    def __init__(
        self,
        rest_endpoint: str = _REST,
        grpc_endpoint: str = _GRPC,
        model_name: str = "",
        signature_name: str = "serving_default",
        model_input: str = "",
        model_output: str = "",
        model_uri: str = "",
        timeout_s: float = 60.0,
    ) -> None:
        if not model_name:
            raise ModelLoadError("the parameter model_name is needed: it says which model of TF Serving is asked")
        self.model_name = model_name
        self.signature_name = signature_name
        self.model_input = model_input
        self.model_output = model_output
        self.model_uri = model_uri
        self._beside = (rest_endpoint, grpc_endpoint) == (_REST, _GRPC)
        self._rest = JsonServer(rest_endpoint, timeout_s)
        self._grpc = PredictService(grpc_endpoint, timeout_s) if grpc_endpoint else None

    def load(self) -> None:
        """Say what has to run beside this, where Seldon's operator would have started it."""
        if not self.model_uri or not self._beside:
            return
        here = "loads it here"
        if importlib.util.find_spec("tensorflow") is None:
            here += ", with pip install 'servegraph[tensorflow]'"
        logger.warning(
            "TENSORFLOW_SERVER hands requests on to TensorFlow Serving, and does not start it: start it with the model "
            "%s under the name %r, at %s (REST) and %s (gRPC) or where the parameters rest_endpoint and grpc_endpoint "
            "say. Or write implementation: TENSORFLOW, which %s",
            self.model_uri, self.model_name, _REST, _GRPC, here,
        )  # fmt: skip

    def predict(self, features: Any, names: Sequence[str] | None = None, meta: dict[str, Any] | None = None) -> Any:
        """What the model answers over REST.

        Raises:
            SeldonMicroserviceException: the payload does not fit the model, or the server fails.
        """
        path = f"/v1/models/{quote(self.model_name, safe='')}:predict"
        if isinstance(features, Mapping):
            return self._rest.call(path, features)
        body: dict[str, Any] = {"instances": as_array(features).tolist()}
        if self.signature_name:
            body["signature_name"] = self.signature_name
        answer = self._rest.call(path, body)
        found = answer.get("predictions") if isinstance(answer, dict) else None
        if not isinstance(found, list):
            raise SeldonMicroserviceException(
                f"the model server at {self._rest.endpoint} gave no predictions", 502, reason=INTERNAL
            )
        if found and isinstance(found[0], dict):  # several outputs, for each instance
            if not self.model_output:
                return {"predictions": found}
            found = [each.get(self.model_output) for each in found]
        np = import_extra("numpy", feature="reading predictions", extra="numpy")
        array = np.array(found)
        return array[np.newaxis, :] if array.ndim == 1 else array

    def predict_raw(self, request: Any) -> Message:
        """What the model answers over gRPC, to a message that came over it.

        Raises:
            SeldonNotImplementedError: it came over REST, or holds no tensor: `predict` is to answer.
            SeldonMicroserviceException: the payload does not fit the model, or the server fails.
        """
        if self._grpc is None or isinstance(request, Mapping):
            raise SeldonNotImplementedError("only requests by gRPC go over gRPC")
        from servegraph.serving.seldon.wire import message_from_proto

        message = message_from_proto(request)
        meta = Meta(message.meta.puid, message.meta.tags, None, message.meta.request_path)
        if message.kind == "customData":
            return Message("customData", self._forwarded(self._grpc, message.value), meta=meta)
        if message.kind != "data":
            raise SeldonNotImplementedError("only tensors go over gRPC")
        return Message("data", self._asked(self._grpc, message), encoding=message.encoding, meta=meta)

    def close(self) -> None:
        """Give up the connections to the server."""
        self._rest.close()
        if self._grpc is not None:
            self._grpc.close()

    def tags(self) -> dict[str, Any]:
        """No tags of its own."""
        return {}

    def _forwarded(self, service: PredictService, packed: Any) -> Any:
        kind = packed.type_url.rpartition("/")[2]
        if kind != PREDICT_REQUEST:
            raise SeldonMicroserviceException(f"customData is to hold a {PREDICT_REQUEST}, not a {kind or 'nothing'}")
        answer = service.call(packed.value)
        return type(packed)(type_url=f"type.googleapis.com/{PREDICT_RESPONSE}", value=answer)

    def _asked(self, service: PredictService, message: Message) -> Any:
        if not self.model_input:
            raise SeldonMicroserviceException(
                "the parameter model_input is needed: over gRPC inputs have names", 500, reason=INTERNAL
            )
        array = as_array(message.value)
        if message.encoding != "tftensor" and array.dtype.kind == "f":
            # Seldon's numbers are doubles, whatever was meant; models take floats.
            array = array.astype("float32")
        outputs = service.predict(self.model_name, self.signature_name, {self.model_input: array})
        if self.model_output in outputs or len(outputs) == 1:
            return outputs.get(self.model_output, next(iter(outputs.values())))
        raise SeldonMicroserviceException(
            f"the model's outputs are {sorted(outputs)}, and the parameter model_output is {self.model_output!r}",
            500,
            reason=INTERNAL,
        )
