"""The commands about the daemons: status asks one; master and client become one."""

import os
import sys
from typing import NoReturn

import typer

from interfiles.cli import output, reports
from interfiles.cli.call import on_daemon
from interfiles.cli.options import JsonOption, SocketOption, examples

# All options are the daemon's own, --help too.
_PASSED_ON = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command(
        short_help="Show this host's daemon and what it is fetching.",
        epilog=examples("interfiles status", "interfiles status --json"),
    )(status)
    app.command(context_settings=_PASSED_ON, short_help="Run the master daemon (one host of a fleet does).")(master)
    app.command(context_settings=_PASSED_ON, short_help="Run the client daemon (every host does).")(client)


def status(as_json: JsonOption = False, socket: SocketOption = None) -> None:
    """Show this host's daemon: its master, its room, and what it is fetching."""
    report = on_daemon(socket, lambda d: d.status())
    if as_json:
        output.emit_json(report)
    else:
        output.emit_lines(reports.status_lines(report, output.Screen.of(sys.stdout)))


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
