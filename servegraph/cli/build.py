"""``servegraph build``: from a source folder to the build context of an image, and to the image where Docker is."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import click

from servegraph.errors import SettingsError
from servegraph.runtimes.packaging import BuildContext, BuildOptions, write_build_context
from servegraph.runtimes.packaging.environment import SERVICE_TYPES
from servegraph.runtimes.packaging.quoting import image_reference

_FOLDER = click.Path(file_okay=False, path_type=Path)
_FILE = click.Path(dir_okay=False, path_type=Path)
_TOOLS = ("docker", "podman")


@click.command(name="build", short_help="Make a container image of a component or function.")
@click.argument("source", type=_FOLDER)
@click.option("-o", "--output", type=_FOLDER, help="Where to write the build context.  [default: SOURCE's name-image]")
@click.option("--base-image", default="", metavar="IMAGE", help="Begin with this image.  [default: python:X-slim]")
@click.option("--python", default="3.11", show_default=True, metavar="X", help="The version of Python.")
@click.option("--wheel", "wheels", multiple=True, type=click.Path(path_type=Path), metavar="FILE_OR_DIR",
              help="Local wheels for pip; one of servegraph is the one that is installed.")  # fmt: skip
@click.option("--model-name", default="", metavar="CLASS", help="The component, in place of MODEL_NAME.")
@click.option("--service-type", default="", metavar="TYPE", help=f"One of {', '.join(SERVICE_TYPES)}.")
@click.option("--env-file", "environment_file", type=_FILE, help="Read in place of .s2i/environment.")
@click.option("--env", "environment", multiple=True, metavar="NAME=VALUE", help="A variable of the image.")
@click.option("--user", default="8888", show_default=True, metavar="UID[:GID]", help="Who the container runs as.")
@click.option("--keep-seldon-core", "keep_seldon", is_flag=True, help="Install the real seldon-core if it is required.")
@click.option("--installed-model", is_flag=True, help="The component is in a package that is installed, not in SOURCE.")
@click.option("--force", is_flag=True, help="Replace what an earlier build wrote to the output folder.")
@click.option("--tag", default="", metavar="NAME:TAG", help="Build the image too, with docker (or podman).")
@click.option("--run", "run_image", is_flag=True, help="Run the image once it is built; needs --tag.")
def command(source: Path, output: Path | None, force: bool, tag: str, run_image: bool, **options: Any) -> None:
    """Write the build context of SOURCE: Dockerfile, entry script, ignore file, code and wheels.

    SOURCE holds a Seldon component (MODEL_NAME in .s2i/environment, or --model-name), a function (function.py,
    function.yaml, ...), or a component with a Dockerfile of its own. What it needs stands in requirements.txt,
    setup.py, pyproject.toml or environment.yml. None of its code is run.

    \b
    Examples:
      servegraph build my-model
      servegraph build my-model --output image --wheel dist/ --env PIP_NO_INDEX=1
      servegraph build my-model --tag my-model:1.0 --run
    """  # noqa: D301 - click's mark for lines that stay as they are
    if tag:
        image_reference(tag, "--tag")
    elif run_image:
        raise click.UsageError("--run needs --tag: the name of the image that is built and run")
    tool = _find_tool() if tag else ""
    wheels = options.pop("wheels")
    context = write_build_context(
        source, output or _default_output(source), BuildOptions(wheels=wheels, **options), force=force
    )
    _tell(context)
    if not tag:
        click.echo(f"Next: docker build --tag NAME {context.folder}", err=True)
        return
    _call(tool, "build", "--tag", tag, str(context.folder.resolve()))
    if run_image:
        published = [text for port in context.ports for text in ("--publish", f"127.0.0.1:{port}:{port}")]
        _call(tool, "run", "--rm", *published, tag)


def _default_output(source: Path) -> Path:
    return Path(f"{source.resolve().name or 'root'}-image")


def _tell(context: BuildContext) -> None:
    """What was found, what may be wrong, and what was written."""
    for note in context.notes:
        click.echo(_printable(note), err=True)
    for warning in context.warnings:
        click.echo(_printable(f"warning: {warning}"), err=True)
    for path in context.paths:
        click.echo(_printable(str(context.folder / path)))


def _printable(text: str) -> str:
    """The text without what a terminal would take for orders."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", "?", text)


def _find_tool() -> str:
    found = next(filter(None, map(shutil.which, _TOOLS)), None)
    if found is None:
        raise SettingsError(
            f"--tag needs {' or '.join(_TOOLS)} on the PATH; without --tag the build context is written, and any "
            "machine that has one of them can build it"
        )
    return found


def _call(tool: str, *arguments: str) -> None:
    """Run docker in this terminal; its failure is the command's."""
    done = subprocess.run([tool, *arguments], check=False)  # noqa: S603 - every argument is checked, no shell reads them
    if done.returncode != 0:
        raise click.exceptions.Exit(done.returncode)
