"""The Dockerfile of an image: what changes least stands first, so that a change of the code rebuilds little."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from servegraph import __version__
from servegraph.runtimes.packaging.dependencies import CONDA_FILE, REQUIREMENTS, Dependencies
from servegraph.runtimes.packaging.quoting import assignments, exec_form

CODE: Final = "/microservice"
"""Where the code is in the image, as with s2i."""
OWN: Final = "/opt/servegraph"
"""Where everything else is that the build brings."""
HOME: Final = "/home/servegraph"
OWN_REQUIREMENT: Final = "servegraph.txt"
"""The requirement that brings servegraph."""
_PIP: Final = "python -m pip install --no-cache-dir"
_IN_CONDA: Final = 'conda run --no-capture-output --name "$CONDA_ENV_NAME" '


@dataclass(frozen=True, slots=True)
class Image:
    """What the Dockerfile of an image says; every value is quoted or checked."""

    kind: str
    """``component`` or ``function``."""
    title: str
    base_image: str
    user: str
    dependencies: Dependencies
    variables: Mapping[str, str]
    """Variables that are there for the installation too."""
    start: Mapping[str, str] = field(default_factory=dict)
    """Variables that say what is started: set last, as they change with the code."""
    arguments: tuple[str, ...] = ()
    """The default arguments of the container."""
    has_wheels: bool = False


def dockerfile(image: Image) -> str:
    """The text of the Dockerfile of an image."""
    parts = [
        f"# Written by servegraph build {__version__}; written again by the next build.\n",
        # A base image may have a user of its own, who can install nothing.
        f"FROM {image.base_image}\nUSER 0\n",
        _labels(image),
        assignments("ENV", {"PYTHONUNBUFFERED": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}),
        _folders(image),
        assignments("ENV", image.variables),
        _copies(image),
        *_installation(image),
        f"COPY entry.sh health.py {OWN}/\n",
        _end(image),
    ]
    return "\n".join(part for part in parts if part)


def _labels(image: Image) -> str:
    labels = {
        "org.opencontainers.image.title": image.title,
        "org.opencontainers.image.base.name": image.base_image,
        "io.servegraph.kind": image.kind,
        "io.servegraph.version": __version__,
    }
    if "SERVICE_TYPE" in image.start:
        labels["io.servegraph.service-type"] = image.start["SERVICE_TYPE"]
    return assignments("LABEL", labels)


def _folders(image: Image) -> str:
    # Group 0 may do what the user may: OpenShift runs images under a number of its own, in this group.
    return (
        f"RUN mkdir -p {CODE} {HOME} \\\n"
        f" && chown {image.user} {CODE} {HOME} \\\n"
        f" && chmod 775 {CODE} {HOME}\n"
        f"WORKDIR {CODE}\n"
    )


def _copies(image: Image) -> str:
    wheels = f"COPY wheels/ {OWN}/wheels/\n" if image.has_wheels else ""
    listed = f"COPY requirements/ {OWN}/requirements/\n" if has_listed(image.dependencies) else ""
    return f"{wheels}{listed}COPY {OWN_REQUIREMENT} {OWN}/\n"


def has_listed(needs: Dependencies) -> bool:
    """Whether there are files that list what is installed."""
    return bool(needs.requirements.files or needs.conda)


def _installation(image: Image) -> list[str]:
    """The steps that install what is needed, with the code among them."""
    needs = image.dependencies
    pip = f"{_PIP} --find-links {OWN}/wheels" if image.has_wheels else _PIP
    own = f"-r {OWN}/{OWN_REQUIREMENT}"
    listed = f"-r {OWN}/requirements/{REQUIREMENTS}"
    code = f"COPY --chown={image.user} source/ {CODE}/\n"
    if needs.kind == "conda":
        create = f'conda env create --quiet --name "$CONDA_ENV_NAME" --file {OWN}/requirements/{CONDA_FILE}'
        return [
            f"RUN {create} \\\n && conda clean --all --yes\n",
            f"RUN {_IN_CONDA}{pip} {own}\n",
            code,
        ]
    if needs.kind == "none":
        return [f"RUN {pip} {own}\n", code]
    if not needs.complete:
        return [code, *_whole_project(pip, own, needs.requirements.real_seldon)]
    # Together, so that pip finds versions that fit both; hashes, and a seldon-core that stays, forbid that.
    if needs.requirements.has_hashes or needs.requirements.real_seldon:
        installs = f"RUN {pip} {listed}\nRUN {pip} {own}\n"
    else:
        installs = f"RUN {pip} {listed} {own}\n"
    steps = [code, installs] if needs.requirements.needs_source else [installs, code]
    if needs.kind == "project":
        steps.append(f"RUN {pip} --no-deps --editable {CODE}\n")
    return steps


def _whole_project(pip: str, own: str, keeps_seldon: bool) -> list[str]:
    """The steps for a project that alone knows what it needs."""
    project = f"RUN {pip} --editable {CODE}\n"
    if keeps_seldon:
        return [f"{project}RUN {pip} {own}\n"]
    removal = (
        "RUN if python -m pip show --quiet seldon-core; then python -m pip uninstall --yes seldon-core; fi \\\n"
        f" && {pip} {own}\n"
    )
    return [project + removal]


def _end(image: Image) -> str:
    if image.kind == "component":
        ports, health = "5000 6000 9000", ["/health/ping", "PREDICTIVE_UNIT_HTTP_SERVICE_PORT", "9000"]
    else:
        ports, health = "8080", ["/v2/health/live", "SERVEGRAPH_HTTP_PORT", "8080"]
    # Not before: the installation runs as root, and would leave files of its own there.
    home = {} if "HOME" in image.variables else {"HOME": HOME}
    return (
        assignments("ENV", {**image.start, **home})
        + f"EXPOSE {ports}\n"
        + "HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \\\n"
        + f"  CMD {exec_form(['python', f'{OWN}/health.py', *health])}\n"
        + f"USER {image.user}\n"
        + f"ENTRYPOINT {exec_form(['/bin/sh', f'{OWN}/entry.sh'])}\n"
        + f"CMD {exec_form(image.arguments)}\n"
    )
