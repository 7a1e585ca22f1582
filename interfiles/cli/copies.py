"""The commands about copies that are there: verify, rm."""

import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from interfiles.cli import output, phrases
from interfiles.cli.call import by_id, on_daemon, read
from interfiles.cli.options import (
    A_FILE,
    JsonOption,
    SocketOption,
    SourceArgument,
    SourceOption,
    exactly_one,
    examples,
    only_one,
)
from interfiles.cli.progress import View, view
from interfiles.errors import (
    INTERRUPTED,
    DaemonUnreachable,
    InterFilesError,
    UsageError,
    VerificationFailed,
    printable,
)
from interfiles.units import format_count

if TYPE_CHECKING:
    from interfiles.control import Daemon
    from interfiles.source import Source
    from interfiles.wire.reports import StatReport, VerifyReport


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command(
        short_help="Hash this host's copies again.",
        epilog=examples(
            "interfiles verify                     everything on this host",
            "interfiles verify -p weights.tracker  one file",
        ),
    )(verify)
    app.command(
        name="rm",
        epilog=examples(
            "interfiles rm -p weights.tracker           from the fleet; asks first",
            "interfiles rm -p weights.tracker --local   only from this host",
            "interfiles rm -p 9c41e07b2d55 --yes        asks nothing",
        ),
    )(remove)


def verify(
    path: SourceOption = None,
    argument: SourceArgument = None,
    as_json: JsonOption = False,
    socket: SocketOption = None,
) -> None:
    """Hash this host's copy again; pieces that do not match are no longer served. Without a file: all copies."""
    given = only_one(path, argument)
    sources = [read(given)] if given is not None else on_daemon(socket, _held)
    failures: list[InterFilesError] = []
    for source in sources:
        try:
            with view() as shown:
                report = on_daemon(socket, partial(_verify_one, source, shown))
        except InterFilesError as e:
            if given is not None or isinstance(e, DaemonUnreachable):
                raise
            failures.append(e)  # the others are looked at all the same
            continue
        if as_json:
            output.emit_json(report)
        if report.bad_pieces:
            failures.append(VerificationFailed(phrases.found_bad(report)))
        elif not report.complete:
            failures.append(VerificationFailed(phrases.not_all_there(report)))
        elif not as_json:
            output.emit(phrases.verified(report))
    for failure in failures[:-1]:
        output.complain(str(failure))
    if failures:
        raise failures[-1]


def remove(
    path: SourceOption = None,
    argument: SourceArgument = None,
    local: Annotated[bool, typer.Option("--local", help="Only this host stops serving or fetching it.")] = False,
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete it at its destination too, else it stays there.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: JsonOption = False,
    socket: SocketOption = None,
) -> None:
    """Take a file out of the fleet, or with --local off this host.

    What stands at a destination stays there, unless --delete is given.
    """
    source = read(exactly_one(path, argument, A_FILE))
    if not yes:
        _ask_first(socket, source, local=local, delete=delete)
    report = on_daemon(socket, lambda d: d.remove(source, local=local, delete=delete))
    if as_json:
        output.emit_json(report)
    else:
        output.emit(phrases.removed(report, local=local))


async def _held(daemon: "Daemon") -> "list[Source]":
    """Every file that this host has some of."""
    return [by_id(file_id) for file_id in (await daemon.status()).held]


async def _verify_one(source: "Source", shown: View, daemon: "Daemon") -> "VerifyReport":
    return await daemon.verify(source, on_progress=shown)


def _ask_first(socket: str | None, source: "Source", *, local: bool, delete: bool) -> None:
    """Ask the person; leave unless the answer is yes.

    Raises:
      UsageError: nobody is there to be asked.
    """
    if not (output.is_terminal(sys.stdin) and output.is_terminal(sys.stderr)):
        raise UsageError("rm asks before it removes anything, and this is no terminal; use --yes to go ahead")
    report = on_daemon(socket, lambda d: d.stat(source))
    sys.stderr.write(_question(report, local=local, delete=delete))
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        output.tell("Nothing was removed.")
        raise typer.Exit(INTERRUPTED)


def _question(report: "StatReport", *, local: bool, delete: bool) -> str:
    what = f"{printable(report.name)} ({phrases.content(report.size, report.entries)}, id {phrases.short(report.id)})"
    if local and report.local.ordered:
        other = "the master makes another elsewhere if it can"
        return f"Remove {what} from this host? It is the fleet's copy: {other}. [y/N] "
    if local:
        where = "from this host"
    else:
        held = sum(host.state != "none" for host in report.hosts)
        where = f"from the fleet; {format_count(held, 'host')} {'has' if held == 1 else 'have'} some of it"
    fate = "is DELETED" if delete else "stays"
    return f"Remove {what} {where}? What stands at its destination {fate}. [y/N] "
