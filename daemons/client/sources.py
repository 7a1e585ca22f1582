"""Which file a request means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from interfiles.errors import AmbiguousFile, MasterUnreachable, UnknownFile, printable
from interfiles.manifest import FileId, Manifest
from interfiles.tracker_file import TrackerFile
from interfiles.wire import master_messages as m

if TYPE_CHECKING:
    from daemons.client.library import Library
    from daemons.client.local_file import LocalFile
    from daemons.client.master_link import MasterLink
    from interfiles.storage.executor import Executor


@dataclass(frozen=True, slots=True)
class Source:
    """A file: its manifest, who uploaded it when (Unix seconds), and the replicas wanted (0: not known)."""

    manifest: Manifest
    uploaded_by: str
    uploaded_at: int
    replicas: int = 0


class Sources:
    """Finds files by tracker file, or by id, unambiguous id prefix or name."""

    def __init__(self, library: Library, link: MasterLink, disk: Executor) -> None:
        self._library = library
        self._link = link
        self._disk = disk

    async def find(self, query: str, tracker: bytes) -> Source:
        """The file of the fleet: by the tracker file if there is one, else the master says, and this host if it can't.

        The master comes first because a name may by now stand for another file than this host's.

        Raises:
          InvalidTrackerFile: the tracker file is damaged or hostile.
          UnknownFile: nobody knows it; AmbiguousFile: several fit.
          MasterUnreachable: this host does not know it and the master cannot be asked.
        """
        if tracker:
            return await self._read(tracker)
        try:
            return await self._ask_master(query)
        except AmbiguousFile:
            raise
        except (UnknownFile, MasterUnreachable) as e:
            return _source_of(self._known_here(query, e))

    async def identify(self, query: str, tracker: bytes) -> tuple[FileId, str]:
        """The id and the name of the file that `find` finds; its manifest does not travel for that.

        Raises:
          As `find`.
        """
        if tracker:
            manifest = (await self._read(tracker)).manifest
            return manifest.file_id, manifest.name
        try:
            found, _ = await self._link.request(lambda n: m.Resolve(n, query, with_manifest=False), m.Resolved)
        except AmbiguousFile:
            raise
        except (UnknownFile, MasterUnreachable) as e:
            file = self._known_here(query, e)
            return file.file_id, file.manifest.name
        return FileId(found.info.file_id), found.info.name

    def _known_here(self, query: str, error: UnknownFile | MasterUnreachable) -> LocalFile:
        """This host's file, where the master does not know it or cannot be asked."""
        if (file := self._library.search(query)) is not None:
            return file
        if isinstance(error, MasterUnreachable):
            raise MasterUnreachable(f"this host does not know {printable(query)!r}, and {error}") from error
        raise error

    async def find_here(self, query: str, tracker: bytes) -> LocalFile:
        """This host's file, for what concerns this host alone.

        Raises:
          InvalidTrackerFile: as `find`.
          UnknownFile: this host has nothing of it; AmbiguousFile: several fit.
        """
        if tracker:
            manifest = (await self._read(tracker)).manifest
            file, name = self._library.find(manifest.file_id), manifest.name
        else:
            file, name = self._library.search(query), query
        if file is None:
            raise UnknownFile(f"this host has nothing of {printable(name)}; interfiles download fetches it")
        return file

    async def _read(self, tracker: bytes) -> Source:
        read = await self._disk.run(lambda: TrackerFile.decode(tracker))
        return Source(read.manifest, read.uploaded_by, read.uploaded_at)

    async def _ask_master(self, query: str) -> Source:
        found, _ = await self._link.request(lambda n: m.Resolve(n, query, with_manifest=False), m.Resolved)
        info, file_id = found.info, FileId(found.info.file_id)
        if (file := self._library.find(file_id)) is not None:
            return Source(file.manifest, info.uploaded_by, info.uploaded_at, info.replicas_wanted)
        _, data = await self._link.request(lambda n: m.Resolve(n, file_id.hex(), with_manifest=True), m.Resolved)
        manifest = await self._disk.run(Manifest.decode, data)
        if manifest.file_id != file_id:
            raise UnknownFile(f"the master sent another file for {printable(query)!r}; ask its administrator")
        return Source(manifest, info.uploaded_by, info.uploaded_at, info.replicas_wanted)


def _source_of(file: LocalFile) -> Source:
    return Source(file.manifest, file.record.uploaded_by, file.record.uploaded_at, file.record.replicas)
