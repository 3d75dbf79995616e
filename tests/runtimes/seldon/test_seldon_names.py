"""The names of ``seldon_core``: in processes of their own, so that nothing of other tests is in the way."""

from __future__ import annotations

import importlib
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from servegraph.serving.seldon.names import MODULES

_BEGIN = """
import sys
from servegraph.serving.seldon.names import install_names
install_names()
"""


def run(code: str, folder: Path | None = None) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _BEGIN + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=100,
        cwd=folder,
        env={"PYTHONPATH": str(Path(__file__).parents[3]), "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("path", sorted(MODULES))
def test_each_name_has_a_module_with_what_it_lists(path: str) -> None:
    module = importlib.import_module(MODULES[path])
    assert [name for name in getattr(module, "__all__", ()) if not hasattr(module, name)] == []


def test_imports_of_components_are_the_same_objects_as_ours() -> None:
    code = """
        import importlib
        import seldon_core
        import seldon_core.proto.prediction_pb2
        from seldon_core import Storage, __version__
        from seldon_core.storage import Storage as Same
        from seldon_core.user_model import SeldonComponent, SeldonResponse, SeldonNotImplementedError
        from seldon_core.flask_utils import SeldonMicroserviceException
        from seldon_core.microservice import SeldonMicroserviceException as Old
        from seldon_core.proto import prediction_pb2, prediction_pb2_grpc
        from seldon_core.seldon_client import SeldonClient
        import servegraph.serving.seldon.user_model as ours
        import servegraph.serving.seldon.errors as errors
        from servegraph.serving.seldon.proto import prediction_pb2 as pb
        from servegraph.serving.seldon.client import SeldonClient as OurClient
        from servegraph.serving.seldon.names import MODULES

        assert SeldonResponse is ours.SeldonResponse and SeldonComponent is ours.SeldonComponent
        assert SeldonNotImplementedError is errors.SeldonNotImplementedError
        assert SeldonMicroserviceException is Old is errors.SeldonMicroserviceException
        assert prediction_pb2 is pb is seldon_core.proto.prediction_pb2
        assert SeldonClient is OurClient and Storage is Same
        for name, module in MODULES.items():
            assert importlib.import_module(f"seldon_core.{name}") is importlib.import_module(module), name
            assert importlib.import_module(module).__spec__.name == module, name
            assert importlib.import_module(module).__name__ == module, name
        print(__version__)
    """
    assert run(code)[0].startswith("1.18.2+servegraph.")


def test_modules_are_there_without_being_imported_and_everything_may_be_imported_from_them() -> None:
    code = """
        import seldon_core
        class Model(seldon_core.user_model.SeldonComponent):
            pass
        print(seldon_core.proto.prediction_pb2.SeldonMessage.DESCRIPTOR.full_name)
        from seldon_core.utils import *
        from seldon_core.user_model import *
        print(np.__name__, prediction_pb2.__name__, getenv("NOT_THERE", default=1), SeldonComponent is Model.__mro__[1])
        print("utils" in dir(seldon_core), "prediction_pb2" in dir(seldon_core.proto))
        def typed(X: np.ndarray, names: List[str], meta: Optional[Dict] = None) -> Union[List, Dict]:
            logger.debug("called with %s", json.dumps(names))
        print(typed(np.array([1]), ["a"]), os.path.basename("a/b"), MessageToDict(ParseDict({}, prediction_pb2.Meta())))
    """
    assert run(code) == [
        "seldon.protos.SeldonMessage",
        "numpy servegraph.serving.seldon.proto.prediction_pb2 1 True",
        "True True",
        "None b {}",
    ]


def test_objects_are_pickled_and_read_back_under_either_name() -> None:
    code = """
        import pickle
        from seldon_core.user_model import SeldonResponse
        data = pickle.dumps(SeldonResponse([1], {"a": 1}))
        assert vars(pickle.loads(data)) == vars(SeldonResponse([1], {"a": 1}))
        assert type(pickle.loads(b"cseldon_core.user_model\\nSeldonComponent\\n(tR.")).__name__ == "SeldonComponent"
        from seldon_core.proto.prediction_pb2 import SeldonMessage
        assert pickle.loads(pickle.dumps(SeldonMessage(strData="x"))).strData == "x"
    """
    run(code)


def test_unknown_module_and_unknown_name_tell_what_there_is() -> None:
    code = """
        for name in ("seldon_core.utilz", "seldon_core.proto.nothing"):
            try:
                __import__(name)
            except ModuleNotFoundError as exc:
                print(exc, exc.name)
        import seldon_core
        try:
            seldon_core.Storag
        except AttributeError as exc:
            print(exc)
        try:
            from seldon_core import nothing
        except ImportError as exc:
            print(type(exc).__name__)
    """
    first, second, third, fourth = run(code)
    assert first.startswith(
        "No module named 'seldon_core.utilz': servegraph has no such module of seldon_core; did you"
    )
    assert "mean 'utils'? valid: api_tester" in first
    assert first.endswith(" seldon_core.utilz")
    assert "proto.prediction_pb2" in second
    assert "did you mean 'Storage'?" in third
    assert fourth == "ImportError"


def test_finder_is_asked_last_and_installed_once() -> None:
    code = """
        before = list(sys.meta_path)
        install_names()
        print(sys.meta_path == before, type(sys.meta_path[-1]).__name__)
        from importlib.util import find_spec
        print(find_spec("not_there_at_all"), find_spec("seldon_core").origin)
        print("seldon_core" in sys.modules)
    """
    assert run(code) == ["True SeldonFinder", "None servegraph", "False"]


def test_real_package_is_never_shadowed_and_nothing_of_ours_is_mixed_into_it(tmp_path: Path) -> None:
    package = tmp_path / "seldon_core"
    (package / "proto").mkdir(parents=True)
    (package / "__init__.py").write_text("__version__ = 'real'\n")
    (package / "proto" / "__init__.py").write_text("")
    (package / "user_model.py").write_text("class SeldonComponent: pass\n")
    code = """
        sys.path.append(".")  # as late as can be
        import seldon_core, seldon_core.proto
        from seldon_core.user_model import SeldonComponent
        print(seldon_core.__version__, SeldonComponent.__module__)
        for name in ("seldon_core.utils", "seldon_core.proto.prediction_pb2"):
            try:
                __import__(name)
            except ModuleNotFoundError as exc:
                print(exc)
    """
    assert run(code, tmp_path) == [
        "real seldon_core.user_model",
        "No module named 'seldon_core.utils'",
        "No module named 'seldon_core.proto.prediction_pb2'",
    ]


def test_messages_of_components_need_no_flask_and_no_grpc() -> None:
    code = """
        import seldon_core
        from seldon_core.user_model import SeldonComponent, SeldonResponse
        from seldon_core.flask_utils import SeldonMicroserviceException
        from seldon_core.utils import get_data_from_proto
        from seldon_core.metrics import create_counter
        print([name for name in ("flask", "grpc", "httpx") if name in sys.modules])
    """
    assert run(code) == ["[]"]


def test_names_that_tests_of_components_import_are_there() -> None:
    code = """
        import seldon_core.seldon_methods as scm
        from seldon_core.metrics import COUNTER, DEFAULT_LABELS, GAUGE, TIMER, PREDICT_METRIC_METHOD_TAG, SeldonMetrics
        from seldon_core.microservice import DEFAULT_ANNOTATION_REST_TIMEOUT, load_annotations, parse_parameters
        from seldon_core.utils import ENV_MODEL_IMAGE, ENV_MODEL_NAME
        from seldon_core.wrapper import SeldonModelGRPC, get_grpc_server, get_rest_microservice

        assert PREDICT_METRIC_METHOD_TAG is scm.PREDICT_METRIC_METHOD_TAG == "predict"
        assert scm.INPUT_TRANSFORM_METRIC_METHOD_TAG == "inputtransform"
        assert DEFAULT_LABELS["model_name"] == DEFAULT_LABELS["deployment_name"] == "NOT_IMPLEMENTED"
        assert (ENV_MODEL_NAME, ENV_MODEL_IMAGE) == ("PREDICTIVE_UNIT_ID", "PREDICTIVE_UNIT_IMAGE")
        assert (load_annotations(), DEFAULT_ANNOTATION_REST_TIMEOUT) == ({}, 5000)
        print("all there")
    """
    assert run(code) == ["all there"]


@pytest.mark.slow
def test_tests_of_a_component_run_with_two_lines_in_their_conftest(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("from servegraph.serving.seldon import install_names\n\ninstall_names()\n")
    (tmp_path / "Doubler.py").write_text(
        "from seldon_core.user_model import SeldonComponent\n\n\n"
        "class Doubler(SeldonComponent):\n    def predict(self, X, names, meta=None):\n        return X * 2\n"
    )
    (tmp_path / "test_doubler.py").write_text(
        textwrap.dedent("""
            import json

            import numpy as np
            from Doubler import Doubler
            from seldon_core.metrics import SeldonMetrics
            from seldon_core.proto import prediction_pb2
            from seldon_core.wrapper import SeldonModelGRPC, get_rest_microservice


            def test_rest():
                client = get_rest_microservice(Doubler(), SeldonMetrics()).test_client()
                answer = client.get('/predict?json={"data":{"ndarray":[[1,2]]}}')
                assert (answer.status_code, json.loads(answer.data)["data"]["ndarray"]) == (200, [[2, 4]])


            def test_grpc():
                message = prediction_pb2.SeldonMessage(data={"tensor": {"shape": [1, 1], "values": [1.5]}})
                answer = SeldonModelGRPC(Doubler(), SeldonMetrics()).Predict(message, None)
                assert list(answer.data.tensor.values) == [3.0]
        """)
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


def test_module_of_the_package_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "servegraph", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("servegraph, version ")
