"""Seldon's services for grpc: stubs, servicers and how a servicer is added to a server.

All are made from one table, `SERVICES`; they have the names and the behaviour of the classes that grpc generates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from servegraph.importing import import_extra
from servegraph.serving.seldon.proto.prediction_pb2 import SERVICES, Method

grpc: Final[Any] = import_extra("grpc", feature="Seldon's gRPC services", extra="grpc")


def _stub(service: str, methods: Mapping[str, Method]) -> type:
    def __init__(self: Any, channel: Any) -> None:  # noqa: N807 - it becomes the method of a class
        for name, method in methods.items():
            call = channel.unary_unary(
                f"/{service}/{name}",
                request_serializer=method.request.SerializeToString,
                response_deserializer=method.response.FromString,
            )
            setattr(self, name, call)

    name = service.rpartition(".")[2]
    doc = f"Calls the methods of {service} ({', '.join(methods)}) over a channel."
    return type(f"{name}Stub", (), {"__init__": __init__, "__doc__": doc, "__module__": __name__})


def _servicer(service: str, methods: Mapping[str, Method]) -> type:
    def unimplemented(name: str) -> Callable[..., Any]:
        def method(self: Any, request: Any, context: Any) -> Any:
            context.set_code(grpc.StatusCode.UNIMPLEMENTED)
            context.set_details("Method not implemented!")
            raise NotImplementedError("Method not implemented!")

        method.__name__ = name
        return method

    name = service.rpartition(".")[2]
    members: dict[str, Any] = {method: unimplemented(method) for method in methods}
    doc = f"The methods of {service}, each to be overridden by what serves it."
    return type(f"{name}Servicer", (), {**members, "__doc__": doc, "__module__": __name__})


def _adder(service: str, methods: Mapping[str, Method]) -> Callable[[Any, Any], None]:
    def add(servicer: Any, server: Any) -> None:
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                getattr(servicer, name),
                request_deserializer=method.request.FromString,
                response_serializer=method.response.SerializeToString,
            )
            for name, method in methods.items()
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))

    name = service.rpartition(".")[2]
    add.__name__ = add.__qualname__ = f"add_{name}Servicer_to_server"
    add.__doc__ = f"Have a server answer {service} with a servicer's methods."
    return add


def _made(make: Callable[[str, Mapping[str, Method]], Any], service: str) -> Any:
    full_name = f"seldon.protos.{service}"
    return make(full_name, SERVICES[full_name])


GenericStub: Final = _made(_stub, "Generic")
ModelStub: Final = _made(_stub, "Model")
RouterStub: Final = _made(_stub, "Router")
TransformerStub: Final = _made(_stub, "Transformer")
OutputTransformerStub: Final = _made(_stub, "OutputTransformer")
CombinerStub: Final = _made(_stub, "Combiner")
SeldonStub: Final = _made(_stub, "Seldon")

GenericServicer: Final = _made(_servicer, "Generic")
ModelServicer: Final = _made(_servicer, "Model")
RouterServicer: Final = _made(_servicer, "Router")
TransformerServicer: Final = _made(_servicer, "Transformer")
OutputTransformerServicer: Final = _made(_servicer, "OutputTransformer")
CombinerServicer: Final = _made(_servicer, "Combiner")
SeldonServicer: Final = _made(_servicer, "Seldon")

add_GenericServicer_to_server: Final = _made(_adder, "Generic")  # noqa: N816 - the names that grpc generates
add_ModelServicer_to_server: Final = _made(_adder, "Model")  # noqa: N816
add_RouterServicer_to_server: Final = _made(_adder, "Router")  # noqa: N816
add_TransformerServicer_to_server: Final = _made(_adder, "Transformer")  # noqa: N816
add_OutputTransformerServicer_to_server: Final = _made(_adder, "OutputTransformer")  # noqa: N816
add_CombinerServicer_to_server: Final = _made(_adder, "Combiner")  # noqa: N816
add_SeldonServicer_to_server: Final = _made(_adder, "Seldon")  # noqa: N816
