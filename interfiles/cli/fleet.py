"""The commands about the fleet: stat, ls, hosts."""

import sys
from typing import TYPE_CHECKING, Annotated, Final

import typer

from interfiles.cli import drain, output, reports
from interfiles.cli.call import on_daemon, on_master, read
from interfiles.cli.options import (
    A_FILE,
    JsonOption,
    SocketOption,
    SourceArgument,
    SourceOption,
    StateOption,
    exactly_one,
    examples,
)
from interfiles.errors import printable

if TYPE_CHECKING:
    from interfiles.control import Daemon
    from interfiles.wire.reports import FileReport

SHOWN_TOGETHER: Final = 1000  # files: columns are as wide as so many need

hosts_app = typer.Typer(
    help="List the hosts of the fleet, or change them.",
    rich_markup_mode=None,
    invoke_without_command=True,
    epilog=examples(
        "interfiles hosts                   who is up, where, with how much room",
        "interfiles hosts --json",
        "interfiles hosts drain render-07   before it is switched off",
        "interfiles hosts remove render-07  on the master's host",
    ),
)


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command(
        short_help="Show a file, and who has how much of it.",
        epilog=examples(
            "interfiles stat -p weights.tracker",
            "interfiles stat -p weights          by its name; an id works too",
            "interfiles stat -p 9c41e0 --json",
        ),
    )(stat)
    app.command(name="ls", epilog=examples("interfiles ls", "interfiles ls --json"))(list_files)
    drain.register(hosts_app)
    app.add_typer(hosts_app, name="hosts")


def stat(
    path: SourceOption = None,
    argument: SourceArgument = None,
    as_json: JsonOption = False,
    socket: SocketOption = None,
) -> None:
    """Show what a file is, who has how much of it, and what each host is doing with it."""
    source = read(exactly_one(path, argument, A_FILE))
    report = on_daemon(socket, lambda d: d.stat(source))
    if as_json:
        output.emit_json(report)
    else:
        output.emit_lines(reports.stat_lines(report, output.Screen.of(sys.stdout)))


def list_files(as_json: JsonOption = False, socket: SocketOption = None) -> None:
    """List the files of the fleet."""
    if as_json:
        output.emit_json(on_daemon(socket, _all_files))
    elif not on_daemon(socket, _show_files):
        output.tell("The fleet has no files yet; `interfiles upload -p PATH` shares one.")


@hosts_app.callback()
def hosts(context: typer.Context, as_json: JsonOption = False, socket: SocketOption = None) -> None:
    """List the hosts of the fleet, or change them; without a command: list."""
    context.find_root().obj = socket  # where the commands below this one find it
    if context.invoked_subcommand is None:
        list_hosts(as_json, socket)


@hosts_app.command(name="list")
def list_hosts(as_json: JsonOption = False, socket: SocketOption = None) -> None:
    """List the hosts of the fleet."""
    found = on_daemon(socket, lambda d: d.hosts())
    if as_json:
        output.emit_json(found)
    else:
        output.emit_lines(reports.host_lines(found, output.Screen.of(sys.stdout)))


@hosts_app.command(name="remove", epilog=examples("interfiles hosts remove render-07 --state /srv/master"))
def remove_host(
    host: Annotated[str, typer.Argument(metavar="HOST", help="Its name or id.", show_default=False)],
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take a host out of the fleet; run it on the master's host. Files that it has stay on its disk."""
    report = on_master(state, lambda admin: admin.remove_host(host))
    if as_json:
        output.emit_json(report)
    else:
        output.emit(f"Removed {printable(report.name)} from the fleet (host id {printable(report.host)}).")


async def _show_files(daemon: "Daemon") -> bool:
    """Show the files of the fleet as they come, some at a time; return whether there are any."""
    screen, has_headings = output.Screen.of(sys.stdout), False
    some: list[FileReport] = []

    def show() -> None:
        nonlocal has_headings
        output.emit_lines(reports.file_lines(some, screen)[has_headings:])
        has_headings = True
        some.clear()

    async for file in daemon.files():
        some.append(file)
        if len(some) == SHOWN_TOGETHER:
            show()
    if some:
        show()
    return has_headings


async def _all_files(daemon: "Daemon") -> "list[FileReport]":
    return [file async for file in daemon.files()]
