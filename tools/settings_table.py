"""Keeps the table of settings in ``docs/guide/serving.md`` the same as the settings.

Run with ``--write`` to bring the page up to date; without it the exit code is 1 when it is not.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from servegraph.settings import SettingRow, describe_settings

PAGE = Path(__file__).parent.parent / "docs" / "guide" / "serving.md"
BEGIN, END = "<!-- settings: made by tools/settings_table.py -->\n", "<!-- end of settings -->\n"
# Defaults that depend on the machine.
COMPUTED = {"executor.threads": "CPUs + 4", "grpc.threads": "CPUs + 4"}


def table() -> str:
    """The settings as a Markdown table."""
    rows = [f"| `{r.name}` | {_default(r)} | {_meaning(r)} |" for r in describe_settings()]
    return "\n".join(["| setting | default | what it does |", "|---|---|---|", *rows]) + "\n"


def updated(page: str) -> str:
    """The page with the present table."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{PAGE}: the marks {BEGIN.strip()} and {END.strip()} are missing")
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def _default(row: SettingRow) -> str:
    if row.name in COMPUTED:
        return COMPUTED[row.name]
    value: Any = row.default
    if value is None:
        return "not set" if row.type == "a text" else "`off`"
    if "bytes" in row.type:
        return f"{value // 1024**2} MiB" if value % 1024**2 == 0 else f"{value // 1024} KiB"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return ", ".join(f"`{v}`" for v in value) or "none"
    return f"`{value}`" if isinstance(value, str) else f"{value:g}" if value < 1_000_000 else f"{value:,}"


def _meaning(row: SettingRow) -> str:
    text = row.doc.replace("``", "`")
    return (
        f"{text} One of: {row.type.replace(' | ', ', ')}." if " | " in row.type and row.type != "true | false" else text
    )


def main(*arguments: str) -> int:
    """Compare, or with ``--write`` update; the exit code."""
    page = PAGE.read_text(encoding="utf-8")
    wanted = updated(page)
    if "--write" in arguments:
        PAGE.write_text(wanted, encoding="utf-8")
        return 0
    if page != wanted:
        sys.stderr.write(f"{PAGE}: the table of settings is not up to date: python tools/settings_table.py --write\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
