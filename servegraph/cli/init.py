"""``servegraph init``: a small complete project to begin with."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import click

from servegraph.errors import SettingsError
from servegraph.runtimes.function import normalize_name

_TEMPLATES = "templates"
_COMMON = "common"
_ENDING = ".txt"  # keeps tools from taking a template for code
_URL = "http://127.0.0.1:8080"


@dataclass(frozen=True, slots=True)
class Template:
    """A kind of project."""

    about: str
    """What it does, in one sentence."""
    path: str
    """The path of its example request."""
    body: str
    """The body of its example request."""

    @property
    def curl(self) -> str:
        """The example request as a line for a shell."""
        return f"curl -s {_URL}{self.path} -H 'Content-Type: application/json' -d '{self.body}'"


TEMPLATES = {
    "router": Template(
        "A model behind a router: it tells the species of an iris flower from four lengths in centimetres.",
        "/v2/models/flowers/infer",
        '{"inputs": [[5.1, 3.5, 1.4, 0.2]]}',
    ),
    "flow": Template(
        "A flow of steps with a model in it: it tells the mood of a text, and refuses what has none.",
        "/",
        '{"text": "What a lovely, sunny day!"}',
    ),
    "ensemble": Template(
        "Three models that vote: their weighted mean is the price of a house.",
        "/v2/models/infer",
        '{"inputs": [[120.0, 4, 30.0]]}',
    ),
}


@click.command(name="init", short_help="Begin a project that runs at once.")
@click.argument("folder", default=".", type=click.Path(file_okay=False, path_type=Path))
@click.option("--template", type=click.Choice(list(TEMPLATES)), default="router", show_default=True, help="The kind.")
@click.option("--force", is_flag=True, help="Replace files that are there.")
def command(folder: Path, template: str, force: bool) -> None:
    """Write a small complete project into FOLDER: function, test, requirements, README.

    It runs at once and needs no further package. The templates: `router` (a model with its file and metadata),
    `flow` (steps around a model, with an error handler), `ensemble` (three models that vote).
    """
    written = write_project(folder, template, force=force)
    for path in written:
        click.echo(f"  {path.relative_to(folder)}")
    where = "" if folder.resolve() == Path.cwd() else f"cd {folder} && "
    click.echo(f"Next: {where}servegraph serve function.py --reload   (and pytest)", err=True)


def write_project(folder: Path, template: str, *, force: bool = False) -> list[Path]:
    """Write a template's files into a folder; the paths that were written.

    Raises:
        SettingsError: a file is there already and ``force`` is not set; then nothing is written. Or the folder's
            name cannot be the function's.
    """
    kind = TEMPLATES[template]
    texts = {"name": normalize_name(folder.resolve().name), "about": kind.about, "curl": kind.curl}
    root = files("servegraph.cli") / _TEMPLATES
    contents = {**_files(root / _COMMON), **_files(root / template)}
    there = [name for name in contents if (folder / name).exists()]
    if there and not force:
        raise SettingsError(f"{folder}: {', '.join(sorted(there))} is there already; --force replaces files")
    written = []
    for name, source in sorted(contents.items()):
        text = source.read_text(encoding="utf-8")
        for key, value in texts.items():
            text = text.replace("{{" + key + "}}", value)
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        written.append(path)
    return written


def _files(folder: Traversable, prefix: str = "") -> dict[str, Traversable]:
    """The files of a template by the name they get."""
    found: dict[str, Traversable] = {}
    for entry in folder.iterdir():
        if entry.is_dir():
            found.update(_files(entry, f"{prefix}{entry.name}/"))
        elif entry.name.endswith(_ENDING):
            found[prefix + entry.name.removesuffix(_ENDING)] = entry
    return found
