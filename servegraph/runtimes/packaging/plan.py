"""Finds what a source folder holds, and decides what its image is: nothing is written, and no code of it runs."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from servegraph.errors import SettingsError
from servegraph.runtimes.packaging import environment, existing
from servegraph.runtimes.packaging.component import check_model_name, deployments_in, find_components
from servegraph.runtimes.packaging.dependencies import Dependencies, find_dependencies
from servegraph.runtimes.packaging.dockerfile import Image
from servegraph.runtimes.packaging.environment import COMPONENT_VARIABLES, Variable
from servegraph.runtimes.packaging.existing import ExistingImage, read_dockerfile
from servegraph.runtimes.packaging.quoting import image_reference, python_version, user_id
from servegraph.runtimes.packaging.sources import Sources, find_sources
from servegraph.runtimes.packaging.wheels import Wheel, find_wheels, servegraph_requirement
from servegraph.runtimes.source import FOLDER_FILES

CONDA_IMAGE: Final = "condaforge/miniforge3:24.11.3-0"
"""Has ``conda``; Python is what the environment says."""
_FUNCTION_HOST: Final = ("SERVEGRAPH_HOST", "0.0.0.0")  # noqa: S104 - a container is reached from outside of it
_DEFAULTS: Final = {"SERVICE_TYPE": "MODEL", "PERSISTENCE": "0"}


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """What is asked for beside the source folder."""

    base_image: str = ""
    """The image to begin with; one with the version of Python if left out."""
    python: str = "3.11"
    """The version of Python, where no base image is named."""
    wheels: tuple[Path, ...] = ()
    """Wheels, and folders of them, that pip finds before it looks elsewhere."""
    model_name: str = ""
    """In place of ``MODEL_NAME``."""
    service_type: str = ""
    """In place of ``SERVICE_TYPE``."""
    environment_file: Path | None = None
    """In place of ``.s2i/environment``."""
    environment: tuple[str, ...] = ()
    """Further variables, each ``NAME=VALUE``."""
    user: str = "8888"
    """The numeric user that the container runs as."""
    keep_seldon: bool = False
    """Install the real seldon-core where the requirements name it."""
    installed_model: bool = False
    """The component comes from a package that is installed, not from the source folder."""


@dataclass(slots=True)
class Plan:
    """What is written for an image."""

    image: Image
    sources: Sources
    wheels: list[Wheel]
    requirement: str
    """The requirement that brings servegraph."""
    notes: list[str] = field(default_factory=list)
    """What was found."""
    warnings: list[str] = field(default_factory=list)
    """What is probably not as it was meant."""


def plan(source: Path, options: BuildOptions, output: Path | None = None) -> Plan:
    """What the image of a source folder consists of.

    Args:
        source: the folder.
        options: what is asked for.
        output: where the build context is written; left out of the image if it is in the folder.

    Raises:
        SettingsError: the folder holds neither component nor function, or something in it cannot be used.
    """
    root = source.resolve()
    if not root.is_dir():
        raise SettingsError(f"there is no folder {str(source)!r}")
    if not os.access(root, os.R_OK | os.X_OK):
        raise SettingsError(f"{root} cannot be read")
    user = user_id(options.user)
    own_image = _existing(root, options)
    prefix = own_image.folder if own_image else ""
    sources = find_sources(root, output, prefix)
    needs = find_dependencies(sources.root, options.keep_seldon)
    variables, warnings = _variables(root, options, own_image)
    function = _function(sources, variables, options)
    wheels = find_wheels(options.wheels)
    # Looked at before the installation, which pip and conda read variables for.
    _for_installation(variables, needs)
    found = Plan(
        Image(
            kind="function" if function else "component",
            title="".join(char if char.isprintable() else "?" for char in root.name),
            base_image=_base_image(options, needs),
            user=user,
            dependencies=needs,
            variables={n: v.value for n, v in sorted(variables.items()) if n not in COMPONENT_VARIABLES},
            start=_start(variables, function),
            arguments=(function,) if function else tuple(own_image.arguments if own_image else ()),
            has_wheels=bool(wheels),
        ),
        sources,
        wheels,
        servegraph_requirement(wheels, _extra(sources, function), needs.requirements.has_servegraph),
        notes=_notes(root, function, own_image, needs, variables),
        warnings=[*sources.warnings, *warnings, *needs.warnings],
    )
    if not function:
        found.warnings += environment.check_component(variables)
        if not options.installed_model:
            check_model_name(variables["MODEL_NAME"], sources, _import_folders(sources))
    found.warnings += _about_own_files(root, own_image, user)
    return found


def _existing(root: Path, options: BuildOptions) -> ExistingImage | None:
    """The component that a Dockerfile of the folder starts, where nothing else tells what is in it."""
    has_others = any((root / name).is_file() for name in (environment.FILE, *FOLDER_FILES))
    if not (root / existing.FILE).is_file() or has_others or options.environment_file:
        return None
    image = read_dockerfile(root / existing.FILE)
    return image if image.starts_component else None


def _variables(
    root: Path, options: BuildOptions, own_image: ExistingImage | None
) -> tuple[dict[str, Variable], list[str]]:
    """All variables: those of the folder's own file, then those of the options, which have the last word."""
    file = options.environment_file or root / environment.FILE
    read = environment.read_environment(file) if options.environment_file or file.is_file() else []
    named = [
        ("--model-name", "MODEL_NAME", options.model_name),
        ("--service-type", "SERVICE_TYPE", options.service_type),
    ]
    return environment.merged(
        [
            own_image.variables if own_image else [],
            read,
            [environment.variable(text, "--env") for text in options.environment],
            [environment.variable(f"{name}={value}", option) for option, name, value in named if value],
        ]
    )


