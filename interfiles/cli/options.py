"""The options that commands share, and what the shell completes for them."""

from pathlib import Path
from typing import Annotated, Final

import typer

from interfiles.errors import UsageError, printable
from interfiles.units import parse_duration

A_FILE: Final = "the file (a tracker file, a file id or a name)"

_HELP_SOCKET: Final = "The client daemon's socket [default: INTERFILES_SOCKET, or where the daemon puts it]."
_HELP_SOURCE: Final = "A tracker file; or a file's id, the start of one, or its name."


def examples(*lines: str) -> str:
    """The end of a command's help: lines that can be typed as they stand, each with what it does."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def complete_tracker_files(incomplete: str) -> list[str]:
    """The tracker files in the directory that the word begins with, and the directories below it."""
    directory, slash, start = incomplete.rpartition("/")
    try:
        found = sorted(Path(directory + slash or ".").iterdir())
    except OSError:
        return []
    names = [directory + slash + path.name + ("/" if path.is_dir() else "") for path in found]
    return [
        name
        for name, path in zip(names, found, strict=True)
        if path.name.startswith(start) and (start or not path.name.startswith(".")) and name.endswith((".tracker", "/"))
    ]


def _from_root(context: typer.Context, given: str | None) -> str | None:
    """An option of a command, or the same option before the command, which `app` keeps as the root's object."""
    chosen = context.find_root().obj if given is None else given
    return chosen if isinstance(chosen, str) else None


def _master_state(context: typer.Context, given: str | None) -> str | None:
    """An option of a command, or the same option of the group that the command is in: `token --state DIR list`."""
    parent = context.parent.params.get("state") if context.parent is not None else None
    chosen = parent if given is None else given
    return chosen if isinstance(chosen, str) else None


def _from_group(context: typer.Context, given: bool) -> bool:
    """A flag of a command, or the same flag before it: `hosts --json list`."""
    return given or (context.parent is not None and bool(context.parent.params.get("as_json")))


SocketOption = Annotated[
    str | None, typer.Option("--socket", metavar="PATH", help=_HELP_SOCKET, callback=_from_root, show_default=False)
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print JSON for scripts, and nothing else on stdout.", callback=_from_group)
]
StateOption = Annotated[
    str | None,
    typer.Option(
        "--state",
        metavar="DIR",
        help="The master's state directory [default: where `interfiles master` puts it].",
        callback=_master_state,
        show_default=False,
    ),
]
SourceOption = Annotated[
    str | None,
    typer.Option(
        "-p",
        "--path",
        metavar="TRACKER",
        help=_HELP_SOURCE,
        autocompletion=complete_tracker_files,
        show_default=False,
    ),
]
SourceArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="TRACKER",
        help="The same, without -p.",
        autocompletion=complete_tracker_files,
        show_default=False,
    ),
]
TimeoutOption = Annotated[
    float | None,
    typer.Option(
        metavar="T",
        parser=parse_duration,
        help="Give up when nothing comes for so long, such as 10s or 2m.",
        show_default=False,
    ),
]


def number_may_follow(arguments: list[str], option: str, otherwise: str) -> list[str]:
    """A command line in which `option`, where no number follows it, has the value `otherwise`.

    `wait --replicas -p x` becomes `wait --replicas=wanted -p x`, and `wait --replicas 2 -p x` stays.
    """
    made = list[str]()
    for at, word in enumerate(arguments):
        if word == "--":
            return made + arguments[at:]
        following = arguments[at + 1] if at + 1 < len(arguments) else ""
        is_alone = word == option and not following.lstrip("-").isdecimal()
        made.append(f"{option}={otherwise}" if is_alone else word)
    return made


def only_one(option: str | None, argument: str | None) -> str | None:
    """What was given with -p or without it.

    Raises:
      UsageError: both were given.
    """
    if option is not None and argument is not None:
        raise UsageError(f"the file is named twice, with -p and as '{printable(argument)}'; name it once")
    return argument if option is None else option


def exactly_one(option: str | None, argument: str | None, what: str) -> str:
    """What was given with -p or without it; `what` names it in the error's sentence.

    Raises:
      UsageError: none or both were given.
    """
    given = only_one(option, argument)
    if given is None:
        raise UsageError(f"{what} is missing; name it with -p")
    return given
