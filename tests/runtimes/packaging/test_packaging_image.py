"""The whole way without Docker: wheels are installed as the Dockerfile says, and its entry script serves."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import venv
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from dockerfile_double import Scratch
from source_folders import folder

import servegraph
from servegraph.runtimes.packaging import BuildOptions, write_build_context

pytestmark = pytest.mark.slow

PROJECT = Path(servegraph.__file__).parent.parent
VERSION = f"{servegraph.__version__}+scratch"
START_S = 60.0
MODEL = """\
import tinydep
from seldon_core.user_model import SeldonComponent


class Doubles(SeldonComponent):
    def load(self):
        self.factor = tinydep.FACTOR + int(open("prepared").read())

    def predict(self, X, names, meta=None):
        return X * self.factor
"""
FUNCTION = """\
import servegraph
import tinydep


class Doubles(servegraph.V2ModelServer):
    def load(self):
        pass

    def predict(self, request):
        return [tinydep.FACTOR * x for x in request["inputs"]]


fn = servegraph.new_function("doubles")
fn.add_model("doubles", class_name=Doubles)
"""


def tiny_wheel(place: Path) -> None:
    """A package that only a local wheel has."""
    info = "tinydep-1.0.dist-info"
    with zipfile.ZipFile(place / "tinydep-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tinydep.py", "FACTOR = 2\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tinydep\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of servegraph as it stands here, under a version that is installed nowhere, and one of `tinydep`."""
    tree = tmp_path_factory.mktemp("tree")
    shutil.copytree(PROJECT / "servegraph", tree / "servegraph", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, tree)
    text = (PROJECT / "pyproject.toml").read_text()
    (tree / "pyproject.toml").write_text(re.sub(r'(?m)^version = ".*"$', f'version = "{VERSION}"', text, count=1))
    place = tmp_path_factory.mktemp("wheels")
    line = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*line, "-w", str(place), str(tree)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    tiny_wheel(place)
    return place


@pytest.fixture(scope="module")
def python_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of the scratch image: servegraph is not in it, and what servegraph needs is that of the tests."""
    place = tmp_path_factory.mktemp("python")
    venv.create(place, symlinks=True)
    (site,) = place.glob("lib/python*/site-packages")
    (site / "tests.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return place


def image(source: Path, wheels: Path, python_home: Path) -> Scratch:
    options = BuildOptions(wheels=(wheels,), environment=("PIP_NO_INDEX=1", "PIP_ROOT_USER_ACTION=ignore"))
    context = write_build_context(source, source.parent / "out", options)
    made = Scratch(context.folder, source.parent / "root")
    made.build(path=f"{python_home}/bin:/usr/bin:/bin")
    return made


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@contextmanager
def container(made: Scratch, python_home: Path, env: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """The container's process, from the time on at which its health check passes."""
    process = made.start(path=f"{python_home}/bin:/usr/bin:/bin", env=env)
    try:
        end = time.monotonic() + START_S
        while subprocess.run(made.health_command(), env=dict(env), capture_output=True).returncode != 0:
            if process.poll() is not None or time.monotonic() > end:
                process.kill()
                raise AssertionError(process.communicate()[1])
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def post(port: int, path: str, body: object) -> object:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        return json.loads(answer.read())


def test_component_is_installed_from_local_wheels_and_answers(tmp_path: Path, wheels: Path, python_home: Path) -> None:
    source = folder(
        tmp_path / "doubles",
        {
            "Doubles.py": MODEL,
            "requirements.txt": "# as PrimeHub has it\nseldon-core==1.6.0\ntinydep\n",
            ".s2i/environment": "MODEL_NAME=Doubles\nAPI_TYPE=REST\nSERVICE_TYPE=MODEL\nPERSISTENCE=0\n",
            "before-run": "#!/bin/sh\nprintf 1 > prepared\n",
        },
    )
    (source / "before-run").chmod(0o755)
    made = image(source, wheels, python_home)
    assert (made.context / "servegraph.txt").read_text() == f"servegraph[seldon]=={VERSION}\n"
    assert (python_home / "bin/seldon-core-microservice").exists()
    http_port, grpc_port, metrics_port = map(str, free_ports(3))
    env = {
        "PREDICTIVE_UNIT_HTTP_SERVICE_PORT": http_port,
        "PREDICTIVE_UNIT_GRPC_SERVICE_PORT": grpc_port,
        "PREDICTIVE_UNIT_METRICS_SERVICE_PORT": metrics_port,
    }
    with container(made, python_home, env) as process:
        answer = post(int(http_port), "/predict", {"data": {"ndarray": [[1, 2]]}})
        assert isinstance(answer, dict)
        assert answer["data"]["ndarray"] == [[3, 6]]
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert subprocess.run(made.health_command(), env=env, capture_output=True).returncode == 1


def test_function_is_installed_from_local_wheels_and_answers(tmp_path: Path, wheels: Path, python_home: Path) -> None:
    source = folder(tmp_path / "doubles", {"function.py": FUNCTION, "requirements.txt": "tinydep\n"})
    made = image(source, wheels, python_home)
    (port,) = free_ports(1)
    with container(made, python_home, {"SERVEGRAPH_HTTP_PORT": str(port)}) as process:
        answer = post(port, "/v2/models/doubles/infer", {"inputs": [1, 2]})
        assert isinstance(answer, dict)
        assert answer["outputs"] == [2, 4]
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
