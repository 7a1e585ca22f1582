"""The commands about copies in the fleet: replicas set, and wait where it waits for copies."""

from typing import Annotated, Any, Final

import typer
from typer.core import TyperCommand

from interfiles.cli import output, phrases
from interfiles.cli.call import on_daemon, read
from interfiles.cli.options import (
    A_FILE,
    JsonOption,
    SocketOption,
    SourceOption,
    exactly_one,
    examples,
    number_may_follow,
)
from interfiles.cli.progress import view
from interfiles.errors import INTERRUPTED, UsageError, printable
from interfiles.units import parse_count
from interfiles.wire.fields import MAX_REPLICAS

_AS_WANTED: Final = "wanted"

replicas_app = typer.Typer(
    help="Change on how many hosts a file is kept.",
    rich_markup_mode=None,
    epilog=examples("interfiles replicas set -p weights.tracker 5"),
)

ReplicasOption = Annotated[
    str | None,
    typer.Option(
        "--replicas",
        metavar="[N]",
        help="Wait for N complete copies in the fleet; without N: for as many as are wanted.",
        show_default=False,
    ),
]


class WaitCommand(TyperCommand):
    """A command with an option `--replicas` whose number may be left out."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, number_may_follow(args, "--replicas", _AS_WANTED))


def parse_replicas(text: str) -> int:
    """Read a number of copies.

    Raises:
      UsageError: it is none, or outside 1 to `MAX_REPLICAS`.
    """
    return parse_count(text, "a number of copies", MAX_REPLICAS)


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.add_typer(replicas_app, name="replicas")


@replicas_app.callback()
def _replicas(context: typer.Context, socket: SocketOption = None) -> None:
    context.find_root().obj = socket  # where the commands below this one find it


@replicas_app.command(
    name="set",
    short_help="Want a file on another number of hosts.",
    epilog=examples(
        "interfiles replicas set -p weights.tracker 5",
        "interfiles replicas set weights 2             by its name; an id works too",
    ),
)
def set_replicas(
    words: Annotated[
        list[str],
        typer.Argument(metavar="[TRACKER] N", help="The file, if not named with -p, and how many.", show_default=False),
    ],
    path: SourceOption = None,
    as_json: JsonOption = False,
    socket: SocketOption = None,
) -> None:
    """Want a file on another number of hosts; the master has copies made, or given up after a while, by itself."""
    *named, number = words
    if len(named) > 1:
        raise UsageError("one file and one number of copies are expected, such as `interfiles replicas set weights 5`")
    count = parse_replicas(number)
    source = read(exactly_one(path, named[0] if named else None, A_FILE))
    report = on_daemon(socket, lambda d: d.set_replicas(source, count))
    if as_json:
        output.emit_json(report)
    else:
        output.emit(phrases.replicas_set(report))


def wait_for_replicas(
    path: str | None,
    argument: str | None,
    wanted: str,
    timeout_s: float | None,
    *,
    as_json: bool,
    socket: str | None,
) -> None:
    """Wait until a file has enough copies; `wanted`: a number, or the word for as many as are wanted.

    Raises:
      UsageError: no file is named, or two, or the number is none.
      TimedOut: there are too few after `timeout_s` seconds.
    """
    count = None if wanted == _AS_WANTED else parse_replicas(wanted)
    if path is not None and argument is not None and count is None:
        raise UsageError(f"'{printable(argument)}' is not a number of copies, and the file is named already, with -p")
    source = read(exactly_one(path, argument, A_FILE))
    shown = view()
    try:
        with shown:
            report = on_daemon(
                socket,
                lambda d: d.wait_for_replicas(source, count, timeout_s=timeout_s, on_progress=shown),
            )
    except KeyboardInterrupt as e:
        output.tell("Interrupted: copies are made all the same.")
        raise typer.Exit(INTERRUPTED) from e
    if as_json:
        output.emit_json(report)
    else:
        output.emit(phrases.replicas_there(report))
