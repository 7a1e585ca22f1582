"""The commands that move files: upload, download, wait, pause, resume."""

import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from interfiles.cli import output, phrases
from interfiles.cli.call import by_id, on_daemon, read
from interfiles.cli.options import (
    A_FILE,
    JsonOption,
    SocketOption,
    SourceArgument,
    SourceOption,
    TimeoutOption,
    exactly_one,
    examples,
    only_one,
)
from interfiles.cli.progress import View, view
from interfiles.cli.replicas import ReplicasOption, WaitCommand, parse_replicas, wait_for_replicas
from interfiles.errors import INTERRUPTED, printable
from interfiles.priority import Priority
from interfiles.units import parse_duration

if TYPE_CHECKING:
    from interfiles.control import Daemon
    from interfiles.source import Source
    from interfiles.wire.reports import DownloadReport, TransferReport, TransferStateReport


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command(
        short_help="Share a file or directory with the fleet.",
        epilog=examples(
            "interfiles upload -p weights/                 makes weights.tracker here",
            "interfiles upload -p disk.img --replicas 5    wants it on 5 hosts",
            "interfiles upload -p disk.img -o /srv/share/  puts disk.img.tracker there",
            "interfiles upload -p build.tar --copy         the original may change later",
            "interfiles upload -p nightly.img --expire-in 7d",
        ),
    )(upload)
    app.command(
        short_help="Fetch one from every host that has some of it.",
        epilog=examples(
            "interfiles download -p weights.tracker           into this directory",
            "interfiles download -p weights.tracker -o /data  as /data/weights",
            "interfiles download -p 9c41e07b2d55              by its id; a name works too",
            "interfiles download -p weights.tracker --detach  in the background",
            "interfiles download -p weights --priority low    leaves room for others",
        ),
    )(download)
    app.command(
        cls=WaitCommand,
        short_help="Watch a download until it is done, or wait for copies.",
        epilog=examples(
            "interfiles wait                          for all that this host fetches",
            "interfiles wait -p weights.tracker       for one file",
            "interfiles wait -p weights --replicas    until there are as many as wanted",
            "interfiles wait -p weights --replicas 2 --timeout 10m",
        ),
    )(wait)
    app.command(
        short_help="Stop fetching, for now.",
        epilog=examples(
            "interfiles pause                     everything that this host fetches",
            "interfiles pause -p weights.tracker  one file",
        ),
    )(pause)
    app.command(
        short_help="Go on with what was paused.",
        epilog=examples(
            "interfiles resume                     everything",
            "interfiles resume -p weights.tracker  one file",
        ),
    )(resume)


