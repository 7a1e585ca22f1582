"""What `make demo` shows: a master and four clients on this machine, and a real directory that travels between them.

    python -m tests.demo [FILE]

Everything lies in a temporary directory, which is removed at the end, however that comes.
"""

import os
import shlex
import shutil
import signal
import sys
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final

import trio
from rich.table import Table
from rich.text import Text

import interfiles
from interfiles.cli.output import prepare_streams
from interfiles.errors import InterFilesError, printable
from interfiles.units import format_bytes, format_count, format_duration, format_rate
from tests.demo_screen import Bars, command, console, line, say
from tests.e2e.content import differences
from tests.e2e.fleet import Fleet
from tests.e2e.processes import Daemon, FleetError

if TYPE_CHECKING:
    from collections.abc import Callable

    from interfiles.wire.reports import DownloadReport

SOURCE: Final = "render-01"
HOSTS: Final = {SOURCE: "rack-a", "render-02": "rack-a", "render-03": "rack-b", "render-04": "rack-b"}
FETCHERS: Final = [name for name in HOSTS if name != SOURCE]

_ROOM_BESIDE_BYTES: Final = 64 << 20  # logs, databases, and what a file system takes for itself
_NOT_SENT: Final = frozenset({"site-packages", "dist-packages", "__pycache__"})
_FAILED, _INTERRUPTED = 1, 130


class DemoError(Exception):
    """The demo cannot go on, or has found a difference; one sentence."""


def main(arguments: Sequence[str]) -> int:
    """Run the demo and return its exit code: 0 only if every copy is identical."""
    prepare_streams()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        given = _given(arguments)
        with tempfile.TemporaryDirectory(prefix="interfiles-demo-") as directory:
            _show(given, Path(directory))
    except (DemoError, FleetError, InterFilesError, OSError) as e:
        console.file.flush()
        print(f"interfiles demo: {e}", file=sys.stderr)
        return _FAILED
    except KeyboardInterrupt:
        print("Interrupted: everything is stopped and removed.", file=sys.stderr)
        return _INTERRUPTED
    return 0


def _given(arguments: Sequence[str]) -> Path | None:
    """The path that was asked for, absolute and without symlinks; None for the default."""
    if len(arguments) > 1:
        raise DemoError("give one file or directory, or none")
    if not arguments:
        return None
    path = Path(arguments[0]).expanduser().resolve()
    if not path.exists():
        raise DemoError(f"there is no {printable(str(path))}; name a file or directory: make demo FILE=path.")
    return path


def _interrupt(number: int, frame: FrameType | None) -> None:
    signal.raise_signal(signal.SIGINT)


# The steps


def _show(given: Path | None, directory: Path) -> None:
    console.print(f"A master and four hosts on this machine, in {directory} (removed at the end).", style="bold")
    _check_room(given, directory)
    content = given or _copy_standard_library(directory)
    with Fleet(directory) as fleet:
        try:
            reports, took_s = _play(fleet, content, shown=str(content) if given else content.name)
        except (DemoError, FleetError, InterFilesError):
            print(fleet.logs(), file=sys.stderr)
            raise
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # what is left to do does not take long
            print("\nStopping ...", file=sys.stderr)
            raise
        say("Stopping the four clients and the master ...")
    _summarize(reports, took_s)


def _play(fleet: Fleet, content: Path, *, shown: str) -> tuple[dict[str, "DownloadReport"], float]:
    """From the first daemon to identical copies; return what the downloads report, and their time in seconds."""
    _start(fleet)
    source, others = fleet.daemons[SOURCE], [fleet.daemons[name] for name in FETCHERS]
    _run(fleet, source, "upload", "-p", str(content), shown=f"upload -p {_quoted(shown)}{'/' * content.is_dir()}")
    tracker = source.home / f"{content.name}.tracker"
    for other in others:
        shutil.copy(tracker, other.home)
    say(f"The tracker file goes to the other hosts. On {_listed(FETCHERS)}, all at once:")
    command(f"interfiles download -p {_quoted(tracker.name)}")
    began = time.monotonic()
    reports = _download(others, tracker.name)
    took_s = time.monotonic() - began
    _run(fleet, others[0], "stat", "-p", tracker.name)
    _run(fleet, others[0], "hosts")
    _compare(content, {other.name: other.home / content.name for other in others})
    return reports, took_s


def _check_room(given: Path | None, directory: Path) -> None:
    """Refuse before the first byte is written."""
    content = given or _library()
    size = _size(content) if given else _size(content, _left_out)
    copies = len(FETCHERS) + (given is None)
    needed, free = copies * size + _ROOM_BESIDE_BYTES, shutil.disk_usage(directory).free
    if needed > free:
        raise DemoError(
            f"{copies} copies of {printable(str(content))} need {format_bytes(needed)}, {directory.parent} has "
            f"{format_bytes(free)} free; name another place with TMPDIR=directory, or a smaller FILE."
        )


def _size(path: Path, left_out: "Callable[[str, list[str]], set[str]]" = lambda _, __: set()) -> int:
    """Bytes in a file, or in all files below a directory."""
    if not path.is_dir():
        return path.stat().st_size
    size = 0
    for directory, directories, files in os.walk(path):
        without = left_out(directory, directories + files)
        directories[:] = [name for name in directories if name not in without]
        size += sum(os.lstat(os.path.join(directory, name)).st_size for name in files if name not in without)
    return size


