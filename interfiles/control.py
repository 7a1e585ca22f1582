"""The Python API: what a program, and the CLI, ask of the daemons on this host.

    async with interfiles.connect() as daemon:
        report = await daemon.download("weights.tracker", directory="/data")

Every operation opens its own connection, so that any number may run at once. A *source* says which file is meant: the
path of a tracker file, or a file id, unambiguous id prefix or name that the fleet knows; see `read_source`. Progress
goes to a callback, which must be quick and not block. Errors are those of `interfiles.errors`, in words for a person.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec
import trio

from interfiles import locations
from interfiles.control_socket import ControlSocket, ProgressCallback, converse
from interfiles.errors import InterFilesError, RemoteProtocolError, UsageError
from interfiles.priority import Priority
from interfiles.source import Source, read_source
from interfiles.tracker_place import TrackerPlace, absolute, real
from interfiles.units import format_duration
from interfiles.wire import control_messages as messages
from interfiles.wire.reports import (
    DownloadReport,
    FileListReport,
    FileReport,
    HostListReport,
    HostReport,
    LimitReport,
    RemoveReport,
    ReplicasReport,
    StatReport,
    StatusReport,
    TransferStateReport,
    UploadReport,
    VerifyReport,
)

AnyPath = str | os.PathLike[str]
AnySource = AnyPath | Source

_GOES_ON: Final = "before the download was done; start it again, and the download goes on by itself"
_ABANDONED: Final = "before the upload was done; start it again and repeat the upload"


@asynccontextmanager
async def connect(socket: AnyPath | None = None) -> AsyncIterator["Daemon"]:
    """Find the client daemon of this host, and check that it answers.

    `socket`: its Unix socket; None: INTERFILES_SOCKET, or where this user's daemon puts it by default, or if there is
    none, that of the system, where this user may use it.

    Raises:
      DaemonUnreachable: no daemon answers there.
      NotPermitted: the socket or the daemon is another user's.
    """
    daemon = Daemon(locations.socket_to_ask() if socket is None else Path(socket))
    await daemon.check()
    yield daemon


class Daemon:
    """The client daemon at a Unix socket; `connect` makes one that was seen to answer.

    Raises, from every method beside what it names:
      DaemonUnreachable: the daemon does not answer, or went away meanwhile.
      NotPermitted: the socket or the daemon is another user's.
      MasterUnreachable: only the master can answer, and the daemon has no connection to it.
      PathNotFound, InvalidTrackerFile: of a source that is a path.
      UnknownFile: of a source that is not.
      InterFilesError: the daemon refuses, in its words.
    """

    def __init__(self, socket: Path) -> None:
        self._socket = ControlSocket(socket, "control")

    async def check(self) -> None:
        """Connect, greet, and close."""
        async with self._socket.open():
            pass

    async def upload(
        self,
        path: AnyPath,
        *,
        replicas: int | None = None,
        copy: bool = False,
        expire_in_s: float | None = None,
        tracker: AnyPath | None = None,
        on_progress: ProgressCallback | None = None,
    ) -> UploadReport:
        """Hash a file or directory, serve it from where it is, and write its tracker file.

        `replicas`: wanted copies; None: the master's default. `copy`: serve a copy in the daemon's state directory.
        `expire_in_s`: seconds after which it is removed from the fleet by itself, a minute at least; None: never, or as
        an earlier upload of the same said. `tracker`: a directory or path for the tracker file; None: NAME.tracker in
        the current directory. Its place is checked before the work begins; a tracker file that is there is replaced, in
        one step, at the end.

        Raises:
          UsageError: `expire_in_s` is too short.
          PathNotFound: the path is not there or cannot be sent, or the tracker file's directory is not there.
          DestinationExists: something that is no tracker file is where the tracker file should go.
          NotPermitted, NoSpace, StorageFailed: the content cannot be read or the tracker file not written.
          InvalidManifest: a name or symlink in the content is not fit to be sent.

        Cancellation:
          Abandons the upload; no tracker file is written.
        """
        from interfiles.handing import HandingContent

        if expire_in_s is not None and expire_in_s < messages.MIN_EXPIRE_S:
            least = format_duration(messages.MIN_EXPIRE_S)
            raise UsageError(f"a file expires in {least} at the earliest; {format_duration(expire_in_s)} is too soon")
        content = await trio.to_thread.run_sync(absolute, path)
        place = await trio.to_thread.run_sync(TrackerPlace.choose, content, tracker)
        request = messages.Upload(os.fsencode(content), replicas, copy, expire_in_s)
        async with self._socket.open(if_gone=_ABANDONED) as stream:
            report = await converse(
                stream, request, UploadReport, on_progress=on_progress, handing=HandingContent(content)
            )
            received = await stream.receive()
            if not isinstance(received, messages.TrackerContent):
                raise RemoteProtocolError(f"{type(received).__name__} came in place of the tracker file")
            encoded = await stream.receive_payload()
        try:
            await trio.to_thread.run_sync(place.write, encoded)
        except InterFilesError as e:
            raise type(e)(f"{e} (the upload itself is done: others can use its id, {report.id[:12]})") from e
        return _with_tracker(report, place.path)

    async def download(
        self,
        source: AnySource,
        *,
        directory: AnyPath = ".",
        overwrite: bool = False,
        detach: bool = False,
        timeout_s: float | None = None,
        priority: Priority | None = None,
        on_progress: ProgressCallback | None = None,
    ) -> DownloadReport:
        """Fetch a file into `directory`, under its own name, and wait until it is there, verified.

        `overwrite`: replace what is there under that name. `detach`: return once the daemon has taken the download on.
        `timeout_s`: seconds to wait for a first source, and between two pieces; None: for ever. `priority`: beside
        other downloads; None: normal, or what it was where it is under way already.

        Raises:
          DestinationExists: other content is there already.
          NoSpace: the disk has less room than the file needs.
          TimedOut: nothing came for `timeout_s`.

        Cancellation:
          Detaches: the daemon goes on, and `wait` watches it again.
        """
        from interfiles.handing import HandingPlace

        found = await _resolve(source)
        place = await trio.to_thread.run_sync(real, directory)
        request = messages.Download(found.query, os.fsencode(place), overwrite, detach, timeout_s, priority)
        return await self._socket.ask(
            *(request, DownloadReport),
            content=found.content,
            on_progress=on_progress,
            handing=HandingPlace(place),
            if_gone=_GOES_ON,
        )

    async def wait(
        self, source: AnySource, *, timeout_s: float | None = None, on_progress: ProgressCallback | None = None
    ) -> DownloadReport:
        """Watch a download that was detached until it is done.

        Raises:
          TimedOut: nothing came for `timeout_s` seconds.

        Cancellation:
          Stops watching; the download goes on.
        """
        found = await _resolve(source)
        request = messages.Wait(found.query, timeout_s)
        return await self._socket.ask(
            request, DownloadReport, content=found.content, on_progress=on_progress, if_gone=_GOES_ON
        )

    async def set_replicas(self, source: AnySource, replicas: int) -> ReplicasReport:
        """Want another number of copies of a file; the master has them made, or given up, by itself."""
        found = await _resolve(source)
        request = messages.SetReplicas(found.query, replicas)
        return await self._socket.ask(request, ReplicasReport, content=found.content)

    async def wait_for_replicas(
        self,
        source: AnySource,
        replicas: int | None = None,
        *,
        timeout_s: float | None = None,
        on_progress: ProgressCallback | None = None,
    ) -> ReplicasReport:
        """Wait until a file has so many complete copies, whether this host has it or not.

        `replicas` None: as many as are wanted, or as there are hosts that can hold one, if those are fewer. While the
        master is away, this goes on to wait.

        Raises:
          TimedOut: there are too few after `timeout_s` seconds in all; the sentence says how many, and why.

        Cancellation:
          Stops watching; copies are made all the same.
        """
        found = await _resolve(source)
        request = messages.WaitReplicas(found.query, replicas, timeout_s)
        return await self._socket.ask(request, ReplicasReport, content=found.content, on_progress=on_progress)

    async def stat(self, source: AnySource) -> StatReport:
        """Who has what of a file."""
        found = await _resolve(source)
        return await self._socket.ask(messages.Stat(found.query), StatReport, content=found.content)

    async def files(self) -> AsyncIterator[FileReport]:
        """Every file of the fleet, in the order of names; asked for page by page."""
        start: int | None = 0
        while start is not None:
            page = await self._socket.ask(messages.ListFiles(start), FileListReport)
            for file in page.files:
                yield file
            if page.next_start is not None and page.next_start <= start:
                raise RemoteProtocolError(f"the page of files after {start} begins at {page.next_start}")
            start = page.next_start

    async def hosts(self) -> list[HostReport]:
        """Every host of the fleet, in the order of names."""
        return (await self._socket.ask(messages.ListHosts(), HostListReport)).hosts

    async def status(self) -> StatusReport:
        """What the daemon is, and what it is doing."""
        return await self._socket.ask(messages.Status(), StatusReport)

    async def limits(self) -> LimitReport:
        """The daemon's limits, and how quickly content moves."""
        return await self._socket.ask(messages.Limit(None, None), LimitReport)

    async def set_limits(self, *, up: int | None = None, down: int | None = None) -> LimitReport:
        """Limit the content to and from all peers together, in bytes a second, until the daemon restarts.

        0: no limit; None: as it is. Transfers under way keep to it at once.

        Raises:
          NotPermitted: the daemon is another user's.
          Refused: a limit is too low.
        """
        return await self._socket.ask(messages.Limit(up, down), LimitReport)

    async def remove(self, source: AnySource, *, local: bool = False, delete: bool = False) -> RemoveReport:
        """Take a file out of the fleet; `local`: only this host stops serving or fetching it.

        `delete`: files at their destinations go too, on every host, or with `local` here.
        """
        found = await _resolve(source)
        request = messages.Remove(found.query, local, delete)
        return await self._socket.ask(request, RemoveReport, content=found.content)

    async def verify(self, source: AnySource, *, on_progress: ProgressCallback | None = None) -> VerifyReport:
        """Hash this host's copy again; pieces that are bad are withdrawn, and named in the report.

        Cancellation:
          Abandons it; what was found bad until then stays withdrawn.
        """
        found = await _resolve(source)
        request = messages.Verify(found.query)
        return await self._socket.ask(request, VerifyReport, content=found.content, on_progress=on_progress)

    async def pause(self, source: AnySource) -> TransferStateReport:
        """Neither fetch nor serve a file on this host until `resume`."""
        found = await _resolve(source)
        return await self._socket.ask(messages.Pause(found.query), TransferStateReport, content=found.content)

    async def resume(self, source: AnySource) -> TransferStateReport:
        """Go on with a file that was paused.

        Raises:
          ContentChanged: the content is not what was hashed any more; it is served again once it is put back.
        """
        found = await _resolve(source)
        return await self._socket.ask(messages.Resume(found.query), TransferStateReport, content=found.content)


async def _resolve(source: AnySource) -> Source:
    if isinstance(source, Source):
        return source
    return await trio.to_thread.run_sync(read_source, source)


def _with_tracker(report: UploadReport, place: Path) -> UploadReport:
    return msgspec.structs.replace(report, tracker=str(place))
