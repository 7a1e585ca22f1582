"""The edge of a daemon's process: its options in, and every error out as one sentence and an exit code."""

import sys
from collections.abc import Sequence
from typing import NoReturn

import typer

from daemons.supervision import exit_with_sentence
from interfiles.errors import DONE, INTERRUPTED, UsageError
from interfiles.usage import sentence


def run_command(app: typer.Typer, name: str, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a daemon's only command with `arguments`, by default those of the process, and exit.

    `name` is what its help calls it: "interfiles master".
    """
    with exit_with_sentence():
        try:
            typed = sys.argv[1:] if arguments is None else list(arguments)
            code = typer.main.get_command(app).main(typed, prog_name=name, standalone_mode=False)
        except typer.TyperException as e:
            raise UsageError(f"{sentence(e.format_message())}; see `{name} --help`") from e
        except typer.Abort:
            code = INTERRUPTED
    sys.exit(code if isinstance(code, int) else DONE)
