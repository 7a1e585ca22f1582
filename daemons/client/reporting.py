"""What the daemon tells a person: its own files, and the fleet's as the master knows them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import trio

from interfiles.errors import MasterUnreachable, UnknownFile, printable
from interfiles.units import format_duration
from interfiles.wire import master_messages as m
from interfiles.wire.reports import (
    CopyState,
    DownloadReport,
    FileListReport,
    FileReport,
    HolderReport,
    HostListReport,
    HostReport,
    LimitReport,
    LocalCopy,
    ReplicaCount,
    StatReport,
    StatusReport,
    TransferReport,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemons.client.allowance import Allowance
    from daemons.client.callers import Caller
    from daemons.client.copies import Copier
    from daemons.client.library import Library
    from daemons.client.local_file import LocalFile
    from daemons.client.master_link import MasterLink
    from daemons.client.rate_gate import Limits
    from daemons.client.sources import Source
    from interfiles.storage.records import Identity
    from interfiles.wire.reports import ScrubReport


class Reporter:
    """Reads everything, changes nothing."""

    def __init__(
        self,
        library: Library,
        copier: Copier,
        link: MasterLink,
        identity: Identity,
        limits: Limits,
        allowance: Allowance,
        *,
        address: str,
        state: Path,
        scrub: Callable[[Caller], ScrubReport | None] = lambda _: None,
    ) -> None:
        self._library = library
        self._copier = copier
        self._link = link
        self._identity = identity
        self._limits = limits
        self._allowance = allowance
        self._address = address
        self._state = state
        self._scrub = scrub

    async def stat(self, source: Source, caller: Caller) -> StatReport:
        """Who has what of a file; only this host's part of it while the master is away.

        Where it lies here is told to whom it belongs.
        """
        manifest, file = source.manifest, self._library.find(source.manifest.file_id)
        page, holders = await self._holders(source)
        info = page.info if page is not None else None
        return StatReport(
            id=manifest.file_id.hex(),
            name=manifest.name,
            is_directory=manifest.is_directory,
            entries=len(manifest.entries),
            size=manifest.size,
            uploaded_at=info.uploaded_at if info else source.uploaded_at,
            uploaded_by=info.uploaded_by if info else source.uploaded_by,
            piece_size=manifest.piece_size,
            pieces=manifest.piece_count,
            hosts=[_holder_report(holder, manifest.piece_count) for holder in holders],
            replicas=self._replicas(source, page),
            expires_at=info.expires_at if info else 0,
            local=_local_copy(file, is_own=file is None or caller.owns(file)),
            complete_info=info is not None or self._link.is_connected,
        )

    def _replicas(self, source: Source, page: m.HolderPage | None) -> ReplicaCount:
        """The copies, as the master says, or as far as this host knows."""
        if page is not None:
            return ReplicaCount(
                wanted=page.info.replicas_wanted,
                complete=page.complete,
                under_way=page.under_way,
                why_not=page.why_not,
            )
        file = self._library.find(source.manifest.file_id)
        wanted = source.replicas or (file.record.replicas if file else 0) or self._link.replicas or 0
        return ReplicaCount(wanted=wanted, complete=int(file is not None and file.is_complete))

    async def _holders(self, source: Source) -> tuple[m.HolderPage | None, list[m.Holder]]:
        """The holders of a file, with the last page of them, if the master can be asked."""
        found: list[m.Holder] = []
        try:
            while True:
                page, _ = await self._link.request(
                    lambda n: m.ListHolders(n, source.manifest.file_id, len(found)), m.HolderPage
                )
                found.extend(page.holders)
                if not page.more or not page.holders:
                    return page, found
        except (MasterUnreachable, UnknownFile):
            file = self._library.find(source.manifest.file_id)
            if file is None:
                return None, []
            me = self._identity
            holding = file.holding(trio.current_time())
            mine = m.Holder(me.host_id, me.name, me.zone, self._address, "live", 0.0, holding)
            return None, [mine] if file.verified else []

    async def files(self, start: int) -> FileListReport:
        """A page of the fleet's files.

        Raises:
          MasterUnreachable: the master is away.
        """
        page, _ = await self._link.request(lambda n: m.ListFiles(n, start), m.FilePage)
        rows = [
            FileReport(
                id=row.info.file_id.hex(),
                name=row.info.name,
                size=row.info.size,
                entries=row.info.entries,
                uploaded_at=row.info.uploaded_at,
                uploaded_by=row.info.uploaded_by,
                replicas_wanted=row.info.replicas_wanted,
                complete=row.complete,
                partial=row.partial,
                local=_local_state(self._library.find(row.info.file_id)),  # type: ignore[arg-type]
                under_way=row.under_way,
                why_not=row.why_not,
                expires_at=row.info.expires_at,
            )
            for row in page.files
        ]
        return FileListReport(files=rows, next_start=start + len(rows) if page.more else None)

    async def hosts(self) -> HostListReport:
        """All hosts of the fleet.

        Raises:
          MasterUnreachable: the master is away.
        """
        rows: list[m.HostRow] = []
        while True:
            page, _ = await self._link.request(lambda n: m.ListHosts(n, len(rows)), m.HostPage)
            rows.extend(page.hosts)
            if not page.more or not page.hosts:
                return HostListReport(hosts=[_host_report(row) for row in rows])

    def status(self, caller: Caller) -> StatusReport:
        """This daemon: who it is and what it does. Single files are listed to whom they belong."""
        now, (used, free) = trio.current_time(), self._allowance.room()
        files = list(self._library)
        transfers = [
            TransferReport(
                id=file.file_id.hex(),
                name=file.manifest.name,
                path=os.fsdecode(file.record.path),
                state=file.doing,
                size=file.manifest.size,
                bytes_done=file.bytes_done,
                down=file.rates(now)[0],
                peers=file.connected,
                note=self.waiting_for(file) if file.phase == "waiting" else file.note,
                priority=file.record.priority,
            )
            for file in files
            if not file.is_complete and caller.owns(file)
        ]
        transfers += [
            TransferReport(
                id=copy.file.file_id.hex(),
                name=copy.file.manifest.name,
                path=str(copy.destination),
                state="copying",
                size=copy.progress.total,
                bytes_done=copy.progress.done,
                down=0,
                peers=0,
                note="",
            )
            for copy in self._copier
            if caller.is_allowed(copy.record.owner)
        ]
        return StatusReport(
            host=self._identity.host_id,
            name=self._identity.name,
            zone=self._identity.zone,
            fleet=self._identity.fleet,
            address=self._link.address or self._address,
            master=self._link.master,
            master_state="connected" if self._link.is_connected else "connecting",
            master_note=self._link.note,
            state_directory=str(self._state),
            files=sum(file.is_complete for file in files),
            used=used,
            free=free,
            down=sum(file.rates(now)[0] for file in files),
            up=sum(file.rates(now)[1] for file in files),
            transfers=transfers,
            held=[
                file.file_id.hex() for file in files if file.verified and file.store is not None and caller.owns(file)
            ],
            limit_down=self._limits.down.rate,
            limit_up=self._limits.up.rate,
            scrub=self._scrub(caller),
        )

    def limits(self) -> LimitReport:
        """The limits, and how quickly content moves."""
        now, files = trio.current_time(), list(self._library)
        rates = [file.rates(now) for file in files]
        return LimitReport(
            limit_down=self._limits.down.rate,
            limit_up=self._limits.up.rate,
            down=sum(down for down, _ in rates),
            up=sum(up for _, up in rates),
            bytes_down=sum(file.down.total for file in files),
            bytes_up=sum(file.up.total for file in files),
        )

    def waiting_for(self, file: LocalFile) -> str:
        """What a download without a source waits for, in words."""
        name = printable(file.manifest.name)
        if file.note:
            return f"{file.note}; it is tried again by itself"
        if not self._link.is_connected:
            return f"no peer answers for {name} and the master at {self._link.master} is away ({self._link.note})"
        if file.peers:
            return f"the hosts that are up have nothing more of {name}, or do not answer"
        if file.absent:
            since = trio.current_time() - file.handed_out_at
            seen = ", ".join(
                f"{absent.name} has it, last seen {format_duration(absent.last_seen_s + since)} ago"
                for absent in file.absent
            )
            return f"no host that is up has {name} ({seen})"
        return f"no host has {name}, which {file.record.uploaded_by} uploaded"


def download_report(file: LocalFile, path: Path, state: Literal["complete", "detached"]) -> DownloadReport:
    """A download's result; `path` is where the caller wanted it."""
    record = file.record
    return DownloadReport(
        id=file.file_id.hex(),
        name=file.manifest.name,
        path=str(path),
        size=file.manifest.size,
        seconds=round(record.seconds, 3),
        state=state,
        bytes_from_peers=dict(record.bytes_from_peers),
        bytes_local=record.bytes_local,
        pieces_rejected=record.pieces_rejected,
    )


