"""The command about what has happened, for the master's host: events."""

import sys
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Final

import typer

from interfiles.cli import output
from interfiles.cli.call import on_master
from interfiles.cli.options import JsonOption, StateOption, examples
from interfiles.cli.phrases import short
from interfiles.cli.tables import Column, GrowingTable
from interfiles.errors import DaemonUnreachable, printable
from interfiles.units import format_count

if TYPE_CHECKING:
    from interfiles.administration import Admin
    from interfiles.wire.admin_reports import EventReport

DEFAULT_LAST: Final = 50
WAIT_S: Final = 5.0  # for one answer: less than what the master grants, and a reader that has gone is missed so late
RETRY_FLOOR_S: Final = 0.25
RETRY_CAP_S: Final = 5.0

_ALL: Final = 1 << 53  # more than any log keeps: its beginning
_COLUMNS: Final = (Column("TIME"), Column("EVENT", is_state=True), Column("HOST"), Column("FILE"), Column("REASON"))
_USUAL: Final = ("", "file-removed", "", "", "")  # so wide at least is each column
_HOST_DIGITS: Final = 12

Show = Callable[[list["EventReport"]], None]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(
        short_help="Show what has happened in the fleet, on the master's host.",
        epilog=examples(
            "interfiles events                   the latest, the newest at the end",
            "interfiles events --follow          and what happens from now on, until Ctrl-C",
            "interfiles events --last 1000 --json",
        ),
    )(events)


def events(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what happens, until Ctrl-C.")] = False,
    last: Annotated[int, typer.Option(min=0, metavar="N", help="How many to begin with.")] = DEFAULT_LAST,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what has happened in the fleet: hosts that came and went, files, copies; on the master's host.

    The master keeps the latest 10,000 in memory, until it stops.
    """
    show = _show_json if as_json else _Lines().show
    shown = on_master(state, lambda admin: tell_events(admin, show, last=min(last, _ALL), follow=follow))
    if not shown and last and not as_json:
        output.tell("Nothing has happened since the master started.")


async def tell_events(admin: "Admin", show: Show, *, last: int, follow: bool) -> int:
    """Show the newest `last` events, the oldest first, and return how many there were.

    With `follow` go on until nobody reads the output any more, over restarts of the master.

    Raises:
      DaemonUnreachable: the master does not answer; with `follow` only if it never has.
      NotPermitted: as `Admin`.
      Refused: too many follow already.
    """
    import trio

    log, after, has_answered, is_away = "", 0, False, False
    retry_s, shown = RETRY_FLOOR_S, 0
    while True:
        wait_s = WAIT_S if follow and not is_away else 0.0
        try:
            page = await admin.events(log=log, after=after, last=_ALL if has_answered else last, wait_s=wait_s)
        except DaemonUnreachable:
            if not (follow and has_answered):
                raise
            if not is_away:
                output.tell("The master is away; waiting for it. Ctrl-C ends this.")
            is_away = True
            await trio.sleep(retry_s)
            retry_s = min(retry_s * 2, RETRY_CAP_S)
            continue
        if is_away:
            output.tell("The master is back." if page.log == log else "The master is back; its events begin anew.")
        if page.missed and has_answered:
            output.tell(f"{format_count(page.missed, 'event')} came and went meanwhile; the master keeps the latest.")
        if page.events:
            show(page.events)
            shown += len(page.events)
        log, after, has_answered, is_away, retry_s = page.log, page.next, True, False, RETRY_FLOOR_S
        if not (follow or page.more) or output.is_unread():
            return shown


def _show_json(events: "list[EventReport]") -> None:
    for event in events:
        output.emit_json(event)


class _Lines:
    """A line for each event."""

    def __init__(self) -> None:
        self._table = GrowingTable(_COLUMNS, output.Screen.of(sys.stdout))
        self._table.lines([_USUAL])

    def show(self, events: "list[EventReport]") -> None:
        output.emit_lines(self._table.lines([_row(event) for event in events]))


def _row(event: "EventReport") -> tuple[str, ...]:
    return (
        _moment(event.at),
        printable(event.kind),
        printable(event.host_name or event.host[:_HOST_DIGITS]),
        _file(event),
        printable(event.reason),
    )


def _file(event: "EventReport") -> str:
    if not event.file:
        return ""
    return f"{printable(event.file_name)} ({short(event.file)})" if event.file_name else short(event.file)


def _moment(at: float) -> str:
    """A time of day in the local time zone, to the second."""
    try:
        return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError, OSError):  # beyond what a calendar holds
        return "at an unknown time"
