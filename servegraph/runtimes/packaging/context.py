"""Writes what ``docker build`` needs to make the image of a source folder."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final

from servegraph.errors import SettingsError
from servegraph.runtimes.packaging.dependencies import CONDA_FILE
from servegraph.runtimes.packaging.dockerfile import OWN_REQUIREMENT, dockerfile
from servegraph.runtimes.packaging.output import Entry, write_entries
from servegraph.runtimes.packaging.plan import BuildOptions, Plan, plan

SOURCE: Final = "source"
"""The folder of the build context with the code."""
_TEMPLATES: Final = "templates"


@dataclass(frozen=True, slots=True)
class BuildContext:
    """A build context that was written."""

    folder: Path
    kind: str
    """``component`` or ``function``."""
    ports: tuple[int, ...]
    """What the image listens on."""
    paths: tuple[str, ...]
    """What was written, relative to the folder."""
    notes: tuple[str, ...]
    """What was found in the source folder."""
    warnings: tuple[str, ...]
    """What is probably not as it was meant."""


def write_build_context(
    source: Path, output: Path, options: BuildOptions | None = None, *, force: bool = False
) -> BuildContext:
    """Write the build context of a source folder, always the same for the same source.

    Args:
        source: a folder with a component or a function; none of its code runs.
        output: where to write; ``docker build`` is run on it.
        options: what is asked for beside the source folder.
        force: replace what an earlier build wrote there.

    Raises:
        SettingsError: the source folder cannot be made an image, or the output folder is in use; nothing is written.
    """
    target = output.resolve()
    if source.resolve().is_relative_to(target):
        raise SettingsError(f"--output {output} is the source folder, or holds it")
    found = plan(source, options or BuildOptions(), target)
    entries = _entries(found)
    write_entries(output, entries, force=force)
    is_component = found.image.kind == "component"
    return BuildContext(
        folder=output,
        kind=found.image.kind,
        ports=(9000, 5000, 6000) if is_component else (8080,),
        paths=tuple(sorted(entry.path for entry in entries if not entry.is_folder)),
        notes=tuple(found.notes),
        warnings=tuple(found.warnings),
    )


def _entries(found: Plan) -> list[Entry]:
    needs = found.image.dependencies
    entries = [
        Entry("Dockerfile", dockerfile(found.image).encode()),
        Entry(".dockerignore", _dockerignore(found).encode()),
        Entry("entry.sh", _template(f"{found.image.kind}.sh"), executable=True),
        Entry("health.py", _template("health.py")),
        Entry(OWN_REQUIREMENT, f"{found.requirement}\n".encode()),
        Entry(SOURCE, None),
    ]
    entries += [Entry(f"requirements/{name}", data) for name, data in sorted(needs.requirements.files.items())]
    if needs.conda:
        entries.append(Entry(f"requirements/{CONDA_FILE}", needs.conda))
    entries += [Entry(f"wheels/{wheel.file}", wheel.path) for wheel in found.wheels]
    for each in found.sources.entries.values():
        content = found.sources.root / each.path if each.kind == "file" else None
        entries.append(Entry(f"{SOURCE}/{each.path}", content, executable=each.executable, link=each.link))
    return entries


def _dockerignore(found: Plan) -> str:
    """Lets in what was written, and of the source what its own ignore files let in."""
    ours = ["entry.sh", "health.py", OWN_REQUIREMENT, "requirements", "wheels", SOURCE]
    lines = ["*", *(f"!{name}" for name in ours), *(p.written(SOURCE) for p in found.sources.patterns)]
    return "".join(f"{line}\n" for line in lines)


def _template(name: str) -> bytes:
    # The ending keeps tools from taking a template for code.
    return (files("servegraph.runtimes.packaging") / _TEMPLATES / f"{name}.txt").read_bytes()