def here_report(
    file: LocalFile, path: Path, state: Literal["complete", "detached"], *, seconds: float
) -> DownloadReport:
    """The result of a download whose content was on this host already."""
    return DownloadReport(
        id=file.file_id.hex(),
        name=file.manifest.name,
        path=str(path),
        size=file.manifest.size,
        seconds=round(seconds, 3),
        state=state,
        bytes_from_peers={},
        bytes_local=file.manifest.size,
        pieces_rejected=0,
    )


def _local_state(file: LocalFile | None) -> CopyState:
    if file is None or (not file.verified and not file.is_complete):
        return "none"
    return "complete" if file.is_complete else "partial"


def _local_copy(file: LocalFile | None, *, is_own: bool) -> LocalCopy:
    if file is None:
        return LocalCopy(state="none", pieces=0, path="", doing="", note="")
    return LocalCopy(
        state=_local_state(file),
        pieces=len(file.verified),
        path=os.fsdecode(file.record.path) if is_own else "",
        doing="" if file.is_complete else file.doing,
        note=file.note if is_own else "",
        ordered=file.record.ordered,
    )


def _holder_report(holder: m.Holder, pieces: int) -> HolderReport:
    holding = holder.holding
    complete = holding.state == "complete"
    state: CopyState = "complete" if complete else "partial" if holding.pieces else "none"
    return HolderReport(
        host=holder.host_id,
        name=holder.name,
        zone=holder.zone,
        address=holder.address,
        state=state,
        pieces=pieces if complete else holding.pieces,
        doing="" if complete else holding.state,
        host_state=holder.host_state,
        last_seen_s=holder.last_seen_s,
        down=holding.down,
        up=holding.up,
        note=holding.note,
        ordered=holding.ordered,
    )


def _host_report(row: m.HostRow) -> HostReport:
    return HostReport(
        host=row.host_id,
        name=row.name,
        zone=row.zone,
        address=row.address,
        state=row.state,
        files=row.files,
        used=row.used,
        free=row.free,
        last_seen_s=row.last_seen_s,
        ordered=row.ordered,
        arriving=row.arriving,
        to_move=row.to_move,
        note=row.note,
    )
