"""``servegraph build``: the build context, what it tells, and Docker where that is asked for."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from served_command import run

from servegraph.cli.main import main

MODEL = "class MyModel:\n    def predict(self, X, names=None, meta=None):\n        return X\n"
ENVIRONMENT = "MODEL_NAME=MyModel\nSERVICE_TYPE=MODEL\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the component `my-model`, and no program on the PATH."""
    source = tmp_path / "my-model"
    (source / ".s2i").mkdir(parents=True)
    (source / ".s2i/environment").write_text(ENVIRONMENT)
    (source / "MyModel.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path


def build(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["build", *arguments])


def tool(here: Path, name: str, exit_code: int = 0) -> Path:
    """A program that writes down how it was called."""
    path = here / "bin" / name
    path.parent.mkdir(exist_ok=True)
    calls = here / "calls"
    path.write_text(
        f"#!{sys.executable}\nimport json, sys\n"
        f"print(json.dumps(sys.argv[1:]), file=open({str(calls)!r}, 'a'))\nsys.exit({exit_code})\n"
    )
    path.chmod(0o755)
    return calls


def test_context_is_written_beside_and_told(here: Path) -> None:
    result = build("my-model")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines() == [
        "my-model-image/.dockerignore",
        "my-model-image/Dockerfile",
        "my-model-image/entry.sh",
        "my-model-image/health.py",
        "my-model-image/servegraph.txt",
        "my-model-image/source/MyModel.py",
    ]
    assert "component MyModel (MODEL), named in " in result.stderr
    assert "Next: docker build --tag NAME my-model-image" in result.stderr
    assert all((here / line).is_file() for line in result.stdout.splitlines())


def test_folder_that_is_not_empty_needs_force(here: Path) -> None:
    assert build("my-model", "-o", "out").exit_code == 0
    again = build("my-model", "-o", "out")
    assert again.exit_code == 1
    assert "--output out is not empty; --force replaces" in again.stderr
    assert build("my-model", "-o", "out", "--force").exit_code == 0


def test_every_option_reaches_the_context(here: Path) -> None:
    (here / "my-model/requirements.txt").write_text("seldon-core==1.6.0\n")
    (here / "env_grpc").write_text("MODEL_NAME=Elsewhere\nAPI_TYPE=GRPC\n")
    (here / "dist").mkdir()
    (here / "dist/six-1.0-py3-none-any.whl").write_text("x")
    result = build(
        "my-model", "--output", "out", "--base-image", "registry.example.com/base:1", "--wheel", "dist",
        "--model-name", "MyModel", "--service-type", "ROUTER", "--env-file", "env_grpc", "--env", "A=$B 'c'",
        "--env", "D=", "--user", "1000:1000", "--keep-seldon-core",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    text = (here / "out/Dockerfile").read_text()
    for line in (
        "FROM registry.example.com/base:1\n", 'ENV A="\\$B \'c\'" \\\n    D=""\n', "USER 1000:1000\n",
        'MODEL_NAME="MyModel"', 'SERVICE_TYPE="ROUTER"', 'API_TYPE="GRPC"', "COPY wheels/", "--chown=1000:1000 source/",
    ):  # fmt: skip
        assert line in text
    assert (here / "out/requirements/requirements.txt").read_text() == "seldon-core==1.6.0\n"
    assert build("my-model", "-o", "two", "--python", "3.13").exit_code == 0
    assert "FROM python:3.13-slim\n" in (here / "two/Dockerfile").read_text()
    assert build("my-model", "-o", "three", "--model-name", "a.B", "--installed-model").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "there is no folder 'nowhere'"),
        (["my-model", "--env", "A"], "--env: 'A' is no variable: write NAME=VALUE"),
        (["my-model", "--env", "A=a\nRUN id"], r"--env: the value of A holds '\n', which a Dockerfile cannot"),
        (["my-model", "--model-name", "x\nRUN id"], r"--model-name: the value of MODEL_NAME holds '\n'"),
        (["my-model", "--model-name", "Mymodel"], "--model-name: MODEL_NAME is 'Mymodel'"),
        (["my-model", "--model-name", "Mymodel"], "did you mean 'MyModel'? valid: MyModel"),
        (["my-model", "--service-type", "MODL"], "--service-type: there is no SERVICE_TYPE 'MODL'; did you mean"),
        (["my-model", "--base-image", "a b"], "--base-image takes the name of an image"),
        (["my-model", "--python", "2.7"], "--python takes a version"),
        (["my-model", "--user", "me"], "--user takes a number"),
        (["my-model", "--wheel", "nowhere"], "--wheel nowhere: there is no such file or folder"),
        (["my-model", "--output", "my-model"], "is the source folder, or holds it"),
        (["my-model", "--tag", "UPPER"], "--tag takes the name of an image"),
        (["my-model", "--tag", "--privileged"], "--tag takes the name of an image"),
        (["my-model", "--tag", "x"], "--tag needs docker or podman on the PATH"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_one_message_and_nothing_is_written(
    here: Path, arguments: list[str], message: str
) -> None:
    result = build(*arguments)
    assert result.exit_code == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert sorted(path.name for path in here.iterdir()) == ["my-model"]


def test_run_without_a_tag_is_a_mistake(here: Path) -> None:
    result = build("my-model", "--run")
    assert result.exit_code == 2
    assert "--run needs --tag" in result.stderr


@pytest.mark.parametrize("name", ["docker", "podman"])
def test_image_is_built_and_run_where_it_is_asked_for(here: Path, name: str) -> None:
    calls = tool(here, name)
    assert build("my-model", "--tag", "my-model:1.0").exit_code == 0
    assert build("my-model", "--tag", "my-model:1.0", "--run", "--force").exit_code == 0
    built = ["build", "--tag", "my-model:1.0", str(here / "my-model-image")]
    published = [text for port in (9000, 5000, 6000) for text in ("--publish", f"127.0.0.1:{port}:{port}")]
    assert [json.loads(line) for line in calls.read_text().splitlines()] == [
        built,
        built,
        ["run", "--rm", *published, "my-model:1.0"],
    ]


def test_failure_of_docker_is_that_of_the_command(here: Path) -> None:
    calls = tool(here, "docker", exit_code=17)
    assert build("my-model", "--tag", "x", "--run").exit_code == 17
    assert len(calls.read_text().splitlines()) == 1, "an image that was not built is not run"


def test_what_is_told_holds_no_orders_for_the_terminal(here: Path) -> None:
    (here / "my-model/requirements.txt").write_text("seldon-core \x1b[2J\n")
    result = build("my-model")
    assert result.exit_code == 0
    assert "\x1b" not in result.stderr
    assert "seldon-core is not installed: " in result.stderr


def test_code_of_the_source_never_runs(here: Path) -> None:
    (here / "my-model/MyModel.py").write_text(f"open({str(here / 'ran')!r}, 'w')\n{MODEL}")
    (here / "my-model/setup.py").write_text(
        f"open({str(here / 'ran')!r}, 'w')\nfrom setuptools import setup\nsetup()\n"
    )
    done = run("build", "my-model", cwd=here)
    assert done.returncode == 0, done.stderr
    assert not (here / "ran").exists()


def test_second_build_of_the_working_directory_packs_nothing_of_the_first(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(here / "my-model")
    assert build(".").exit_code == 0
    assert (here / "my-model/my-model-image/source/MyModel.py").is_file()
    result = build(".", "--output", str(here / "second"))
    assert result.exit_code == 0, result.stderr
    assert [path.name for path in (here / "second/source").iterdir()] == ["MyModel.py"]


DEPLOYMENT = """
apiVersion: machinelearning.seldon.io/v1
kind: SeldonDeployment
metadata: {name: flowers}
spec:
  predictors: [{name: main, graph: {name: petal}}]
"""


def test_folder_of_a_deployment_is_told_what_can_be_built_of_it(here: Path) -> None:
    graph = here / "graph"
    (graph / "petal").mkdir(parents=True)
    (graph / "deployment.yaml").write_text(DEPLOYMENT)
    result = build("graph")
    assert result.exit_code == 1
    assert (
        "deployment.yaml is a SeldonDeployment: for an image of the whole graph, call it function.yaml" in result.stderr
    )
    assert "--model-name petal" not in result.stderr
    (graph / "petal/Petal.py").write_text(MODEL.replace("MyModel", "Petal"))
    line = f"for that of one component: servegraph build {graph / 'petal'} --model-name Petal"
    assert line in build("graph").stderr
    told = line.partition("build ")[2].split()
    assert build(*told, "--output", "petal-image").exit_code == 0
    (graph / "deployment.yaml").rename(graph / "function.yaml")
    assert build("graph").exit_code == 0
    assert (here / "graph-image/servegraph.txt").read_text().startswith("servegraph[seldon]==")
