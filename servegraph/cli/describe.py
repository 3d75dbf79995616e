"""Tells what a target's function asks of the server, as JSON on standard output. Run as a process of its own."""

from __future__ import annotations

import os
import sys

from servegraph import jsoncodec
from servegraph.cli.target import load_target, watched
from servegraph.errors import ServegraphError


def main(argv: list[str]) -> int:
    """Describe the function of target ``argv[0]`` (name ``argv[1]``, components ``argv[2]``); the exit code."""
    from servegraph.runtimes.local import offered_edges

    out = os.dup(1)
    os.dup2(2, 1)  # what user code prints while it is imported goes to standard error
    try:
        components = jsoncodec.loads(argv[2]) if len(argv) > 2 else {}
        function = load_target(argv[0], argv[1] or None if len(argv) > 1 else None, components)
    except ServegraphError as exc:
        sys.stderr.write(f"Error: {exc}\n")
        return 1
    described = {
        "name": function.name,
        "settings": function.spec.settings,
        "files": watched(argv[0], function),
        "edges": offered_edges(function),
    }
    with os.fdopen(out, "wb") as stream:
        stream.write(jsoncodec.dumps(described))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
