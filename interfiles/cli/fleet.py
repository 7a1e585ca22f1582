"""The commands about the fleet: stat, ls, hosts, token."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from interfiles.cli import output, reports
from interfiles.cli.call import on_daemon, on_master, read
from interfiles.cli.options import (
    A_FILE,
    JsonOption,
    SocketOption,
    SourceArgument,
    SourceOption,
    exactly_one,
    examples,
)
from interfiles.errors import printable
from interfiles.units import HOUR, format_count, format_duration, parse_duration
from interfiles.wire.control_messages import MAX_TOKEN_USES

if TYPE_CHECKING:
    from interfiles.control import Daemon
    from interfiles.wire.reports import FileReport, TokenReport

StateOption = Annotated[
    str | None,
    typer.Option(
        "--state",
        metavar="DIR",
        help="The master's state directory [default: where `interfiles master` puts it].",
        show_default=False,
    ),
]

hosts_app = typer.Typer(
    help="List the hosts of the fleet, or change them.",
    rich_markup_mode=None,
    invoke_without_command=True,
    epilog=examples(
        "interfiles hosts                   who is up, where, with how much room",
        "interfiles hosts --json",
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
    app.add_typer(hosts_app, name="hosts")
    app.command(
        short_help="Make a join token for new hosts, on the master's host.",
        epilog=examples(
            "interfiles token                    good for 1 h, any number of hosts",
            "interfiles token --ttl 10m --uses 1",
            'interfiles client --join "$TOKEN"   on the host that joins',
        ),
    )(token)


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
    files = on_daemon(socket, _all_files)
    if as_json:
        output.emit_json(files)
    elif files:
        output.emit_lines(reports.file_lines(files, output.Screen.of(sys.stdout)))
    else:
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


def token(
    ttl: Annotated[
        float | None,
        typer.Option(
            metavar="T",
            parser=parse_duration,
            help="How long it is good: 10m, 1h, 30d [default: 1h].",
            show_default=False,
        ),
    ] = None,
    uses: Annotated[
        int | None,
        typer.Option(min=1, max=MAX_TOKEN_USES, metavar="N", help="How many hosts may join by it [default: any]."),
    ] = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a join token for new hosts; run it on the master's host. The token alone goes to stdout."""
    ttl_s = HOUR if ttl is None else ttl
    report = on_master(state, lambda admin: admin.make_token(ttl_s=ttl_s, uses=uses))
    if as_json:
        output.emit_json(report)
        return
    output.emit(report.token)
    if output.is_terminal(sys.stdout):
        output.tell(_how_to_join(report, ttl_s))


def _how_to_join(report: "TokenReport", ttl_s: float) -> str:
    count = "any number of hosts" if report.uses is None else format_count(report.uses, "host")
    return f"Good for {format_duration(ttl_s)} and {count}; on each: interfiles client --join TOKEN"


async def _all_files(daemon: "Daemon") -> "list[FileReport]":
    return [file async for file in daemon.files()]