def _copy_standard_library(directory: Path) -> Path:
    """A tree of thousands of files that every machine has, and that stays as it is while it is sent."""
    library = _library()
    say(
        f"To send: a copy of Python's standard library ({printable(str(library))}), without site-packages, __pycache__ "
        "and symlinks that lead out of it."
    )
    place = directory / library.name
    shutil.copytree(library, place, symlinks=True, ignore=_left_out)
    return place


def _library() -> Path:
    return Path(sysconfig.get_path("stdlib"))


def _left_out(directory: str, names: list[str]) -> set[str]:
    """What of a directory of the library is not sent."""
    return {name for name in names if name in _NOT_SENT or _leads_out(Path(directory, name))}


def _leads_out(path: Path) -> bool:
    """Whether this is a symlink that would mean something else, or nothing, in a copy."""
    if not path.is_symlink():
        return False
    return os.path.isabs(os.readlink(path)) or not path.resolve().is_relative_to(_library().resolve())


def _start(fleet: Fleet) -> None:
    command("interfiles master")
    master = fleet.start_master("--replicas", str(len(HOSTS)))
    _show_remarks(master)
    for name, zone in HOSTS.items():
        command(f"interfiles client --join IF1-… --name {name} --zone {zone}")
        _show_remarks(fleet.start_client(name, "--zone", zone))


def _show_remarks(daemon: Daemon) -> None:
    """Show what a daemon has said to a person: of its log, the lines that are no records."""
    for remark in daemon.logged.splitlines():
        if not remark[:1].isdigit() and not remark.startswith("interfiles:"):
            line(Text(f"  {remark}"))


def _run(fleet: Fleet, daemon: Daemon, *arguments: str, shown: str = "") -> None:
    """Run a command before the person's eyes."""
    command(f"interfiles {shown or ' '.join(map(_quoted, arguments))}", on=daemon.name)
    console.file.flush()
    code = fleet.show_cli(daemon, *arguments)
    if code:
        raise DemoError(f"`interfiles {arguments[0]}` ended with exit code {code}")


# Three downloads at once


def _download(daemons: Sequence[Daemon], tracker: str) -> dict[str, "DownloadReport"]:
    """Fetch a file on several hosts at once; return their reports by name."""
    reports: dict[str, DownloadReport] = {}

    async def fetch(daemon: Daemon, bars: Bars) -> None:
        async with interfiles.connect(daemon.socket) as api:
            reports[daemon.name] = await api.download(
                daemon.home / tracker,
                directory=daemon.home,
                on_progress=lambda progress: bars.show(daemon.name, progress),
            )
        bars.finish(daemon.name, reports[daemon.name])

    async def run() -> None:
        with Bars([daemon.name for daemon in daemons]) as bars:
            async with trio.open_nursery() as drawing:
                drawing.start_soon(bars.draw)
                async with trio.open_nursery() as fetching:
                    for daemon in daemons:
                        fetching.start_soon(fetch, daemon, bars)
                drawing.cancel_scope.cancel()

    try:
        trio.run(run)
    except BaseExceptionGroup as group:
        if group.subgroup(KeyboardInterrupt):
            raise KeyboardInterrupt from group
        failed = group.subgroup(InterFilesError)
        if failed is None:
            raise
        raise DemoError(f"a download failed: {_first(failed)}") from group
    return reports


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


# The end


def _compare(content: Path, copies: dict[str, Path]) -> None:
    say("Comparing: every byte, executable bit, symlink and empty directory ...")
    different = False
    for name, copy in copies.items():
        found = differences(content, copy)
        different |= bool(found)
        verdict = Text("identical", style="green") if not found else Text("DIFFERENT", style="bold red")
        console.print(Text(f"  {name}  ").append(verdict))
        for sentence in found[:10]:
            console.print(f"    {printable(sentence)}")
    if different:
        raise DemoError("a copy differs from what was uploaded")


def _summarize(reports: dict[str, "DownloadReport"], took_s: float) -> None:
    size = next(iter(reports.values())).size
    sent = sum(report.bytes_from_peers.get(SOURCE, 0) for report in reports.values())
    console.print()
    console.print(
        f"Done: {format_bytes(size)} on {format_count(len(reports), 'host')} in {format_duration(took_s)}, "
        f"{format_rate(len(reports) * size / took_s)} in all; {SOURCE} sent it "
        f"{sent / size if size else 0:.1f} times.",
        style="bold",
    )
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("HOST", *(f"FROM {name}" for name in HOSTS)):
        table.add_column(title, justify="left" if title == "HOST" else "right", no_wrap=True)
    for name, report in sorted(reports.items()):
        counts = [report.bytes_from_peers.get(peer, 0) for peer in HOSTS]
        table.add_row(name, *(format_bytes(count) if count else "–" for count in counts))
    console.print(table)


def _quoted(word: str) -> str:
    """A word as it is typed in a shell."""
    return shlex.quote(printable(word))


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
