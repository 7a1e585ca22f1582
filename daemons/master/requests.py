"""Answers to what registered hosts ask: the catalogue, the holders of a file, the hosts."""

from contextlib import nullcontext
from typing import Final, TypeAlias, assert_never

import structlog
import trio
from msgspec.structs import replace

from daemons.master.connection import Connection
from daemons.master.fleet import Fleet
from interfiles.errors import InterFilesError, InvalidManifest, LocalProtocolError, UnknownFile
from interfiles.manifest import Manifest
from interfiles.storage.executor import Executor
from interfiles.units import format_count
from interfiles.wire.fields import MAX_TEXT_LENGTH
from interfiles.wire.master_messages import (
    MAX_NOTE_LENGTH,
    PAGE_ROWS,
    FileInfo,
    FilePage,
    FileRow,
    Forget,
    HolderPage,
    Holding,
    HostPage,
    HostRow,
    ListFiles,
    ListHolders,
    ListHosts,
    Publish,
    Published,
    Remove,
    Removed,
    Renew,
    Renewed,
    ReplicasSet,
    RequestFailed,
    Resolve,
    Resolved,
    SetReplicas,
)

LARGE_PAYLOAD_BYTES: Final = 1 << 20
MAX_LARGE_PAYLOADS: Final = 4  # over all hosts: manifests of up to 64 MiB, and what decoding one takes
Request: TypeAlias = Publish | Resolve | ListHolders | ListFiles | ListHosts | Remove | Renew | SetReplicas

log = structlog.get_logger()


