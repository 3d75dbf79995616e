"""``python -m servegraph``: the command, by the interpreter that is named."""

from __future__ import annotations

from servegraph.cli.main import main

main(prog_name="servegraph")
