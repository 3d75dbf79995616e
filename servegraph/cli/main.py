"""The ``servegraph`` command."""

from __future__ import annotations

import sys
from importlib import import_module

import click

from servegraph import __version__
from servegraph.errors import ServegraphError

# Command -> the module whose ``command`` it is; imported when it is used, so that the command starts fast.
_COMMANDS = {
    "build": "servegraph.cli.build",
    "init": "servegraph.cli.init",
    "invoke": "servegraph.cli.invoke",
    "microservice": "servegraph.cli.microservice",
    "plot": "servegraph.cli.plot",
    "seldon-batch": "servegraph.cli.seldon_batch",
    "seldon-test": "servegraph.cli.seldon_tester",
    "serve": "servegraph.cli.serve",
    "validate": "servegraph.cli.validate",
}


class Commands(click.Group):
    """Imports a command when it is asked for, and shows errors as one message."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the commands."""
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """The command of a name, or ``None``."""
        module = _COMMANDS.get(name)
        if module is None:
            return None
        command = import_module(module).command
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Run a command; an error of servegraph's own becomes its message and exit code 1."""
        try:
            return super().invoke(ctx)
        except ServegraphError as exc:
            raise click.ClickException(str(exc)) from exc


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="servegraph")
def main() -> None:
    """Serve models and graphs of them: test in a notebook, serve fast, watch live."""


if __name__ == "__main__":
    sys.exit(main())
