"""The Unix socket's other end: one request of the CLI or the Python API a connection, progress streamed back."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog
import trio

from daemons.client.callers import Call, Caller, Calls, who_calls
from daemons.client.handovers import receive_place
from daemons.client.hashing_progress import PROGRESS_S, HashingProgress, shown
from daemons.client.local_file import COMPLETE_STATES
from daemons.client.reporting import Reporter, download_report, here_report
from daemons.client.uploads import Wish
from daemons.supervision import first_leaf
from interfiles.errors import (
    DestinationExists,
    InterFilesError,
    LocalProtocolError,
    NoSource,
    NoSpace,
    NotPermitted,
    PeerSilent,
    Refused,
    RemoteProtocolError,
    TimedOut,
    UnknownFile,
    VerificationFailed,
    printable,
)
from interfiles.piece_set import PieceSet
from interfiles.transport.message_stream import MessageStream, welcome
from interfiles.transport.plain import SocketTransport
from interfiles.transport.unix import caller_uid
from interfiles.wire import control_messages as c
from interfiles.wire import master_messages as m
from interfiles.wire.reports import (
    RemoveReport,
    Report,
    TransferStateReport,
    VerifyReport,
    encode_report,
)

if TYPE_CHECKING:
    from daemons.client.copies import Copier, Copy
    from daemons.client.downloads import Downloader
    from daemons.client.library import Library
    from daemons.client.local_file import LocalFile
    from daemons.client.master_link import MasterLink
    from daemons.client.rate_gate import Limits
    from daemons.client.replica_requests import ReplicaRequests
    from daemons.client.replicas import Replicas
    from daemons.client.sources import Sources
    from daemons.client.transfers import Transfers
    from daemons.client.uploads import Uploader
    from interfiles.manifest import FileId
    from interfiles.transport.base import Transport
    from interfiles.wire.codec import Message

REQUEST_TIMEOUT_S: Final = 30.0  # for the caller to say what it wants, a large tracker file included
NO_PEER_YET_S: Final = 1.0  # before "waiting" is shown: finding peers takes a moment

log = structlog.get_logger()


class ControlServer:
    """Answers requests; each handler reads like the command's description."""

    def __init__(
        self,
        library: Library,
        link: MasterLink,
        transfers: Transfers,
        uploader: Uploader,
        downloader: Downloader,
        copier: Copier,
        sources: Sources,
        reporter: Reporter,
        limits: Limits,
        replicas: Replicas,
        replica_requests: ReplicaRequests,
        *,
        group: int | None = None,
    ) -> None:
        self._library = library
        self._link = link
        self._transfers = transfers
        self._uploader = uploader
        self._downloader = downloader
        self._copier = copier
        self._sources = sources
        self._reporter = reporter
        self._limits = limits
        self._replicas = replicas
        self._replica_requests = replica_requests
        self._group = group
        self._calls = Calls()

    async def handle(self, transport: Transport) -> None:
        """One connection: greet, find out who calls, answer one request; abandon it when the caller leaves.

        Another user with too many of them is given no answer.

        Raises:
          TransportError, ProtocolError: the conversation broke.
        """
        uid = caller_uid(transport) if isinstance(transport, SocketTransport) else 0
        if uid in (0, os.geteuid()):
            await self._converse(transport)
            return
        with self._calls.counted(uid) as is_room:
            if is_room:
                await self._converse(transport)
            else:
                log.info("a user calls too often", uid=uid)

    async def _converse(self, transport: Transport) -> None:
        stream, _ = await welcome(transport, "control", lambda: "local")
        try:
            caller = who_calls(transport, self._group)
            with trio.move_on_after(REQUEST_TIMEOUT_S) as scope:
                request = await stream.receive()
                with self._sized(caller, stream.payload_left):
                    payload = await stream.receive_payload()
                    scope.deadline = float("inf")
                    await self._carry_out(Call(stream, caller), request, payload)
            if scope.cancelled_caught:
                raise PeerSilent(f"no request came within {REQUEST_TIMEOUT_S:.0f} s")
        except* LocalProtocolError:
            raise  # a bug of ours
        except* InterFilesError as group:
            await _tell(stream, group)
        finally:
            stream.close()

    def _sized(self, caller: Caller, payload_bytes: int) -> AbstractContextManager[None]:
        return nullcontext() if caller.owner is None else self._calls.sized(caller.owner.uid, payload_bytes)

    async def _carry_out(self, call: Call, request: Message, payload: bytes) -> None:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(call.listen, nursery.cancel_scope)
                await self._answer(call, request, payload)
                nursery.cancel_scope.cancel()
        finally:
            call.close()

    async def _answer(self, call: Call, request: Message, payload: bytes) -> None:
        report: Report
        match request:
            case c.Upload():
                await self._upload(call, request)
                return
            case c.Download():
                report = await self._download(call, request, payload)
            case c.Wait():
                report = await self._wait(call, request, payload)
            case c.Verify():
                report = await self._verify(call, request, payload)
            case c.Remove():
                report = await self._remove(call.caller, request, payload)
            case c.SetReplicas():
                report = await self._replica_requests.set(call.caller, request, payload)
            case c.WaitReplicas():
                report = await self._replica_requests.wait(call, request, payload)
            case c.Pause() | c.Resume():
                report = await self._set_paused(call.caller, request, payload)
            case _:
                report = await self._look(call.caller, request, payload)
        await call.say(c.Result(), encode_report(report))

    async def _look(self, caller: Caller, request: Message, payload: bytes) -> Report:
        """Answer what only asks how things are, or for limits."""
        match request:
            case c.Stat():
                return await self._reporter.stat(await self._sources.find(request.query, payload), caller)
            case c.ListFiles():
                return await self._reporter.files(request.start)
            case c.ListHosts():
                return await self._reporter.hosts()
            case c.Status():
                return self._reporter.status(caller)
            case c.Limit():
                self._limits.change(caller, request)
                return self._reporter.limits()
            case _:
                raise RemoteProtocolError(f"{type(request).__name__} is not a request")

    async def _find_own(self, caller: Caller, query: str, payload: bytes) -> LocalFile:
        """This host's file, if it is the caller's to command."""
        file = await self._sources.find_here(query, payload)
        caller.check_owns(file)
        return file

    # Commands that take time

    async def _upload(self, call: Call, request: c.Upload) -> None:
        progress, wish = HashingProgress(), Wish(request.replicas, request.expire_s)
        async with shown(call, "hashing", progress):
            if call.caller.owner is not None:
                made = self._uploader.upload_handed(call, wish=wish, copy=request.copy, progress=progress)
            else:
                path = Path(os.fsdecode(request.path))
                made = self._uploader.upload(path, wish=wish, copy=request.copy, progress=progress)
            report, tracker = await made
        await call.say(c.Result(), encode_report(report))
        await call.say(c.TrackerContent(), tracker)

    async def _download(self, call: Call, request: c.Download, payload: bytes) -> Report:
        source, began = await self._sources.find(request.query, payload), trio.current_time()
        directory, owner, place = Path(os.fsdecode(request.directory)), None, None
        if call.caller.owner is not None:
            owner, place = await receive_place(call, directory, self._library.disks)
        compared = HashingProgress(name=source.manifest.name, total=source.manifest.size)
        async with shown(call, "checking", compared):
            taken = await self._downloader.start(
                *(source, directory),
                overwrite=request.overwrite,
                progress=compared.add,
                priority=request.priority,
                owner=owner,
                place=place,
            )
        if taken.copy is not None and request.detach:
            return here_report(taken.file, taken.destination, "detached", seconds=0.0)
        if taken.copy is not None:
            await self._show_copying(call, taken.copy)
        if taken.is_here:
            return here_report(taken.file, taken.destination, "complete", seconds=trio.current_time() - began)
        if request.detach and not taken.file.is_complete:
            return download_report(taken.file, taken.destination, "detached")
        return await self._follow(call, taken.file, request.timeout_s, taken.destination)

    async def _wait(self, call: Call, request: c.Wait, payload: bytes) -> Report:
        file, began = await self._find_own(call.caller, request.query, payload), trio.current_time()
        if file.is_complete and (copies := self._copier.of(file.file_id)):
            for copy in copies:
                await self._show_copying(call, copy)
            return here_report(file, copies[-1].destination, "complete", seconds=trio.current_time() - began)
        return await self._follow(call, file, request.timeout_s, Path(os.fsdecode(file.record.path)))

    async def _follow(self, call: Call, file: LocalFile, timeout_s: float | None, destination: Path) -> Report:
        """Stream a download's progress until it is complete; the caller may leave at any time.

        `timeout_s`: seconds without any progress after which to give up watching.
        """
        if await self._show_fetching(call, file, float("inf") if timeout_s is None else timeout_s):
            return download_report(file, destination, "complete")
        short = file.file_id.hex()[:12]
        if file.phase == "waiting" or not file.verified:
            why = self._reporter.waiting_for(file)
            raise NoSource(f"{why}; the download stays queued: interfiles wait {short}, or rm --local {short}")
        why = f" ({printable(file.note)})" if file.note else ""
        error = NoSpace if isinstance(file.failure, NoSpace) else TimedOut
        raise error(
            f"{file.label} got nothing for {timeout_s:g} s{why}; the download stays queued: interfiles wait {short}"
        )

    async def _show_fetching(self, call: Call, file: LocalFile, timeout_s: float) -> bool:
        """Return True once the file is complete, False after `timeout_s` without progress.

        A download that fails and is tried again and again makes none: what it checks anew each time does not count.
        """
        moved_at, waiting_since = trio.current_time(), float("inf")
        best, best_checked = -1, -1
        known = file.failure  # from before: whoever asks now may just have mended the cause
        while not file.is_complete:
            if file.failure is not known and isinstance(file.failure, (DestinationExists, NotPermitted)):
                raise type(file.failure)(f"{file.failure}; the download stays queued, and is tried again by itself")
            if file.record.state in ("paused", "withdrawn") or self._library.find(file.file_id) is not file:
                raise Refused(f"the download of {file.label} was stopped: {file.refusal or file.record.state}")
            if file.record.state in COMPLETE_STATES:
                raise VerificationFailed(
                    f"{file.label} has pieces on disk that do not match their hashes; interfiles download fetches them "
                    "again (with --overwrite, where it was uploaded from here)"
                )
            now, done = trio.current_time(), file.bytes_done + file.down.total
            if done > best or file.checked_bytes > best_checked or (file.phase == "finishing" and not file.failure):
                moved_at = now
            best, best_checked = max(best, done), max(best_checked, file.checked_bytes)
            if now - moved_at >= timeout_s:
                return False
            phase: c.Phase = "fetching" if file.phase == "idle" else file.phase
            waiting_since = min(waiting_since, now) if phase == "waiting" else float("inf")
            if phase == "waiting" and now - waiting_since < NO_PEER_YET_S:
                phase = "fetching"
            text = self._reporter.waiting_for(file) if phase == "waiting" else printable(file.note)
            await call.say(
                c.Progress(
                    phase,
                    file.manifest.name,
                    file.checked_bytes if phase == "checking" else file.bytes_done,
                    file.manifest.size,
                    int(file.down.rate(now)),
                    file.connected,
                    text[:1000],
                )
            )
            seen = file.changed.count
            await trio.sleep(PROGRESS_S)
            with trio.move_on_after(min(1.0, max(0.0, moved_at + timeout_s - now))):  # a sign of life if nothing moves
                await file.changed.later_than(seen)
        return True

    async def _show_copying(self, call: Call, copy: Copy) -> None:
        """Stream a copy's progress until it is made; the caller may leave at any time."""
        async with shown(call, "checking", copy.progress):
            await copy.ended.wait()
        if copy.failure is not None:
            raise copy.failure

    async def _verify(self, call: Call, request: c.Verify, payload: bytes) -> Report:
        file = await self._find_own(call.caller, request.query, payload)
        await self._library.check_unchanged(file)
        pieces = (
            PieceSet.full(file.manifest.piece_count)
            if file.record.state in ("seeding", "complete")
            else file.verified.copy()
        )
        progress, began = HashingProgress(name=file.manifest.name, total=file.manifest.size), trio.current_time()
        async with shown(call, "verifying", progress):
            good = await self._library.check(file, pieces, progress.add)
        bad = [piece for piece in pieces if piece not in good]
        if bad:
            await self._library.report_bad(file, bad)
        whole = self._library.find(file.file_id) is file and file.record.state in COMPLETE_STATES
        return VerifyReport(
            id=file.file_id.hex(),
            name=file.manifest.name,
            path=os.fsdecode(file.record.path),
            size=file.manifest.size,
            pieces=file.manifest.piece_count,
            checked=len(pieces),
            complete=whole,
            bad_pieces=list(map(int, bad)),
            seconds=round(trio.current_time() - began, 3),
            ordered=file.record.ordered,
        )

    # Commands that are quick

    async def _remove(self, caller: Caller, request: c.Remove, payload: bytes) -> Report:
        hosts, file = 0, None
        if request.local:
            file = await self._find_own(caller, request.query, payload)
            manifest = file.manifest
        else:
            manifest = (await self._sources.find(request.query, payload)).manifest
            file = self._library.find(manifest.file_id)
            if file is not None:
                caller.check_owns(file)
            else:
                caller.check_commands_fleet(manifest.name)
            hosts = await self._remove_everywhere(manifest.file_id, request, is_here=file is not None)
        path = os.fsdecode(file.record.path) if file is not None and file.record.part is None else ""
        ordered = file is not None and file.record.ordered
        deleted = file is not None and (file.record.owned or (request.delete and not file.record.in_place))
        if file is not None:
            await self._copier.stop(file.file_id)
            if request.local:
                await self._replicas.keep_away(file.file_id)
            await self._transfers.remove(file, delete=request.delete, everywhere=not request.local)
        return RemoveReport(
            id=manifest.file_id.hex(), name=manifest.name, hosts=hosts, deleted=deleted, path=path, ordered=ordered
        )

    async def _remove_everywhere(self, file_id: FileId, request: c.Remove, *, is_here: bool) -> int:
        """Have the master take a file out of the fleet; return how many other hosts had some of it."""
        try:
            answer, _ = await self._link.request(lambda n: m.Remove(n, file_id, request.delete), m.Removed)
        except UnknownFile:
            if not is_here:
                raise
            return 0  # never published, or removed already: only this host has it
        return answer.hosts - 1 if is_here and answer.hosts else answer.hosts

    async def _set_paused(self, caller: Caller, request: c.Pause | c.Resume, payload: bytes) -> Report:
        file = await self._find_own(caller, request.query, payload)
        if isinstance(request, c.Pause):
            await self._transfers.pause(file)
        else:
            await self._transfers.resume(file)
        return TransferStateReport(id=file.file_id.hex(), name=file.manifest.name, state=file.record.state)


async def _tell(stream: MessageStream[Message], group: BaseExceptionGroup[InterFilesError]) -> None:
    error = first_leaf(group)
    if isinstance(error, InterFilesError):
        await stream.fail(error.code, str(error))