def _function(sources: Sources, variables: dict[str, Variable], options: BuildOptions) -> str:
    """The file of the function that a folder holds; empty for a component.

    Raises:
        SettingsError: it holds neither.
    """
    model = variables.get("MODEL_NAME")
    if model and model.value:
        return ""
    function = next((name for name in FOLDER_FILES if sources.has_file(name)), "")
    if function and not options.service_type:
        return function
    root = sources.root
    components = find_components(sources, _import_folders(sources))
    deployment = next(deployments_in(sources), "")
    if deployment:
        there = f"{deployment} is a SeldonDeployment: {_about_deployment(sources, components)}"
    elif components:
        there = f"there are components: {', '.join(components[:20])}; say which one with --model-name {components[0]}"
    elif (root / existing.FILE).is_file():
        there = "it has a Dockerfile that sets no MODEL_NAME: 'docker build' makes its image"
    else:
        there = "there is no class with predict, transform_input, route or the like either"
    looked_for = f"MODEL_NAME in {environment.FILE} (or --model-name), {', '.join(FOLDER_FILES)}, or a {existing.FILE}"
    raise SettingsError(f"{root} says nothing about what its image starts. Looked for: {looked_for}; {there}")


def _about_deployment(sources: Sources, components: Iterable[str]) -> str:
    """What to do with a folder that holds a deployment."""
    whole = f"for an image of the whole graph, call it {FOLDER_FILES[1]}"
    for name in components:
        folder, _, component = name.partition(".")
        entry = sources.entries.get(folder)
        if component and entry is not None and entry.kind == "folder":
            module, _, last = component.rpartition(".")
            component = last if module == last else component
            return (
                f"{whole}; for that of one component: servegraph build {sources.root / folder} --model-name {component}"
            )
    return whole


def _extra(sources: Sources, function: str) -> str:
    """The extra of servegraph that an image needs: that of Seldon's components for a function that is made of them."""
    return "seldon" if not function or function in deployments_in(sources) else ""


def _import_folders(sources: Sources) -> list[str]:
    """Where the modules of a folder are imported from."""
    is_project = any((sources.root / name).is_file() for name in ("setup.py", "pyproject.toml"))
    return ["", "src/"] if is_project else [""]


def _for_installation(variables: dict[str, Variable], needs: Dependencies) -> None:
    """Add the variables that the installation reads under other names than s2i."""
    index = variables.get("EXTRA_INDEX_URL")
    if index and index.value:
        variables.setdefault("PIP_EXTRA_INDEX_URL", Variable("PIP_EXTRA_INDEX_URL", index.value, index.place))
    if needs.kind == "conda":
        variables.setdefault("CONDA_ENV_NAME", Variable("CONDA_ENV_NAME", "microservice", "default"))
    environment.check_conda(variables)


def _base_image(options: BuildOptions, needs: Dependencies) -> str:
    if options.base_image:
        return image_reference(options.base_image, "--base-image")
    version = python_version(options.python)
    return CONDA_IMAGE if needs.kind == "conda" else f"python:{version}-slim"


def _start(variables: dict[str, Variable], function: str) -> dict[str, str]:
    """The variables that say what is started, in a fixed order."""
    if function:
        name, value = _FUNCTION_HOST
        return {} if name in variables else {name: value}
    for name, value in _DEFAULTS.items():
        if name not in variables or not variables[name].value:
            variables[name] = Variable(name, value, "default")
    return {name: variables[name].value for name in COMPONENT_VARIABLES if name in variables}


def _notes(
    root: Path,
    function: str,
    own_image: ExistingImage | None,
    needs: Dependencies,
    variables: dict[str, Variable],
) -> list[str]:
    if function:
        notes = [f"function in {function}"]
    else:
        model = variables["MODEL_NAME"]
        notes = [f"component {model.value} ({variables['SERVICE_TYPE'].value}), named in {model.place}"]
    if own_image:
        notes.append(f"found {own_image.described()}")
        notes += [f"not taken over: {line}" for line in own_image.not_taken]
    elif (root / existing.FILE).is_file():
        notes.append(f"{root / existing.FILE} is not used, and not part of the image")
    if needs.origin:
        notes.append(f"packages from {needs.origin}")
    notes += [f"seldon-core is not installed: {line}" for line in needs.requirements.replaced]
    return notes + needs.notes


def _about_own_files(root: Path, own_image: ExistingImage | None, user: str) -> Iterable[str]:
    scripts = [f".s2i/bin/{name}" for name in ("assemble", "run") if (root / ".s2i/bin" / name).exists()]
    for script in scripts:
        yield f"{root / script} is not run: put what has to happen before the start into an executable before-run"
    if own_image and own_image.not_taken:
        yield f"{own_image.path}: not all of it is taken over; what the image needs of it belongs into a --base-image"
    if user.partition(":")[0] == "0":
        yield "--user 0: the container runs as root"
