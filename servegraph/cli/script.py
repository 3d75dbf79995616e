"""Commands that are console scripts of their own, beside being commands of ``servegraph``."""

from __future__ import annotations

import click

from servegraph.errors import ServegraphError


class ScriptCommand(click.Command):
    """A command that shows errors as one message, wherever it is run from."""

    def invoke(self, ctx: click.Context) -> object:
        """Run it; an error of servegraph's own becomes its message and exit code 1."""
        try:
            return super().invoke(ctx)
        except ServegraphError as exc:
            raise click.ClickException(str(exc)) from exc
