"""A component that came with a Dockerfile of its own is built from what that says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from dockerfile_double import parse
from source_folders import MODEL, component, folder

from servegraph.errors import SettingsError
from servegraph.runtimes.packaging import write_build_context
from servegraph.runtimes.packaging.existing import read_dockerfile

PRIMEHUB = """\
FROM python:3.7-slim
COPY ./server /app
WORKDIR /app
RUN pip install -r requirements.txt
RUN pip install MarkupSafe==2.0.1
EXPOSE 5000
EXPOSE 9000

# Define environment variable
ENV MODEL_NAME Model
ENV SERVICE_TYPE MODEL
ENV PERSISTENCE 0

CMD exec seldon-core-microservice $MODEL_NAME --service-type $SERVICE_TYPE --persistence $PERSISTENCE --access-log
"""
CODE = MODEL.replace("MyModel", "Model")


def test_folder_of_primehub_is_built_from_its_dockerfile_and_says_so(tmp_path: Path) -> None:
    source = folder(
        tmp_path / "skeleton",
        {
            "Dockerfile": PRIMEHUB, "Makefile": "", "README.md": "", ".dockerignore": "server/notes\n",
            "server/Model.py": CODE, "server/requirements.txt": "seldon-core==1.6.0\nnumpy\n", "server/notes": "",
        },
    )  # fmt: skip
    context = write_build_context(source, tmp_path / "out")
    parsed = parse((tmp_path / "out/Dockerfile").read_text())
    assert {n: parsed.env[n] for n in ("MODEL_NAME", "SERVICE_TYPE", "PERSISTENCE")} == {
        "MODEL_NAME": "Model",
        "SERVICE_TYPE": "MODEL",
        "PERSISTENCE": "0",
    }
    assert parsed.base == "python:3.11-slim"
    assert parsed.cmd == ["--access-log"]
    assert [p for p in context.paths if p.startswith("source")] == ["source/Model.py", "source/requirements.txt"]
    notes = "\n".join(context.notes)
    assert f"found {source}/Dockerfile: MODEL_NAME=Model SERVICE_TYPE=MODEL PERSISTENCE=0, code from ./server" in notes
    assert "options --access-log, base image was python:3.7-slim" in notes
    assert f"not taken over: {source}/Dockerfile:5: RUN pip install MarkupSafe==2.0.1" in notes
    (warning,) = context.warnings
    assert warning.startswith(f"{source}/Dockerfile: not all of it is taken over")


@pytest.mark.parametrize(
    ("lines", "variables", "arguments"),
    [
        (
            'ENV MODEL_NAME="A" SERVICE_TYPE=ROUTER\nCMD seldon-core-microservice $MODEL_NAME --persistence=1',
            {"MODEL_NAME": "A", "SERVICE_TYPE": "ROUTER", "PERSISTENCE": "1"}, [],
        ),
        (
            'CMD ["seldon-core-microservice", "A", "--service-type", "COMBINER", "--workers", "4"]',
            {"MODEL_NAME": "A", "SERVICE_TYPE": "COMBINER"}, ["--workers", "4"],
        ),
        (
            'ENV MODEL_NAME A\nENV API_TYPE GRPC\nCMD ["sh", "-c", "seldon-core-microservice $MODEL_NAME $API_TYPE"]',
            {"MODEL_NAME": "A", "API_TYPE": "GRPC"}, [],
        ),
        ("CMD exec seldon-core-microservice A REST --persistence 1 --debug",
         {"MODEL_NAME": "A", "API_TYPE": "REST", "PERSISTENCE": "1"}, ["--debug"]),
        ("ENV NAME=A\nCMD seldon-core-microservice ${NAME} --service-type MODEL \\\n  # why\n  --log-level DEBUG",
         {"NAME": "A", "MODEL_NAME": "A", "SERVICE_TYPE": "MODEL"}, ["--log-level", "DEBUG"]),
    ],
)  # fmt: skip
def test_ways_to_start_a_component_are_understood(
    lines: str, variables: dict[str, str], arguments: list[str], tmp_path: Path
) -> None:
    file = folder(tmp_path, {"Dockerfile": f"FROM python:3.7 as x\n{lines}\n"}) / "Dockerfile"
    image = read_dockerfile(file)
    assert image.starts_component
    assert {each.name: each.value for each in image.variables} == variables
    assert image.arguments == arguments
    assert image.base_image == "python:3.7"


@pytest.mark.parametrize("text", ["FROM nginx\n", "", "FROM x\nCMD seldon-core-microservice\n", 'CMD ["a\n', "\\"])
def test_dockerfile_of_something_else_starts_no_component(text: str, tmp_path: Path) -> None:
    assert not read_dockerfile(folder(tmp_path, {"Dockerfile": text}) / "Dockerfile").starts_component


def test_code_of_the_whole_folder_is_copied_where_the_dockerfile_copies_it(tmp_path: Path) -> None:
    text = "FROM a\nCOPY requirements.txt /x/\nCOPY --chown=1:1 . /app\nCMD seldon-core-microservice Model\n"
    source = folder(tmp_path / "s", {"Dockerfile": text, "Model.py": CODE, "requirements.txt": "six\n"})
    context = write_build_context(source, tmp_path / "out")
    assert [p for p in context.paths if p.startswith("source")] == ["source/Model.py", "source/requirements.txt"]
    assert context.warnings == ()


def test_environment_file_comes_before_a_dockerfile(tmp_path: Path) -> None:
    source = component(tmp_path / "s", {"Dockerfile": PRIMEHUB, "server/Model.py": CODE})
    context = write_build_context(source, tmp_path / "out")
    assert parse((tmp_path / "out/Dockerfile").read_text()).env["MODEL_NAME"] == "MyModel"
    assert f"{source}/Dockerfile is not used, and not part of the image" in context.notes


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('ENV A="x', 'Dockerfile:2: ENV A="x cannot be read'),
        ("ENV MODEL_NAME=A\x01", "Dockerfile:2: the value of MODEL_NAME holds"),
        ("ENV A-B=1", "Dockerfile:2: 'A-B' is no name"),
    ],
)
def test_line_that_cannot_be_taken_over_is_told(line: str, message: str, tmp_path: Path) -> None:
    file = folder(tmp_path, {"Dockerfile": f"FROM x\n{line}\n"}) / "Dockerfile"
    with pytest.raises(SettingsError, match=re.escape(message)):
        read_dockerfile(file)
