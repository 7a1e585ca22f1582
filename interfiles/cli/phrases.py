"""What a person reads: figures with their units, and a sentence or two for each report. Names come out printable."""

import os
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from interfiles.cli.output import Screen
from interfiles.cli.tables import facts
from interfiles.errors import printable
from interfiles.geometry import KIB, MIB
from interfiles.units import format_bytes, format_count, format_duration, format_rate

if TYPE_CHECKING:
    from interfiles.wire.admin_reports import HostDrainReport
    from interfiles.wire.reports import DownloadReport, RemoveReport, ReplicasReport, UploadReport, VerifyReport

_ID_DIGITS = 12
_MAX_PIECES_NAMED = 5


def short(file_id: str) -> str:
    """A file id as people see and type it."""
    return file_id[:_ID_DIGITS]


def piece_size(count: int) -> str:
    """The size of a piece: a power of two, so in units that are."""
    return f"{count // MIB} MiB" if count >= MIB else f"{count // KIB} KiB"


def percent(done: int, total: int) -> str:
    """How much of the whole is done; it says 100 only when all is."""
    return "100 %" if done >= total else f"{done * 100 // total} %"


def part_of(done: int, total: int) -> str:
    """`9.4 of 18.4 GB`: the unit once where both have the same."""
    first, unit = format_bytes(done).rsplit(" ", 1)
    whole = format_bytes(total)
    return f"{first} of {whole}" if whole.endswith(f" {unit}") else f"{first} {unit} of {whole}"


