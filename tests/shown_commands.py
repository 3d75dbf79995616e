"""The commands that a page shows in its ``console`` blocks."""

from __future__ import annotations

import re
import shlex
from pathlib import Path


def shown_commands(page: Path, heading: str = "") -> list[list[str]]:
    """Each command of a page, split as a shell splits it.

    Args:
        page: a Markdown file.
        heading: only those between this heading and the next one; all of the page when empty.
    """
    text = page.read_text(encoding="utf-8")
    if heading:
        found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", text, flags=re.DOTALL | re.MULTILINE)
        assert found is not None, f"{page} has no heading {heading!r}"
        text = found[1]
    blocks = re.findall(r"^```console\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    # A command goes on until the next one, over the lines that a quote or a backslash carries on.
    commands = [c for block in blocks for c in re.split(r"^\$ ", block, flags=re.MULTILINE) if c.strip()]
    return [shlex.split(command.replace("\\\n", " "), comments=True) for command in commands]


def at_ports(command: list[str], ports: dict[int, int]) -> list[str]:
    """A command with the ports that a test has in place of those that the page names."""
    names = "|".join(map(str, ports))
    pattern = re.compile(rf"^({names})$|(?<=127\.0\.0\.1:)({names})\b")
    return [pattern.sub(lambda found: str(ports[int(found[0])]), word) for word in command]
