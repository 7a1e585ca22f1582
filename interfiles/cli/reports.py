"""The tables of stat, ls, hosts and status: from a report to lines."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from interfiles.cli.output import Screen
from interfiles.cli.phrases import content, expiry, home_relative, moment, percent, pieces, place, short, time_left
from interfiles.cli.tables import Column, cells, facts, table, with_notes
from interfiles.errors import printable
from interfiles.units import format_bytes, format_count, format_duration, format_rate

if TYPE_CHECKING:
    from interfiles.wire.admin_reports import AuthorityReport, ListedTokenReport
    from interfiles.wire.reports import (
        FileReport,
        HolderReport,
        HostReport,
        LimitReport,
        LocalCopy,
        ScrubReport,
        StatReport,
        StatusReport,
        TransferReport,
    )

_INDENT: Final = "  "
_FLEET_DIGITS: Final = 4

_HOLDER_COLUMNS: Final = (
    Column("HOST"),
    Column("ZONE"),
    Column("STATE", is_state=True),
    Column("HAS", right=True),
    Column("RATE"),
    Column("ADDRESS"),
)
_FILE_COLUMNS: Final = (
    Column("NAME"),
    Column("ID"),
    Column("SIZE", right=True),
    Column("COPIES"),
    Column("HERE", is_state=True),
    Column("FILES", right=True),
    Column("UPLOADED"),
    Column("BY"),
)
_HOST_COLUMNS: Final = (
    Column("HOST"),
    Column("ZONE"),
    Column("ADDRESS"),
    Column("STATE", is_state=True),
    Column("FILES", right=True),
    Column("REPLICAS"),
    Column("USED", right=True),
    Column("FREE", right=True),
    Column("LAST SEEN"),
)
_TOKEN_COLUMNS: Final = (
    Column("TOKEN"),
    Column("STATE", is_state=True),
    Column("USED"),
    Column("MADE"),
    Column("EXPIRES"),
    Column("FOR"),
)
_USE_COLUMNS: Final = (Column("HOST"), Column("JOINED"), Column("FROM"), Column("HOST ID"))
_AUTHORITY_COLUMNS: Final = (
    Column("CA"),
    Column("MADE"),
    Column("STATE", is_state=True),
    Column("CERTIFIES"),
    Column("SHA-256"),
)
_TOKEN_DIGITS: Final = 16
_TRANSFER_COLUMNS: Final = (
    Column("NAME"),
    Column("ID"),
    Column("STATE", is_state=True),
    Column("DONE", right=True),
    Column("RATE", right=True),
    Column("LEFT", right=True),
    Column("FROM"),
    Column("NOTE"),
)
_PRIORITY_AT: Final = 3  # where it is shown, if one is not normal
_KIND_AT: Final = 4  # where replicas are told from what people fetched, if there are any
_EXPIRES_AT: Final = 5  # where it is shown, if any file does


def stat_lines(report: "StatReport", screen: Screen) -> list[str]:
    """What a file is, and who has what of it."""
    lines = [f"{printable(report.name)}{'/' if report.is_directory else ''}  {short(report.id)}"]
    what = [
        content(report.size, report.entries),
        pieces(report.pieces, report.piece_size),
        f"uploaded {moment(report.uploaded_at)} by {printable(report.uploaded_by)}",
    ]
    if report.expires_at:
        what.append(expiry(report.expires_at))
    lines += facts(what, screen, indent=_INDENT)
    lines += _copies(report, screen)
    lines += facts(_here(report.local, report.pieces), screen, indent=_INDENT)
    if not report.complete_info:
        lines.append(_INDENT + "The master is away: this is only what this host knows.")
    if report.hosts:
        rows = [_holder_row(host, report.pieces) for host in report.hosts]
        columns = list(_HOLDER_COLUMNS)
        if any(host.ordered for host in report.hosts):
            kinds = ["replica" if host.ordered else "" for host in report.hosts]
            columns, rows = _with_column(columns, rows, _KIND_AT, Column("KIND"), kinds)
        lines += table(columns, rows, screen, indent=_INDENT)
    return lines


def file_lines(files: Sequence["FileReport"], screen: Screen) -> list[str]:
    """The files of the fleet."""
    rows: list[tuple[str, ...]] = [
        (
            printable(file.name),
            short(file.id),
            format_bytes(file.size),
            f"{file.complete:,} of {file.replicas_wanted:,}" + (f" +{file.under_way:,}" if file.under_way else ""),
            file.local,
            format_count(file.entries),
            moment(file.uploaded_at),
            printable(file.uploaded_by),
        )
        for file in files
    ]
    columns = list(_FILE_COLUMNS)
    if any(file.expires_at for file in files):
        expiries = [moment(file.expires_at) if file.expires_at else "" for file in files]
        columns, rows = _with_column(columns, rows, _EXPIRES_AT, Column("EXPIRES"), expiries)
    notes = [f"too few copies: {printable(file.why_not)}" if file.why_not else "" for file in files]
    return with_notes(table(columns, rows, screen), notes, screen)


def host_lines(hosts: Sequence["HostReport"], screen: Screen) -> list[str]:
    """The hosts of the fleet."""
    rows = [
        (
            printable(host.name),
            printable(host.zone),
            printable(host.address),
            printable(host.state),
            format_count(host.files),
            f"{host.ordered:,}" + (f" +{host.arriving:,}" if host.arriving else ""),
            format_bytes(host.used),
            format_bytes(host.free),
            f"{format_duration(int(host.last_seen_s))} ago",
        )
        for host in hosts
    ]
    return with_notes(table(_HOST_COLUMNS, rows, screen), [_host_note(host) for host in hosts], screen)


def _host_note(host: "HostReport") -> str:
    """What is to be known of a host beside its row: how far it is drained, and why it is given no copies."""
    parts = []
    if host.state == "draining" and host.to_move is not None:
        left = format_count(host.to_move, "file")
        parts.append(f"{left} to move before it can be switched off" if host.to_move else "can be switched off")
    if host.note:
        parts.append(printable(host.note))
    return ", ".join(parts)


def _with_column(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], at: int, column: Column, texts: Sequence[str]
) -> tuple[list[Column], list[tuple[str, ...]]]:
    """The table with one more column."""
    widened = [(*row[:at], text, *row[at:]) for row, text in zip(rows, texts, strict=True)]
    return [*columns[:at], column, *columns[at:]], widened


def status_lines(report: "StatusReport", screen: Screen) -> list[str]:
    """The daemon of this host, and what it is fetching."""
    fleet = f"of fleet {printable(report.fleet[:_FLEET_DIGITS])}" if report.fleet else "of no fleet yet"
    master = f"Master: {printable(report.master or 'none')}, {report.master_state}"
    if report.master_note and report.master_state != "connected":
        master += f" ({printable(report.master_note)})"
    lines = facts([f"{printable(report.name)} {fleet}", f"serving on {printable(report.address)}"], screen)
    lines += facts([master], screen, indent=_INDENT)
    lines += facts(
        [
            f"Holds {format_count(report.files, 'file')}, {format_bytes(report.used)}",
            f"{format_bytes(report.free)} free",
        ],
        screen,
        indent=_INDENT,
    )
    rates = [_limited("Down", report.down, report.limit_down), _limited("up", report.up, report.limit_up)]
    lines += facts(rates, screen, indent=_INDENT)
    lines += facts([f"State in {home_relative(report.state_directory)}"], screen, indent=_INDENT)
    if scrub := _scrub(report.scrub):
        lines += facts(scrub, screen, indent=_INDENT)
    if report.transfers:
        rows = [_transfer_row(transfer) for transfer in report.transfers]
        columns = list(_TRANSFER_COLUMNS)
        if any(transfer.priority != "normal" for transfer in report.transfers):
            priorities = [printable(transfer.priority) for transfer in report.transfers]
            columns, rows = _with_column(columns, rows, _PRIORITY_AT, Column("PRIORITY"), priorities)
        lines += table(columns, rows, screen, indent=_INDENT)
    return lines


def _scrub(scrub: "ScrubReport | None") -> list[str]:
    """What is hashed again now, and what is bad; nothing where all is well and at rest."""
    if scrub is None:
        return []
    shown = []
    if scrub.file:
        done = percent(scrub.bytes_done, scrub.size)
        shown.append(f"Scrub: at {printable(scrub.name)}, {done} of {format_bytes(scrub.size)}")
    if scrub.damaged:
        what = format_count(scrub.damaged, "file has", "files have")
        shown.append(f"{'' if shown else 'Scrub: '}{what} bad pieces on disk")
    return shown


def limit_lines(report: "LimitReport") -> list[str]:
    """How quickly the host may send and fetch, and does."""
    return [
        _limited("Up", report.up, report.limit_up, without="no limit"),
        _limited("Down", report.down, report.limit_down, without="no limit"),
    ]


def _limited(way: str, rate: int, limit: int | None, *, without: str = "") -> str:
    """A rate, and the limit if there is one."""
    shown = f"limit {format_rate(limit)}" if limit is not None else without
    return f"{way} {format_rate(rate)} ({shown})" if shown else f"{way} {format_rate(rate)}"


def token_lines(tokens: Sequence["ListedTokenReport"], screen: Screen) -> list[str]:
    """Join tokens, and below each the hosts that joined by it."""
    lines: list[str] = []
    for token in tokens:
        uses = f"{token.used:,} of {token.uses:,}" if token.uses is not None else f"{token.used:,}"
        row = (token.id, token.state, uses, moment(token.made_at), moment(token.expires_at), printable(token.name))
        made = table(_TOKEN_COLUMNS, [row], screen)
        lines += made if not lines else ["", *made[1:]]
        joined = [
            (printable(use.name), moment(use.used_at), printable(use.address), printable(use.host[:_TOKEN_DIGITS]))
            for use in token.joined
        ]
        if joined:
            lines += table(_USE_COLUMNS, joined, screen, indent=_INDENT)
        if token.used > len(joined):
            lines.append(f"{_INDENT}and {format_count(token.used - len(joined), 'host')} before them")
    return lines


def authority_lines(authorities: Sequence["AuthorityReport"], screen: Screen) -> list[str]:
    """The CAs that the fleet trusts, and who still needs an older one."""
    rows = [
        (
            printable(authority.digest[:_TOKEN_DIGITS]),
            moment(authority.made_at),
            "signs" if authority.signs else "trusted",
            format_count(authority.host_count, "host"),
            printable(authority.digest),
        )
        for authority in authorities
    ]
    lines = table(_AUTHORITY_COLUMNS, rows, screen)
    for authority in authorities:
        if not authority.signs:
            names = ", ".join(printable(name) for name in authority.hosts) or "none"
            lines.append(f"Hosts that still need {authority.digest[:_TOKEN_DIGITS]}: {names}")
    return lines


def _copies(report: "StatReport", screen: Screen) -> list[str]:
    """How many copies there are, and why there are not more: in the same line where it has room."""
    if not report.complete_info:
        return [_INDENT + "Copies: unknown while the master is away"]
    replicas = report.replicas
    more = f", {format_count(replicas.under_way)} more under way" if replicas.under_way else ""
    line = f"{_INDENT}Copies: {format_count(replicas.complete)} of {format_count(replicas.wanted)} wanted{more}"
    if not replicas.why_not:
        return [line]
    why = printable(replicas.why_not)
    if screen.width is None or cells(f"{line}: {why}") <= screen.width:
        return [f"{line}: {why}"]
    return [f"{line}:", 2 * _INDENT + why]


def _here(local: "LocalCopy", total: int) -> list[str]:
    parts = [f"Here: {_state(local.state, local.doing)}"]
    if local.state == "none" and not local.doing:
        return parts
    if local.state != "complete":
        parts.append(percent(local.pieces, total))
    if local.ordered:
        parts.append("replica")  # where it lies concerns the daemon alone
    elif local.path:
        parts.append(place(local.path))
    if local.note:
        parts.append(printable(local.note))
    return parts


def _state(state: str, doing: str) -> str:
    """What a host has, or what it does to have more."""
    return {"none": "nothing"}.get(doing or state, printable(doing or state))


def _holder_row(host: "HolderReport", total: int) -> tuple[str, ...]:
    absent = host.host_state in ("suspect", "gone")
    return (
        printable(host.name),
        printable(host.zone),
        _state(host.state, host.doing) if host.host_state == "live" else printable(host.host_state),
        percent(host.pieces, total),
        f"not heard from for {format_duration(int(host.last_seen_s))}" if absent else _rates(host),
        printable(host.address),
    )


def _rates(host: "HolderReport") -> str:
    rates = [f"{way} {format_rate(rate)}" for way, rate in (("down", host.down), ("up", host.up)) if rate]
    return ", ".join([*rates, printable(host.note)] if host.note else rates)


def _transfer_row(transfer: "TransferReport") -> tuple[str, ...]:
    return (
        printable(transfer.name),
        short(transfer.id),
        printable(transfer.state),
        percent(transfer.bytes_done, transfer.size),
        format_rate(transfer.down) if transfer.down else "",
        time_left(transfer.bytes_done, transfer.size, transfer.down),
        format_count(transfer.peers, "host") if transfer.peers else "",
        printable(transfer.note),
    )