def time_left(done: int, total: int, rate: int) -> str:
    """The time that the rest takes at this rate; empty where it will not end."""
    return format_duration(-(-(total - done) // rate)) if rate and done < total else ""


def moment(seconds: int) -> str:
    """A time of day in the local time zone, to the minute."""
    try:
        return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M")
    except (OverflowError, ValueError, OSError):  # beyond what a calendar holds
        return "at an unknown time"


def place(path: str) -> str:
    """A path as a person would type it here: short where it is below the current directory; directories end in `/`."""
    try:
        near = os.path.relpath(path)
    except OSError:  # the current directory is gone
        near = path
    shown = path if near.startswith("..") else near
    return printable(shown) + ("/" if os.path.isdir(path) else "")


def content(size: int, files: int) -> str:
    """`18.4 GB in 231 files`."""
    return format_bytes(size) + (f" in {format_count(files, 'file')}" if files != 1 else "")


def pieces(count: int, size: int) -> str:
    """`4,388 pieces of 4 MiB`."""
    return f"{format_count(count, 'piece')} of {piece_size(size)}"


def uploaded(report: "UploadReport", screen: Screen) -> list[str]:
    """The result of an upload."""
    parts = [
        f"{place(report.tracker)}  {short(report.id)}",
        content(report.size, report.files),
        pieces(report.pieces, report.piece_size),
    ]
    if report.replicas_wanted:  # only a master knows a default
        parts.append(f"wanted on {format_count(report.replicas_wanted, 'host')}")
    if report.expires_at:
        parts.append(expiry(report.expires_at))
    return facts(parts, screen)


def expiry(expires_at: int) -> str:
    """`expires 2026-11-30 09:14`."""
    return f"expires {moment(expires_at)}"


def too_few_hosts(name: str, wanted: int, hosts: int) -> str:
    """That a file cannot have as many copies as are wanted, for there are not so many hosts."""
    there, so_many = (f"{hosts:,}", f"{hosts:,}") if hosts else ("none", "no copy")
    return (
        f"{printable(name)} is wanted on {format_count(wanted, 'host')}; the fleet has {there} that can hold a copy, "
        f"so {so_many} until more join."
    )


def replicas_set(report: "ReplicasReport") -> str:
    """The result of wanting another number of copies."""
    if report.hosts < report.replicas_wanted:
        return too_few_hosts(report.name, report.replicas_wanted, report.hosts)
    have = f"{format_count(report.complete, 'host has', 'hosts have')} all of it now"
    return f"{printable(report.name)} is wanted on {format_count(report.replicas_wanted, 'host')}; {have}."


def replicas_there(report: "ReplicasReport") -> str:
    """The result of waiting for copies."""
    copies, wanted = format_count(report.complete, "complete copy", "complete copies"), report.replicas_wanted
    if report.complete >= wanted:
        return f"{printable(report.name)} has {copies}, {wanted:,} wanted."
    why = f": {printable(report.why_not)}" if report.why_not else ""
    return f"{printable(report.name)} has {copies} of {wanted:,} wanted{why}."


def drained(report: "HostDrainReport") -> str:
    """The result of a drain that is done."""
    few = (
        f" {format_count(report.short, 'file has', 'files have')} fewer copies than wanted then, as no other host "
        "could hold one."
    )
    return (
        f"{printable(report.name)} can be switched off: what it has is on other hosts too.{few if report.short else ''}"
    )


def drains(report: "HostDrainReport") -> str:
    """The result of a drain that has begun and is not watched."""
    name = printable(report.name)
    return (
        f"{name} drains: it is given no copies, and what it has is copied to other hosts. Watch it with interfiles "
        f"hosts drain {name}, end it with interfiles hosts undrain {name}."
    )


def left_to_move(report: "HostDrainReport") -> str:
    """How far a drain is."""
    if report.to_move is None:
        return "looking what is to be moved"
    size = f", {format_bytes(report.left_bytes)}" if report.left_bytes else ""
    return f"{format_count(report.to_move, 'file')} to move{size}"


def drain_waits(report: "HostDrainReport") -> str:
    """Why a drain does not get on now; empty: there is no such reason."""
    name = printable(report.name)
    if report.state in ("suspect", "gone"):
        return f"{name} is not up: what is only there cannot be moved until it is back"
    if report.why_not:
        return f"{name} has files that can get no other copy now; {printable(report.why_not)}"
    return ""


def downloaded(report: "DownloadReport") -> str:
    """The result of a download that is done."""
    fetched = sum(report.bytes_from_peers.values())
    parts = [format_bytes(report.size)]
    if fetched:
        parts = [f"{format_bytes(report.size)} in {format_duration(report.seconds)}"]
        parts.append(format_rate(fetched / report.seconds if report.seconds else fetched))
    if report.bytes_local and report.size:
        what = "all" if report.bytes_local >= report.size else format_bytes(report.bytes_local)
        parts.append(f"{what} of it from this host")
    if report.pieces_rejected:
        parts.append(f"{format_count(report.pieces_rejected, 'bad piece')} refused and fetched again")
    return f"Done: {place(report.path)} ({', '.join([*parts, 'every piece verified'])})."


def goes_on(reference: str) -> str:
    """How to watch and how to stop a download that goes on without the command."""
    shown = printable(reference)
    return f"Watch it with interfiles wait {shown}, stop it with interfiles rm --local {shown}."


def removed(report: "RemoveReport", *, local: bool) -> str:
    """The result of a removal."""
    name = printable(report.name)
    if local:
        what = f"Removed {name} from this host alone"
        if report.ordered:
            what += "; it was the fleet's copy, and the master makes another elsewhere if it can"
    else:
        others = "no other host had any of it"
        if report.hosts:
            others = (
                f"{format_count(report.hosts, 'other host')} {'is' if report.hosts == 1 else 'are'} told to forget it"
            )
        what = f"Removed {name} from the fleet; {others}"
    if not report.path:
        return what + "."
    return f"{what}. {place(report.path)} {'is deleted' if report.deleted else 'stays where it is'}."


def verified(report: "VerifyReport") -> str:
    """The result of a verification that found nothing wrong."""
    facts = f"{format_bytes(report.size)}, checked in {format_duration(report.seconds)}"
    return f"{printable(report.name)}: all {format_count(report.pieces, 'piece')} match ({facts})."


def not_all_there(report: "VerifyReport") -> str:
    """The error of a verification of what has not come yet, or is no more."""
    return (
        f"{printable(report.name)}: {format_count(report.checked)} of {format_count(report.pieces, 'piece')} are here "
        "and match, the rest is missing; `interfiles wait` shows how the download goes"
    )


def found_bad(report: "VerifyReport") -> str:
    """The error of a verification that found bad pieces, which a replica's host mends by itself."""
    bad = report.bad_pieces
    named = ", ".join(format_count(piece) for piece in bad[:_MAX_PIECES_NAMED])
    more = ", …" if len(bad) > _MAX_PIECES_NAMED else ""
    remedy = (
        "it is the fleet's copy, and is mended by itself"
        if report.ordered
        else "`interfiles download` fetches what is missing, over an upload in place with --overwrite"
    )
    return (
        f"{printable(report.name)}: {format_count(len(bad))} of {format_count(report.pieces, 'piece')} "
        f"{'does' if len(bad) == 1 else 'do'} not match ({'piece' if len(bad) == 1 else 'pieces'} {named}{more}) and "
        f"{'is' if len(bad) == 1 else 'are'} no longer served; {remedy}"
    )


def home_relative(path: str) -> str:
    """A path with the home directory as `~`."""
    try:
        return printable("~/" + str(Path(path).relative_to(Path.home())))
    except (ValueError, RuntimeError):
        return printable(path)
