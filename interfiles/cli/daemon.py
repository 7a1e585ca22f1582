"""The commands about the daemons: status asks one; master and client become one."""

import os
import sys
from typing import Annotated, NoReturn

import typer

from interfiles.cli import output, reports
from interfiles.cli.call import on_daemon
from interfiles.cli.options import JsonOption, SocketOption, examples
from interfiles.swarm.rate_limit import parse_limit

# All options are the daemon's own, --help too.
_PASSED_ON = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command(
        short_help="Show this host's daemon and what it is fetching.",
        epilog=examples("interfiles status", "interfiles status --json"),
    )(status)
    app.command(
        short_help="Show or change how quickly this host sends and fetches.",
        epilog=examples(
            "interfiles limit                            the limits, and the rates now",
            "interfiles limit --up 10MB/s                bytes; 80Mbit/s is the same in bits",
            "interfiles limit --up none --down 200Mbit/s",
        ),
    )(limit)
    app.command(context_settings=_PASSED_ON, short_help="Run the master daemon (one host of a fleet does).")(master)
    app.command(context_settings=_PASSED_ON, short_help="Run the client daemon (every host does).")(client)


def status(as_json: JsonOption = False, socket: SocketOption = None) -> None:
    """Show this host's daemon: its master, its room, and what it is fetching."""
    report = on_daemon(socket, lambda d: d.status())
    if as_json:
        output.emit_json(report)
    else:
        output.emit_lines(reports.status_lines(report, output.Screen.of(sys.stdout)))


def limit(
    up: Annotated[
        str | None, typer.Option(metavar="RATE|none", help="To all peers together.", show_default=False)
    ] = None,
    down: Annotated[
        str | None, typer.Option(metavar="RATE|none", help="From all peers together.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
    socket: SocketOption = None,
) -> None:
    """Limit how quickly this host sends and fetches, at once, until its daemon restarts; or show the limits.

    Content is counted, not headers, which are a few hundredths more. For limits that stay, start `interfiles client`
    with --limit-up and --limit-down.
    """
    rates = [None if text is None else parse_limit(text) or 0 for text in (up, down)]
    report = on_daemon(socket, lambda d: d.set_limits(up=rates[0], down=rates[1]))
    if as_json:
        output.emit_json(report)
    else:
        output.emit_lines(reports.limit_lines(report))


def master(context: typer.Context) -> None:
    """Run the master daemon: one host of a fleet does (see `interfiles master --help`)."""
    _become("daemons.master", context)


def client(context: typer.Context) -> None:
    """Run the client daemon: every host of a fleet does (see `interfiles client --help`)."""
    _become("daemons.client", context)


def _become(module: str, context: typer.Context) -> NoReturn:
    """Replace this process by a daemon, so that signals and the exit code are the daemon's own."""
    # -P: a directory called `daemons` where the command was typed is none of ours.
    os.execv(sys.executable, [sys.executable, "-P", "-m", module, *context.args])
