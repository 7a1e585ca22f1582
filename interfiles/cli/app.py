"""The command `interfiles`: its commands, and the edge at which every error becomes one sentence and an exit code."""

import os
from collections.abc import Sequence
from typing import Annotated, Final

import typer

from interfiles import __version__
from interfiles.cli import copies, daemon, events, fleet, output, replicas, transfer, trust
from interfiles.cli.options import examples
from interfiles.errors import DONE, INTERRUPTED, USAGE, InterFilesError, printable
from interfiles.usage import sentence

DEBUG_VARIABLE: Final = "INTERFILES_DEBUG"
BUG: Final = 1  # no exit code of the contract, so that a script can tell it

app = typer.Typer(
    name="interfiles",
    help="Put big files on many hosts at once, verified, and keep track of who has them.",
    epilog=examples(
        "interfiles master                        on one host: start a fleet",
        "interfiles client --join TOKEN           on every host: join it",
        "interfiles upload -p weights/            share it; makes weights.tracker",
        "interfiles download -p weights.tracker   fetch it from all that have some",
        "interfiles stat -p weights.tracker       see who has what",
    ),
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        output.emit(f"interfiles {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    socket: Annotated[
        str | None, typer.Option("--socket", metavar="PATH", help="The client daemon's socket.", show_default=False)
    ] = None,
    _version: Annotated[
        bool, typer.Option("--version", help="Show the version and stop.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    context.obj = socket


transfer.register(app)
copies.register(app)
fleet.register(app)
replicas.register(app)
trust.register(app)
events.register(app)
daemon.register(app)


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; every error is told on stderr, in one sentence."""
    output.prepare_streams()
    try:
        code = typer.main.get_command(app).main(list(arguments), prog_name="interfiles", standalone_mode=False)
    except InterFilesError as e:
        output.complain(str(e))
        return e.exit_code
    except typer.TyperException as e:
        return _usage_error(e, arguments)
    except (typer.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except Exception as e:  # noqa: BLE001 - the boundary: a person gets a sentence, never a traceback
        return _bug(e)
    return code if isinstance(code, int) else DONE


def _usage_error(error: typer.TyperException, arguments: Sequence[str]) -> int:
    """Say what is wrong with the command line, and where its help is."""
    message = error.format_message()
    if not arguments:  # then the message is the help itself
        output.tell(message)
        return USAGE
    command = getattr(getattr(error, "ctx", None), "command_path", "interfiles")
    what = printable(sentence(message))
    between = " See" if what.endswith("?") else "; see"
    output.complain(f"{what}{between} `{command} --help`")
    return USAGE


def _bug(error: Exception) -> int:
    if os.environ.get(DEBUG_VARIABLE):
        import traceback

        output.tell("".join(traceback.format_exception(error)).rstrip())
    kind = type(error).__name__
    output.complain(f"this is a bug in InterFiles ({kind}); please report it, with what {DEBUG_VARIABLE}=1 shows")
    return BUG
