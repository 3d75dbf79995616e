"""The protobuf modules: what they have, what they need, and how they get along with others of the same names."""

from __future__ import annotations

import pickle
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import empty_pb2, json_format

from servegraph.serving.seldon.proto import prediction_pb2 as pb
from servegraph.serving.seldon.proto import prediction_pb2_grpc as rpc

MESSAGES = [
    "DefaultData",
    "Feedback",
    "Meta",
    "Metric",
    "RequestResponse",
    "SeldonGraphMetadata",
    "SeldonMessage",
    "SeldonMessageList",
    "SeldonMessageMetadata",
    "SeldonModelMetadata",
    "SeldonModelMetadataRequest",
    "Status",
    "Tensor",
]

METHODS = {
    "Generic": ["TransformInput", "TransformOutput", "Route", "Aggregate", "SendFeedback"],
    "Model": ["Predict", "SendFeedback", "Metadata"],
    "Router": ["Route", "SendFeedback"],
    "Transformer": ["TransformInput"],
    "OutputTransformer": ["TransformOutput"],
    "Combiner": ["Aggregate"],
    "Seldon": ["Predict", "SendFeedback", "ModelMetadata", "GraphMetadata"],
}


def run(code: str, *paths: Path) -> str:
    """What a fresh interpreter prints."""
    setup = f"import sys; sys.path[:0] = {[str(path) for path in paths]!r}\n"
    done = subprocess.run(
        [sys.executable, "-c", setup + textwrap.dedent(code)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_messages_are_those_of_the_protocol() -> None:
    assert sorted(pb.DESCRIPTOR.message_types_by_name) == MESSAGES
    for name in MESSAGES:
        assert getattr(pb, name).DESCRIPTOR.full_name == f"seldon.protos.{name}"


def test_message_on_the_wire_has_the_numbers_of_the_protocol() -> None:
    message = pb.SeldonMessage(
        status=pb.Status(code=3, info="i", reason="r", status=pb.Status.FAILURE),
        meta=pb.Meta(
            puid="p",
            routing={"r": -1},
            requestPath={"n": "image"},
            metrics=[pb.Metric(key="k", type=pb.Metric.TIMER, value=1.5, tags={"a": "b"})],
        ),
        data=pb.DefaultData(names=["x"], tensor=pb.Tensor(shape=[1, 2], values=[1.0, 2.0])),
    )
    assert message.SerializeToString(deterministic=True) == (
        b"\x0a\x0a\x08\x03\x12\x01i\x1a\x01r\x20\x01"
        b"\x12\x33\x0a\x01p\x1a\x0e\x0a\x01r\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"
        b"\x22\x0a\x0a\x01n\x12\x05image\x2a\x12\x0a\x01k\x10\x02\x1d\x00\x00\xc0\x3f\x22\x06\x0a\x01a\x12\x01b"
        b"\x1a\x1b\x0a\x01x\x12\x16\x0a\x02\x01\x02\x12\x10"
        b"\x00\x00\x00\x00\x00\x00\xf0\x3f\x00\x00\x00\x00\x00\x00\x00\x40"
    )


@pytest.mark.parametrize(
    ("payload", "tag"),
    [
        ({"binData": "YQ=="}, b"\x22\x01a"),
        ({"strData": "a"}, b"\x2a\x01a"),
        ({"jsonData": True}, b"\x32\x02\x20\x01"),
        ({"customData": {"@type": "type.googleapis.com/seldon.protos.Tensor", "shape": [1]}}, b"\x3a"),
        ({"data": {"ndarray": [True]}}, b"\x1a\x06\x1a\x04\x0a\x02\x20\x01"),
        ({"data": {"tftensor": {"dtype": "DT_FLOAT"}}}, b"\x1a\x04\x22\x02\x08\x01"),
    ],
)
def test_payload_on_the_wire_has_its_number(payload: dict[str, Any], tag: bytes) -> None:
    message = json_format.ParseDict(payload, pb.SeldonMessage())
    assert message.SerializeToString().startswith(tag)
    assert json_format.MessageToDict(message) == payload


def test_metadata_messages_read_the_documents_of_the_protocol() -> None:
    model = {
        "name": "m",
        "versions": ["v1"],
        "platform": "seldon",
        "inputs": [{"messagetype": "tensor", "schema": {"names": ["a"], "shape": [2.0]}}],
        "outputs": [{"name": "o", "datatype": "BYTES", "shape": ["1", "-1"]}],
        "custom": {"author": "me"},
    }
    assert json_format.MessageToDict(json_format.ParseDict(model, pb.SeldonModelMetadata())) == model
    graph = {"name": "g", "models": {"m": model}, "inputs": model["inputs"], "outputs": model["outputs"]}
    assert json_format.MessageToDict(json_format.ParseDict(graph, pb.SeldonGraphMetadata())) == graph


def test_messages_can_be_pickled() -> None:
    message = pb.SeldonMessage(strData="x")
    assert pickle.loads(pickle.dumps(message)) == message


def test_services_table_has_the_methods_and_their_classes() -> None:
    assert {name.rpartition(".")[2]: list(methods) for name, methods in pb.SERVICES.items()} == METHODS
    assert pb.SERVICES["seldon.protos.Model"]["Predict"] == (pb.SeldonMessage, pb.SeldonMessage)
    assert pb.SERVICES["seldon.protos.Combiner"]["Aggregate"].request is pb.SeldonMessageList
    assert pb.SERVICES["seldon.protos.Generic"]["SendFeedback"].request is pb.Feedback
    assert pb.SERVICES["seldon.protos.Model"]["Metadata"] == (empty_pb2.Empty, pb.SeldonModelMetadata)
    assert pb.SERVICES["seldon.protos.Seldon"]["ModelMetadata"].request is pb.SeldonModelMetadataRequest
    assert pb.SERVICES["seldon.protos.Seldon"]["GraphMetadata"].response is pb.SeldonGraphMetadata


def test_service_descriptors_agree_with_the_table() -> None:
    for name, methods in pb.SERVICES.items():
        service = pb.DESCRIPTOR.services_by_name[name.rpartition(".")[2]]
        assert [m.name for m in service.methods] == list(methods)
        for method in service.methods:
            assert method.input_type == methods[method.name].request.DESCRIPTOR
            assert method.output_type == methods[method.name].response.DESCRIPTOR


def test_messages_need_neither_grpc_nor_numpy_nor_tensorflow() -> None:
    code = """
        from servegraph.serving.seldon.proto import prediction_pb2
        print([name for name in ("grpc", "numpy", "tensorflow") if name in sys.modules])
    """
    assert run(code) == "[]"


def test_messages_of_another_package_are_used_where_they_came_first() -> None:
    code = """
        from google.protobuf import any_pb2, empty_pb2, struct_pb2, descriptor_pool, message_factory
        from servegraph.serving.seldon.proto import _prediction, _tensorflow
        _tensorflow.add_to_pool()
        other = _prediction.described()
        other.description.name = "elsewhere/prediction.proto"
        pool = descriptor_pool.Default()
        pool.AddSerializedFile(other.serialized())
        first = message_factory.GetMessageClass(pool.FindMessageTypeByName("seldon.protos.SeldonMessage"))
        from servegraph.serving.seldon.proto import prediction_pb2
        print(prediction_pb2.SeldonMessage is first, prediction_pb2.DESCRIPTOR.name)
    """
    assert run(code) == "True elsewhere/prediction.proto"


def test_same_file_can_be_registered_again_by_another_package() -> None:
    code = """
        from servegraph.serving.seldon.proto import prediction_pb2, _prediction
        from google.protobuf import descriptor_pool
        again = descriptor_pool.Default().AddSerializedFile(_prediction.described().serialized())
        print(again is None or again.name)
    """
    assert run(code) in ("True", "proto/prediction.proto")


# What TensorFlow's own file says, and ours does not: by it the two are told apart.
INSTALLED = """
    from google.protobuf import descriptor_pb2, descriptor_pool
    DESCRIPTOR = descriptor_pool.Default().AddSerializedFile({serialized!r})
"""


def install_tensorflow(folder: Path) -> None:
    """A package with generated modules as TensorFlow has them, which must not be imported."""
    from servegraph.serving.seldon.proto import _tensorflow

    package = folder / "tensorflow"
    modules = package / "core" / "framework"
    modules.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('TensorFlow was imported')")
    for path, described in _tensorflow._FILES.items():
        file = described(path)
        file.description.options.java_package = "org.tensorflow.framework"
        name = path.rpartition("/")[2].removesuffix(".proto")
        code = textwrap.dedent(INSTALLED).format(serialized=file.serialized())
        (modules / f"{name}_pb2.py").write_text(f'"""Generated."""\nOTHER = b"\\n\\x03abc"\n{code}')


def test_tensor_of_an_installed_tensorflow_is_used_without_importing_it(tmp_path: Path) -> None:
    install_tensorflow(tmp_path)
    code = """
        from servegraph.serving.seldon.proto import prediction_pb2
        print("tensorflow" in sys.modules)
        file = prediction_pb2.TensorProto.DESCRIPTOR.file
        print(file.GetOptions().java_package)
        # What TensorFlow does when it is imported later.
        import runpy
        for name in ("types", "tensor_shape", "resource_handle", "tensor"):
            runpy.run_path(sys.path[0] + f"/tensorflow/core/framework/{name}_pb2.py")
        print(prediction_pb2.TensorProto(dtype=1).dtype)
    """
    assert run(code, tmp_path).split() == ["False", "org.tensorflow.framework", "1"]


def test_tensor_of_an_unreadable_tensorflow_is_our_own(tmp_path: Path) -> None:
    modules = tmp_path / "tensorflow" / "core" / "framework"
    modules.mkdir(parents=True)
    (tmp_path / "tensorflow" / "__init__.py").write_text("")
    (modules / "types_pb2.py").write_text("this is no Python")
    (modules / "tensor_pb2.py").write_text("DESCRIPTOR = b'nor is this a descriptor \\xff'")
    code = """
        from servegraph.serving.seldon.proto import prediction_pb2
        print(prediction_pb2.TensorProto(float8_val=b"x").float8_val)
    """
    assert run(code, tmp_path) == "b'x'"


def test_tensor_with_a_module_without_a_spec_in_place_of_tensorflow_is_our_own() -> None:
    code = """
        import types
        sys.modules["tensorflow"] = types.ModuleType("tensorflow")
        from servegraph.serving.seldon.proto import prediction_pb2
        print(prediction_pb2.TensorProto().dtype)
    """
    assert run(code) == "0"


def test_messages_without_protobuf_tell_what_to_install() -> None:
    code = """
        sys.modules["google.protobuf"] = None
        try:
            from servegraph.serving.seldon.proto import prediction_pb2
        except ImportError as exc:
            print(exc)
    """
    assert "pip install 'servegraph[grpc]'" in run(code)


@pytest.mark.parametrize("service", METHODS)
def test_stubs_call_the_methods_of_servicers(service: str) -> None:
    called = []

    def answers(name: str, response: Any) -> Any:
        def method(self: Any, request: Any, context: Any) -> Any:
            called.append((name, type(request)))
            return response()

        return method

    methods = pb.SERVICES[f"seldon.protos.{service}"]
    servicer = type(
        "Own", (getattr(rpc, f"{service}Servicer"),), {n: answers(n, m.response) for n, m in methods.items()}
    )
    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool)
        getattr(rpc, f"add_{service}Servicer_to_server")(servicer(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = getattr(rpc, f"{service}Stub")(channel)
            for name, method in methods.items():
                assert isinstance(getattr(stub, name)(method.request(), timeout=30), method.response)
        server.stop(None).wait()
    assert called == [(name, method.request) for name, method in methods.items()]


def test_method_that_no_servicer_overrides_is_unimplemented() -> None:
    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool)
        rpc.add_ModelServicer_to_server(rpc.ModelServicer(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel, pytest.raises(grpc.RpcError) as failure:
            rpc.ModelStub(channel).Predict(pb.SeldonMessage(), timeout=30)
        server.stop(None).wait()
    assert failure.value.code() is grpc.StatusCode.UNIMPLEMENTED
