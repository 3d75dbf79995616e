"""The build context of a source folder: what its Dockerfile says is done, and what it starts is started."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Mapping
from pathlib import Path

import pytest
from dockerfile_double import Scratch, parse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from source_folders import ENVIRONMENT, MODEL, component, folder, program

from servegraph import __version__
from servegraph.errors import SettingsError
from servegraph.runtimes.packaging import BuildContext, BuildOptions, write_build_context

FUNCTION = "import servegraph\nfn = servegraph.new_function('f')\n"


def build(source: Path, **options: object) -> BuildContext:
    return write_build_context(source, source.parent / "out", BuildOptions(**options), force=True)  # type: ignore[arg-type]


def programs(tmp_path: Path, *names: str) -> str:
    """A PATH on which the programs of an image are doubles that tell how they were called."""
    for name in names or ("seldon-core-microservice", "servegraph"):
        program(tmp_path / "bin", name)
    return f"{tmp_path}/bin:/usr/bin:/bin"


def scratch(context: BuildContext, root: Path) -> Scratch:
    made = Scratch(context.folder, root)
    made.build(runs=False)
    return made


def started(made: Scratch, path: str, *arguments: str, env: Mapping[str, str] | None = None) -> dict[str, object]:
    code, out, err = made.started(*arguments, path=path, env=env)
    assert code == 0, err
    told: dict[str, object] = json.loads(out.splitlines()[-1])
    return told


def test_component_is_started_as_its_environment_file_says(tmp_path: Path) -> None:
    source = component(tmp_path / "src", {"data/a.txt": "x", "requirements.txt": "seldon-core==1.6.0\nnumpy\n"})
    context = build(source)
    made = scratch(context, tmp_path / "root")
    told = started(made, programs(tmp_path))
    assert told["arguments"] == ["MyModel", "--service-type", "MODEL", "--persistence", "0"]
    assert told["cwd"] == str(tmp_path / "root/microservice")
    env = told["env"]
    assert isinstance(env, dict)
    assert {name: env[name] for name in ("MODEL_NAME", "SERVICE_TYPE", "API_TYPE", "PERSISTENCE")} == {
        "MODEL_NAME": "MyModel",
        "SERVICE_TYPE": "MODEL",
        "API_TYPE": "REST",
        "PERSISTENCE": "0",
    }
    assert env["PYTHONUNBUFFERED"] == "1"
    assert (tmp_path / "root/microservice/MyModel.py").read_text() == MODEL
    assert (tmp_path / "root/microservice/data/a.txt").read_text() == "x"
    assert not (tmp_path / "root/microservice/.s2i").exists()
    assert context.kind == "component"
    assert "seldon-core is not installed" in "\n".join(context.notes)


def test_dockerfile_says_all_that_an_image_needs_in_an_order_that_caches(tmp_path: Path) -> None:
    source = component(tmp_path / "src", {"requirements.txt": "numpy\n"})
    text = (build(source).folder / "Dockerfile").read_text()
    parsed = parse(text)
    assert parsed.base == "python:3.11-slim"
    assert parsed.ports == [5000, 6000, 9000]
    assert parsed.user == "8888:0"
    assert parsed.workdir == "/microservice"
    assert parsed.entrypoint == ["/bin/sh", "/opt/servegraph/entry.sh"]
    assert parsed.cmd == []
    assert parsed.health[:2] == ["python", "/opt/servegraph/health.py"]
    assert parsed.labels == {
        "org.opencontainers.image.title": "src",
        "org.opencontainers.image.base.name": "python:3.11-slim",
        "io.servegraph.kind": "component",
        "io.servegraph.version": __version__,
        "io.servegraph.service-type": "MODEL",
    }
    install = parsed.position("RUN python -m pip")
    code = parsed.position("COPY --chown=8888:0 source/")
    assert parsed.position("COPY requirements/") < install < code < parsed.position("ENV MODEL_NAME")
    assert code < parsed.position("USER 8888:0") < parsed.position("ENTRYPOINT")
    assert "--no-cache-dir" in parsed.instructions[install][1]
    assert not re.search(r"\b20[0-9]{2}-", text), "no times"
    assert (tmp_path / "out/servegraph.txt").read_text() == f"servegraph[seldon]=={__version__}\n"


def test_same_source_gives_the_same_bytes_wherever_it_is(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {f"pkg/m{i}.py": MODEL for i in range(20)}
    contexts = []
    for place, order in (("one", 1), ("two", -1)):
        source = component(
            tmp_path / place / "src", dict(list({**files, "requirements.txt": "six\n"}.items())[::order])
        )
        os.utime(source / "MyModel.py", (order + 1, order + 1))
        out = build(source, environment=("B=2", "A=1")).folder
        contexts.append(
            {str(p.relative_to(out)): (p.read_bytes(), p.stat().st_mode) for p in out.rglob("*") if p.is_file()}
        )
    assert contexts[0] == contexts[1]


def test_exactly_the_same_is_written_again_with_force(tmp_path: Path) -> None:
    source = component(tmp_path / "src")
    build(source)
    first = {p: p.read_bytes() for p in sorted((tmp_path / "out").rglob("*")) if p.is_file()}
    build(source)
    assert {p: p.read_bytes() for p in sorted((tmp_path / "out").rglob("*")) if p.is_file()} == first


NASTY = st.text(alphabet="\"'\\$`{}#=;&|<>()!*?[]~ -azAZ09é☃\u2028\x85", max_size=24).map(str.strip)


@given(st.dictionaries(st.from_regex(r"MY_[A-Z]{1,5}", fullmatch=True), NASTY, max_size=4))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_values_reach_the_component_exactly_as_they_were_given(tmp_path: Path, values: dict[str, str]) -> None:
    # Half of them from the file, half from options.
    names = sorted(values)
    lines = [f"{name}={values[name]}" for name in names]
    source = component(tmp_path / "src", {".s2i/environment": ENVIRONMENT + "".join(f"{x}\n" for x in lines[::2])})
    context = build(source, environment=tuple(lines[1::2]))
    parsed = parse((context.folder / "Dockerfile").read_text(encoding="utf-8"))
    assert {name: parsed.env[name] for name in names} == values
    root = tmp_path / "root"
    entry = root / "opt/servegraph/entry.sh"
    if not entry.exists():
        scratch(context, root)
    made = Scratch(context.folder, root)
    told = started(made, programs(tmp_path))
    env = told["env"]
    assert isinstance(env, dict)
    assert {name: env[name] for name in names} == values
    assert told["arguments"] == ["MyModel", "--service-type", "MODEL", "--persistence", "0"]


@given(NASTY, NASTY)
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_the_container_is_given_is_never_read_by_a_shell(tmp_path: Path, name: str, option: str) -> None:
    root = tmp_path / "root"
    if not root.exists():
        scratch(build(component(tmp_path / "src")), root)
    made = Scratch(tmp_path / "out", root)
    env = {"MODEL_NAME": name or "X", "SERVICE_TYPE": "a b", "PERSISTENCE": "$(id)"}
    told = started(made, programs(tmp_path), "--log-level", option, env=env)
    expected = [name or "X", "--service-type", "a b", "--persistence", "$(id)", "--log-level", option]
    assert told["arguments"] == expected


@pytest.mark.parametrize("title", ["a b", 'x"; RUN id', "$HOME", "-x", "été", "a\nRUN x"])
def test_name_of_the_source_folder_is_only_a_label(title: str, tmp_path: Path) -> None:
    parsed = parse((build(component(tmp_path / title)).folder / "Dockerfile").read_text())
    assert parsed.labels["org.opencontainers.image.title"] == title.replace("\n", "?")


def test_before_run_comes_before_the_start_and_its_failure_ends_it(tmp_path: Path) -> None:
    source = component(tmp_path / "src", {"before-run": "#!/bin/sh\necho prepared > state; exit ${FAIL:-0}\n"})
    (source / "before-run").chmod(0o755)
    made = scratch(build(source), tmp_path / "root")
    path = programs(tmp_path)
    assert started(made, path)["arguments"] == ["MyModel", "--service-type", "MODEL", "--persistence", "0"]
    assert (tmp_path / "root/microservice/state").read_text() == "prepared\n"
    assert made.started(path=path, env={"FAIL": "7"})[:2] == (7, "")


def test_before_run_that_is_not_executable_is_not_run(tmp_path: Path) -> None:
    source = component(tmp_path / "src", {"before-run": "#!/bin/sh\nexit 1\n"})
    assert started(scratch(build(source), tmp_path / "root"), programs(tmp_path))["arguments"]


def test_signal_reaches_the_microservice_itself(tmp_path: Path) -> None:
    made = scratch(build(component(tmp_path / "src")), tmp_path / "root")
    path = programs(tmp_path)
    waiting = tmp_path / "bin/seldon-core-microservice"
    waiting.write_text("#!/bin/sh\ntrap 'echo stopped; exit 3' TERM\necho $$\nwhile :; do sleep 0.05; done\n")
    process = made.start(path=path)
    assert process.stdout is not None
    assert int(process.stdout.readline()) == process.pid, "exec: no shell stays between"
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, out) == (3, "stopped\n")


def test_container_without_a_model_name_says_so(tmp_path: Path) -> None:
    made = scratch(build(component(tmp_path / "src")), tmp_path / "root")
    code, out, err = made.started(path=programs(tmp_path), env={"MODEL_NAME": ""})
    assert (code, out) == (1, "")
    assert "MODEL_NAME and SERVICE_TYPE must be set" in err


def test_conda_environment_is_made_and_activated(tmp_path: Path) -> None:
    source = component(
        tmp_path / "src",
        {
            "environment.yml": "name: other\ndependencies: [python=3.11, pip, numpy]\n",
            ".s2i/environment": f"{ENVIRONMENT}CONDA_ENV_NAME=mine\n",
        },
    )
    context = build(source)
    made = scratch(context, tmp_path / "root")
    assert made.parsed.base.startswith("condaforge/miniforge3:")
    assert made.parsed.env["CONDA_ENV_NAME"] == "mine"
    assert made.runs[1].startswith(
        'conda env create --quiet --name "$CONDA_ENV_NAME" --file /opt/servegraph/requirements/'
    )
    assert made.runs[2].startswith('conda run --no-capture-output --name "$CONDA_ENV_NAME" python -m pip install')
    assert (tmp_path / "root/opt/servegraph/requirements/environment.yml").exists()
    base = folder(
        tmp_path / "conda",
        {"envs/mine/x": "", "etc/profile.d/conda.sh": 'conda() { [ "$1" = activate ] && export ACTIVE="$2"; }\n'},
    )
    path = programs(tmp_path)
    conda = folder(tmp_path / "bin", {"conda": f'#!/bin/sh\n[ "$1 $2" = "info --base" ] && echo "{base}"\n'}) / "conda"
    conda.chmod(0o755)
    env = started(made, path)["env"]
    assert isinstance(env, dict)
    assert env["ACTIVE"] == "mine"


def test_function_is_served(tmp_path: Path) -> None:
    source = folder(tmp_path / "src", {"function.py": FUNCTION, "requirements.txt": "servegraph[sklearn]\nsix\n"})
    context = build(source)
    made = scratch(context, tmp_path / "root")
    assert (context.kind, context.ports) == ("function", (8080,))
    assert made.parsed.ports == [8080]
    assert made.parsed.cmd == ["function.py"]
    told = started(made, programs(tmp_path))
    assert told["arguments"] == ["serve", "function.py"]
    assert told["cwd"] == str(tmp_path / "root/microservice")
    env = told["env"]
    assert isinstance(env, dict)
    assert env["SERVEGRAPH_HOST"] == "0.0.0.0"
    assert started(made, programs(tmp_path), "function.py", "--workers", "4")["arguments"][2:] == ["--workers", "4"]  # type: ignore[index]
    assert (context.folder / "servegraph.txt").read_text() == "servegraph\n", "the user's own line says which version"


def test_function_without_requirements_gets_this_version(tmp_path: Path) -> None:
    context = build(folder(tmp_path / "src", {"function.yaml": "kind: serving\n"}))
    assert (context.folder / "servegraph.txt").read_text() == f"servegraph=={__version__}\n"


@pytest.mark.parametrize(
    ("files", "options", "steps"),
    [
        pytest.param({"requirements.txt": "six\n"}, {}, ["both", "code"], id="requirements"),
        pytest.param({"requirements.txt": "-e .\n", "setup.py": "setup()"}, {}, ["code", "both"], id="local path"),
        pytest.param({"requirements.txt": "six --hash=sha256:00\n"}, {}, ["listed", "own", "code"], id="hashes"),
        pytest.param(
            {"requirements.txt": "seldon-core\n"},
            {"keep_seldon": True},
            ["listed", "own", "code"],
            id="real seldon-core",
        ),
        pytest.param({"requirements.txt": "seldon-core\n"}, {}, ["both", "code"], id="no seldon-core"),
        pytest.param({}, {}, ["own", "code"], id="nothing"),
        pytest.param({"setup.py": "setup(install_requires=['six'])"}, {}, ["both", "code", "project"], id="project"),
        pytest.param(
            {"setup.py": "setup(**x)"},
            {},
            ["code", "whole project", "no seldon-core, own"],
            id="project that has to run",
        ),
        pytest.param({"setup.py": "setup(**x)"}, {"keep_seldon": True}, ["code", "whole project", "own"], id="kept"),
    ],
)
def test_steps_of_the_installation_are_those_that_the_source_needs(
    files: dict[str, str | bytes], options: dict[str, object], steps: list[str], tmp_path: Path
) -> None:
    text = (build(component(tmp_path / "src", files), **options).folder / "Dockerfile").read_text()
    pip = "RUN python -m pip install --no-cache-dir "
    listed, own = "-r /opt/servegraph/requirements/requirements.txt", "-r /opt/servegraph/servegraph.txt"
    known = {
        pip + f"{listed} {own}": "both",
        pip + listed: "listed",
        pip + own: "own",
        "COPY --chown=8888:0 source/ /microservice/": "code",
        pip + "--no-deps --editable /microservice": "project",
        pip + "--editable /microservice": "whole project",
    }
    found = []
    for name, rest in parse(text).instructions:
        line = f"{name} {rest}"
        if line in known:
            found.append(known[line])
        elif line.startswith("RUN if python -m pip show --quiet seldon-core; then python -m pip uninstall"):
            assert line.endswith(own)
            found.append("no seldon-core, own")
    assert found == steps


def test_wheels_are_copied_and_one_of_servegraph_is_the_one_that_is_installed(tmp_path: Path) -> None:
    wheels = folder(
        tmp_path / "dist", {"servegraph-9.9+x-py3-none-any.whl": "w", "six-1.0-py3-none-any.whl": "s", "a.txt": ""}
    )
    other = folder(tmp_path / "more", {"pkg-2-py3-none-any.whl": "p"}) / "pkg-2-py3-none-any.whl"
    context = build(component(tmp_path / "src", {"requirements.txt": "six\n"}), wheels=(wheels, other))
    made = scratch(context, tmp_path / "root")
    assert (context.folder / "servegraph.txt").read_text() == "servegraph[seldon]==9.9+x\n"
    assert sorted(p.name for p in (tmp_path / "root/opt/servegraph/wheels").iterdir()) == [
        "pkg-2-py3-none-any.whl", "servegraph-9.9+x-py3-none-any.whl", "six-1.0-py3-none-any.whl",
    ]  # fmt: skip
    assert "--find-links /opt/servegraph/wheels" in made.runs[1]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"servegraph-1-py3-none-any.whl": "1", "servegraph-2-py3-none-any.whl": "2"},
            "there are several of servegraph",
        ),
        ({"x.txt": ""}, "the folder holds no .whl file"),
        ({"x y.whl": ""}, "'x y.whl' is not the name of a wheel"),
        ({"$(id)-1-py3-none-any.whl": ""}, "is not the name of a wheel"),
        ({"-r-1-py3-none-any.whl": ""}, "is not the name of a wheel"),
    ],
)
def test_wheels_that_cannot_be_used_are_refused(files: dict[str, str | bytes], message: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=re.escape(message)):
        build(component(tmp_path / "src"), wheels=(folder(tmp_path / "dist", files),))


def test_two_wheels_of_one_name_are_refused_unless_they_are_the_same(tmp_path: Path) -> None:
    name = "six-1.0-py3-none-any.whl"
    places = tuple(folder(tmp_path / p, {name: content}) for p, content in (("a", "1"), ("b", "1"), ("c", "2")))
    build(component(tmp_path / "src"), wheels=places[:2])
    with pytest.raises(SettingsError, match="have one name, but not the same content"):
        build(component(tmp_path / "src"), wheels=places)
    with pytest.raises(SettingsError, match="there is no such file or folder"):
        build(component(tmp_path / "src"), wheels=(tmp_path / "nowhere",))


def test_extra_index_is_told_to_pip_under_its_own_name(tmp_path: Path) -> None:
    source = component(
        tmp_path / "src",
        {".s2i/environment": f"{ENVIRONMENT}EXTRA_INDEX_URL=https://me:pw@x/simple\nPIP_TRUSTED_HOST=x\n"},
    )
    context = build(source)
    parsed = parse((context.folder / "Dockerfile").read_text())
    assert parsed.env["PIP_EXTRA_INDEX_URL"] == "https://me:pw@x/simple"
    assert parsed.position("ENV EXTRA_INDEX_URL") < parsed.position("RUN python -m pip")
    assert any("EXTRA_INDEX_URL looks like a secret" in warning for warning in context.warnings)


def test_options_have_the_last_word_over_the_file(tmp_path: Path) -> None:
    source = component(tmp_path / "src", {"Other.py": MODEL.replace("MyModel", "Other")})
    context = build(source, model_name="Other", service_type="TRANSFORMER", environment=("PERSISTENCE=1", "X=y"))
    env = parse((context.folder / "Dockerfile").read_text()).env
    assert {n: env[n] for n in ("MODEL_NAME", "SERVICE_TYPE", "PERSISTENCE", "API_TYPE", "X")} == {
        "MODEL_NAME": "Other", "SERVICE_TYPE": "TRANSFORMER", "PERSISTENCE": "1", "API_TYPE": "REST", "X": "y",
    }  # fmt: skip
    file = folder(tmp_path, {"environment_grpc": "MODEL_NAME=MyModel\nAPI_TYPE=GRPC\n"}) / "environment_grpc"
    env = parse((build(source, environment_file=file).folder / "Dockerfile").read_text()).env
    assert (env["API_TYPE"], env["SERVICE_TYPE"], env["PERSISTENCE"]) == ("GRPC", "MODEL", "0")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {},
            "says nothing about what its image starts. Looked for: MODEL_NAME in .s2i/environment (or --model-name)",
        ),
        ({"train.py": "x = 1\n"}, "there is no class with predict, transform_input, route or the like either"),
        (
            {"A.py": MODEL, "pkg/B.py": MODEL},
            "components: A.MyModel, pkg.B.MyModel; say which one with --model-name A.MyM",
        ),
        ({"Dockerfile": "FROM nginx\n"}, "it has a Dockerfile that sets no MODEL_NAME: 'docker build' makes its image"),
        ({".s2i/environment": "MODEL_NAME=\n"}, "says nothing about"),
        ({".s2i/environment": "MODEL_NAME=M\nSERVICE_TYPE=ROUTR\n", "M.py": "M = 1\n"}, "did you mean 'ROUTER'?"),
        ({".s2i/environment": "MODEL_NAME=My Model\n"}, "environment:1: MODEL_NAME is a class as Python imports it"),
        ({".s2i/environment": 'MODEL_NAME="MyModel"\n', "MyModel.py": MODEL}, "not '\"MyModel\"'"),
    ],
)
def test_source_that_cannot_be_an_image_says_why(files: dict[str, str | bytes], message: str, tmp_path: Path) -> None:
    source = folder(tmp_path / "src", files)
    with pytest.raises(SettingsError, match=re.escape(message)):
        build(source)
    assert not (tmp_path / "out").exists()


def test_output_that_is_or_holds_the_source_is_refused(tmp_path: Path) -> None:
    source = component(tmp_path / "src")
    for output in (source, tmp_path):
        with pytest.raises(SettingsError, match="is the source folder, or holds it"):
            write_build_context(source, output, force=True)


def test_output_within_the_source_is_not_copied_into_itself(tmp_path: Path) -> None:
    source = component(tmp_path / "src")
    for _ in range(2):
        context = write_build_context(source, source / "image", force=True)
        assert [path for path in context.paths if path.startswith("source/")] == ["source/MyModel.py"]


def test_component_of_an_installed_package_is_not_looked_for(tmp_path: Path) -> None:
    source = folder(tmp_path / "src", {"requirements.txt": "alibi\n"})
    with pytest.raises(SettingsError, match=r"holds no other/pkg\.py"):
        build(source, model_name="other.pkg.Model")
    assert build(source, model_name="other.pkg.Model", installed_model=True).kind == "component"


def test_scripts_of_s2i_and_root_are_warned_about(tmp_path: Path) -> None:
    source = component(tmp_path / "src", {".s2i/bin/run": "#!/bin/sh\n"})
    context = build(source, user="0")
    assert any("bin/run is not run: put what has to happen" in warning for warning in context.warnings)
    assert "--user 0: the container runs as root" in context.warnings
    assert parse((context.folder / "Dockerfile").read_text()).user == "0:0"
