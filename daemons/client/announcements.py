"""What the master is told of this host's files: everything once a connection, and then what changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from daemons.client.local_file import COMPLETE_STATES
from daemons.client.master_link import Publication
from interfiles.wire.master_messages import FileInfo, Handout, Holding

if TYPE_CHECKING:
    from daemons.client.library import Library
    from daemons.client.notice import Notice
    from interfiles.manifest import FileId

_NO_RATE: Final = 1000  # bytes a second: a meter that only fades is as good as at rest


class Announcements:
    """The library as the master link knows it. Implements `Announcer`."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._told: dict[FileId, Holding] = {}

    @property
    def announcements(self) -> Notice:
        return self._library.announcements

    def all_holdings(self) -> list[Holding]:
        self._told = {}
        return self.changed_holdings()

    def changed_holdings(self) -> list[Holding]:
        """What changed since the last call.

        An upload is announced once it is published: the master may remember that the same content was removed before,
        and would have it forgotten.
        """
        now, waiting = trio.current_time(), {p.file_id for p in self.unpublished()}
        current = {file.file_id: file.holding(now) for file in self._library if file.file_id not in waiting}
        changed = [h for file_id, h in current.items() if _differs(self._told.get(file_id), h)]
        gone = [Holding(file_id, "none", 0, 0, 0, "") for file_id in self._told if file_id not in current]
        self._told = current
        return changed + gone

    def room(self) -> tuple[int, int]:
        return self._library.room()

    def unpublished(self) -> list[Publication]:
        return [
            Publication(file.file_id, file.record.manifest, file.record.uploaded_at, file.record.replicas)
            for file in self._library
            if not file.record.published and file.record.state in COMPLETE_STATES
        ]

    async def on_published(self, info: FileInfo) -> None:
        await self._library.set_published(info)

    async def on_handout(self, handout: Handout) -> None:
        await self._library.set_peers(handout)


def _differs(old: Holding | None, new: Holding) -> bool:
    """Whether the master should hear of it: another state, piece count or note, or a rate of another magnitude."""
    if old is None:
        return new.state != "none" or bool(new.note)
    return _shown(old) != _shown(new)


def _shown(holding: Holding) -> tuple[str, int, str, int, int]:
    return (
        holding.state,
        holding.pieces,
        holding.note,
        (holding.down // _NO_RATE).bit_length(),
        (holding.up // _NO_RATE).bit_length(),
    )