class Requests:
    """Answers, any number at once; who calls bounds how many. `compute` is where manifests are decoded.

    `large_payloads`: to be held while a payload over `LARGE_PAYLOAD_BYTES` is in memory.
    """

    def __init__(self, fleet: Fleet, compute: Executor) -> None:
        self.large_payloads: Final = trio.Semaphore(MAX_LARGE_PAYLOADS)
        self._fleet = fleet
        self._compute = compute

    async def serve(self, asked: Request, payload: bytes, connection: Connection) -> None:
        """Do what a host asks and send it the answer, or in words why it cannot be done.

        Cancellation:
          Leaves what was done half neither on disk nor in memory; the host does not hear of it.
        """
        try:
            await self._serve(asked, payload, connection)
        except LocalProtocolError:
            raise
        except InterFilesError as e:
            await connection.answer(RequestFailed(asked.request, e.code, str(e)[:MAX_TEXT_LENGTH]))

    async def _serve(self, asked: Request, payload: bytes, connection: Connection) -> None:
        match asked:
            case Publish():
                await connection.answer(await self._publish(asked, payload, connection))
            case Resolve():
                await self._resolve(asked, connection)
            case ListHolders():
                await connection.answer(await self._list_holders(asked))
            case ListFiles():
                await connection.answer(await self._list_files(asked))
            case ListHosts():
                await connection.answer(self._list_hosts(asked))
            case Remove():
                removed = await self._fleet.remove_file(asked.file_id, delete=asked.delete, host=connection.host_id)
                await connection.answer(Removed(asked.request, removed))
            case SetReplicas():
                await connection.answer(await self._set_replicas(asked))
            case Renew():
                issued = await self._fleet.renew(connection.host_id, asked.signing_request)
                await connection.answer(Renewed(asked.request, issued.chain, self._fleet.trust.certificates))
                await self._fleet.trust.retire_if_unneeded()
            case _:
                assert_never(asked)

    async def _publish(self, asked: Publish, payload: bytes, connection: Connection) -> Published:
        replicas = asked.replicas or self._fleet.replicas
        connection.publishing.add(asked.file_id)
        try:
            described = await self._compute.run(_describe, payload, asked, connection.name, replicas)
            info = await self._fleet.stored(
                self._fleet.catalogue.publish,
                *(described, payload),
                keep_replicas=asked.replicas == 0,
                again=asked.again,
            )
        except UnknownFile:
            connection.push(Forget(asked.file_id, False))
            raise
        finally:
            connection.publishing.discard(asked.file_id)
        # who publishes holds it all: said at once, so that a `stat` right after the upload counts it
        holding = Holding(asked.file_id, "complete", info.pieces, 0, 0, "", False)
        if connection.reason is None:
            self._fleet.touch(self._fleet.registry.apply(connection.host_id, [holding], replace=False))
        self._fleet.reconciler.touch([asked.file_id])  # it may want another number of copies
        self._fleet.events.add(
            "published", host=connection.host_id, file=info.file_id, file_name=info.name, size=info.size
        )
        return Published(asked.request, info, self._fleet.reconciler.view().able(trio.current_time()))

    async def _set_replicas(self, asked: SetReplicas) -> ReplicasSet:
        info = await self._fleet.stored(self._fleet.catalogue.set_replicas, asked.file_id, asked.replicas)
        self._fleet.reconciler.touch([asked.file_id])
        log.info("other number of copies", file=info.name, id=info.file_id[:6], replicas=asked.replicas)
        return ReplicasSet(asked.request, info, self._fleet.reconciler.view().able(trio.current_time()))

    async def _resolve(self, asked: Resolve, connection: Connection) -> None:
        catalogue = self._fleet.catalogue
        info = await self._fleet.stored(catalogue.find, asked.query)
        if not asked.with_manifest:
            await connection.answer(Resolved(asked.request, info))
            return
        size = await self._fleet.stored(catalogue.manifest_size, info.file_id)
        async with self.large_payloads if size > LARGE_PAYLOAD_BYTES else nullcontext():
            manifest = await self._fleet.stored(catalogue.manifest, info.file_id)
            await connection.answer(Resolved(asked.request, info), manifest)

    async def _list_holders(self, asked: ListHolders) -> HolderPage:
        info = await self._fleet.stored(self._fleet.catalogue.file, asked.file_id)
        registry, now = self._fleet.registry, trio.current_time()
        rows, more = registry.holder_page(asked.file_id, asked.start, now)
        outlook = self._fleet.reconciler.outlook(info.file_id, info.size, info.replicas_wanted)
        stand, why, able = outlook.standing, outlook.why_not[:MAX_NOTE_LENGTH], self._fleet.reconciler.view().able(now)
        return HolderPage(asked.request, info, stand.complete, rows, more, stand.under_way, why, able)

    async def _list_files(self, asked: ListFiles) -> FilePage:
        page, more = await self._fleet.stored(self._fleet.catalogue.files, asked.start, PAGE_ROWS)
        copies = self._fleet.reconciler.view().copies([info.file_id for info in page])
        rows = [self._file_row(info, copies[info.file_id].partial) for info in page]
        return FilePage(asked.request, rows, more)

    def _file_row(self, info: FileInfo, partial: int) -> FileRow:
        outlook = self._fleet.reconciler.outlook(info.file_id, info.size, info.replicas_wanted, quickly=True)
        stand = outlook.standing
        return FileRow(info, stand.complete, partial, stand.under_way, outlook.why_not[:MAX_NOTE_LENGTH])

    def _note_on(self, row: HostRow) -> str:
        """What else there is to say of a host: that it drains though it is not up, or why it is given no copies."""
        registry, reconciler = self._fleet.registry, self._fleet.reconciler
        if registry.is_draining(row.host_id) and row.state != "draining":
            left = reconciler.drains.to_move(row.host_id)
            files = "looking what is to be moved" if left is None else f"{format_count(left, 'file')} to move"
            return f"it drains, and is not up: {files}"
        if (why := reconciler.why_no_orders(row.host_id)) or row.state != "live" or row.free:
            return why
        return "it has no room for copies; its client's --quota and --keep-free say how much there may be"

    def _list_hosts(self, asked: ListHosts) -> HostPage:
        """A page of hosts: what the registry knows, and how they stand with the copies that they are to hold."""
        reconciler = self._fleet.reconciler
        rows, more = self._fleet.registry.host_page(asked.start, trio.current_time())
        rows = [
            replace(
                row,
                arriving=reconciler.arriving(row.host_id),
                to_move=reconciler.drains.to_move(row.host_id) if row.state == "draining" else None,
                note=self._note_on(row),
            )
            for row in rows
        ]
        return HostPage(asked.request, rows, more)


def _describe(payload: bytes, asked: Publish, uploaded_by: str, replicas: int) -> FileInfo:
    """Check a manifest; called in a thread, as a large one takes a second.

    Raises:
      InvalidManifest: it breaks a rule, or is not the one that was named.
    """
    manifest = Manifest.decode(payload)
    if manifest.file_id != asked.file_id:
        raise InvalidManifest(
            f"the manifest of {manifest.file_id.hex()[:12]} was published as {asked.file_id.hex()[:12]}"
        )
    return FileInfo(
        file_id=manifest.file_id,
        name=manifest.name,
        is_directory=manifest.is_directory,
        entries=len(manifest.entries),
        size=manifest.size,
        piece_size=manifest.piece_size,
        pieces=manifest.piece_count,
        uploaded_at=asked.uploaded_at,
        uploaded_by=uploaded_by,
        replicas_wanted=replicas,
        expires_at=asked.expires_at,
    )