def upload(
    path: Annotated[
        str | None, typer.Option("-p", "--path", metavar="PATH", help="The file or directory.", show_default=False)
    ] = None,
    argument: Annotated[
        str | None, typer.Argument(metavar="PATH", help="The same, without -p.", show_default=False)
    ] = None,
    tracker: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            metavar="TRACKER",
            help="A directory or path for the tracker file [default: NAME.tracker in this directory].",
            show_default=False,
        ),
    ] = None,
    replicas: Annotated[
        int | None,
        typer.Option(
            metavar="N", parser=parse_replicas, help="Hosts to keep it on [default: the master's].", show_default=False
        ),
    ] = None,
    copy: Annotated[bool, typer.Option("--copy", help="Serve a copy of its own, not the file in its place.")] = False,
    expire_in: Annotated[
        float | None,
        typer.Option(
            metavar="T",
            parser=parse_duration,
            help="Remove it from the fleet after so long, 1m at least, as `rm` does: 12h, 7d [default: never].",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
    socket: SocketOption = None,
) -> None:
    """Share a file or directory with the fleet, and write its tracker file.

    It is served from where it is: a file that changes later is no longer served.
    """
    given = exactly_one(path, argument, "the file or directory")
    shown = view()
    try:
        with shown:
            report = on_daemon(
                socket,
                lambda d: d.upload(
                    given, replicas=replicas, copy=copy, expire_in_s=expire_in, tracker=tracker, on_progress=shown
                ),
            )
    except KeyboardInterrupt as e:
        output.tell("Interrupted: the upload is abandoned, no tracker file was written.")
        raise typer.Exit(INTERRUPTED) from e
    if as_json:
        output.emit_json(report)
        return
    output.emit_lines(phrases.uploaded(report, output.Screen.of(sys.stdout)))
    if not report.published:
        output.tell("The master is away: other hosts can fetch it once this host has told the master, by itself.")
    elif report.hosts is not None and report.hosts < report.replicas_wanted:
        output.tell(phrases.too_few_hosts(report.name, report.replicas_wanted, report.hosts))


def download(
    path: SourceOption = None,
    argument: SourceArgument = None,
    directory: Annotated[
        str,
        typer.Option(
            "-o",
            "--output",
            metavar="DIR",
            help="The directory to put it into [default: this one].",
            show_default=False,
        ),
    ] = ".",
    detach: Annotated[bool, typer.Option("--detach", help="Return at once; the daemon goes on.")] = False,
    timeout: TimeoutOption = None,
    priority: Annotated[
        Priority | None,
        typer.Option(
            help="Its share beside other downloads, 1:4:16 [default: normal, or what it is already].",
            show_default=False,
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there under its name.")] = False,
    as_json: JsonOption = False,
    socket: SocketOption = None,
) -> None:
    """Fetch a file or directory from every host that has some of it, and verify every piece.

    Ctrl-C leaves the daemon to go on with it; `interfiles wait` watches it again.
    """
    source = read(exactly_one(path, argument, A_FILE))
    report = _watched(
        socket,
        source,
        lambda d, shown: d.download(
            source,
            directory=directory,
            overwrite=overwrite,
            detach=detach,
            timeout_s=timeout,
            priority=priority,
            on_progress=shown,
        ),
    )
    _show_download(report, as_json=as_json)


def wait(
    path: SourceOption = None,
    argument: SourceArgument = None,
    replicas: ReplicasOption = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            metavar="T",
            parser=parse_duration,
            help="Give up when nothing comes for so long, such as 10s or 2m; with --replicas: after so long in all.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
    socket: SocketOption = None,
) -> None:
    """Watch a download that goes on in the background until it is done; without a file: every one of this host.

    With --replicas, wait until there are enough complete copies in the fleet, whether this host has the file or not.
    Ctrl-C stops watching, not the download or the copying.
    """
    if replicas is not None:
        wait_for_replicas(path, argument, replicas, timeout, as_json=as_json, socket=socket)
        return
    for source in _chosen(path, argument, socket, "wait for", _is_under_way):
        report = _watched(socket, source, partial(_wait_for, source, timeout))
        _show_download(report, as_json=as_json)


def pause(
    path: SourceOption = None,
    argument: SourceArgument = None,
    as_json: JsonOption = False,
    socket: SocketOption = None,
) -> None:
    """Neither fetch nor serve a file until `interfiles resume`; without a file: all that this host fetches."""
    for source in _chosen(path, argument, socket, "pause", _is_fetched):
        report = on_daemon(socket, partial(_pause_one, source))
        _show_state(report, "Paused", as_json=as_json)


def resume(
    path: SourceOption = None,
    argument: SourceArgument = None,
    as_json: JsonOption = False,
    socket: SocketOption = None,
) -> None:
    """Go on with a file that was paused; without a file: all of them."""
    for source in _chosen(path, argument, socket, "resume", lambda transfer: transfer.state == "paused"):
        report = on_daemon(socket, partial(_resume_one, source))
        _show_state(report, "Resumed", as_json=as_json)


def _watched(
    socket: str | None, source: "Source", operate: "Callable[[Daemon, View], Awaitable[DownloadReport]]"
) -> "DownloadReport":
    """Run what the daemon goes on with when it is left: on Ctrl-C, say so and exit."""
    shown = view()
    try:
        with shown:
            return on_daemon(socket, lambda daemon: operate(daemon, shown))
    except KeyboardInterrupt:
        _detach(source, started=shown.started)


def _detach(source: "Source", *, started: bool) -> NoReturn:
    if started:
        output.tell(f"Detached: the download goes on. {phrases.goes_on(source.reference)}")
    else:
        output.tell("Interrupted before the daemon answered.")
    raise typer.Exit(INTERRUPTED)


def _show_download(report: "DownloadReport", *, as_json: bool) -> None:
    if as_json:
        output.emit_json(report)
    elif report.state == "detached":
        name, reference = printable(report.name), phrases.short(report.id)
        output.emit(f"Started: {name} is fetched in the background. {phrases.goes_on(reference)}")
    else:
        output.emit(phrases.downloaded(report))


def _show_state(report: "TransferStateReport", what: str, *, as_json: bool) -> None:
    if as_json:
        output.emit_json(report)
    else:
        output.emit(f"{what} {printable(report.name)}.")


def _chosen(
    path: str | None, argument: str | None, socket: str | None, what: str, fits: "Callable[[TransferReport], bool]"
) -> "list[Source]":
    """The file that was named, or every file that this host is fetching and that fits."""
    given = only_one(path, argument)
    if given is not None:
        return [read(given)]
    fitting = [transfer.id for transfer in on_daemon(socket, lambda d: d.status()).transfers if fits(transfer)]
    found = [by_id(file_id) for file_id in dict.fromkeys(fitting)]
    if not found:
        output.tell(f"There is no download to {what} on this host.")
    return found


def _is_under_way(transfer: "TransferReport") -> bool:
    """Neither paused nor a copy that has gone bad or has changed: those never get on by themselves."""
    return transfer.state not in ("paused", "withdrawn", "damaged")


def _is_fetched(transfer: "TransferReport") -> bool:
    """Under way, and from other hosts: to pause what is copied would be to pause the file that it is copied from."""
    return _is_under_way(transfer) and transfer.state != "copying"


async def _wait_for(source: "Source", timeout_s: float | None, daemon: "Daemon", shown: View) -> "DownloadReport":
    return await daemon.wait(source, timeout_s=timeout_s, on_progress=shown)


async def _pause_one(source: "Source", daemon: "Daemon") -> "TransferStateReport":
    return await daemon.pause(source)


async def _resume_one(source: "Source", daemon: "Daemon") -> "TransferStateReport":
    return await daemon.resume(source)
