"""What the master is told of this host's files: everything once a connection, and then what changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

from daemons.client.announcer import Publication
from daemons.client.local_file import COMPLETE_STATES
from interfiles.wire.master_messages import FileInfo, Handout, Holding

if TYPE_CHECKING:
    from daemons.client.allowance import Allowance
    from daemons.client.library import Library
    from daemons.client.local_file import LocalFile
    from daemons.client.notice import Notice
    from interfiles.manifest import FileId

_FETCHING: Final = ("fetching", "waiting")
_NO_RATE: Final = 1000  # bytes a second: a meter that only fades is as good as at rest


@dataclass(frozen=True, slots=True)
class _Told:
    file: LocalFile
    holding: Holding


class Announcements:
    """The library as the master link knows it. Implements `Announcer`."""

    def __init__(self, library: Library, allowance: Allowance) -> None:
        self._library = library
        self._allowance = allowance
        self._told: dict[FileId, _Told] = {}

    @property
    def announcements(self) -> Notice:
        return self._library.announcements

    def all_holdings(self) -> list[Holding]:
        self._told = {}
        return self.changed_holdings()

    def changed_holdings(self) -> list[Holding]:
        """What changed since the last call.

        A new upload is announced once it is published: the master may remember that the same content was removed
        before, and would have it forgotten. A download that was begun anew is told as gone before it is told again,
        else the master, which has told this host of its peers, would not tell it once more.
        """
        now, waiting = trio.current_time(), {p.file_id for p in self.unpublished()} - self._told.keys()
        current = {file.file_id: _Told(file, file.holding(now)) for file in self._library}
        anew = {file_id for file_id, told in current.items() if self._is_begun_anew(told)}
        for file_id in waiting | anew:
            current.pop(file_id, None)
        told, self._told = self._told, current
        if anew:
            self.announcements.tell()
        changed = [new.holding for file_id, new in current.items() if _differs(told.get(file_id), new)]
        return changed + [Holding(file_id, "none", 0, 0, 0, "", False) for file_id in told if file_id not in current]

    def _is_begun_anew(self, new: _Told) -> bool:
        old = self._told.get(new.file.file_id)
        return old is not None and old.file is not new.file and old.holding.state in _FETCHING

    def room(self) -> tuple[int, int]:
        return self._allowance.room()

    def unpublished(self) -> list[Publication]:
        return [
            Publication(
                *(file.file_id, file.record.manifest, file.record.uploaded_at),
                *(file.record.replicas, file.record.expires_at, file.record.again),
            )
            for file in self._library
            if not file.record.published and file.record.state in COMPLETE_STATES
        ]

    async def on_published(self, info: FileInfo) -> None:
        await self._library.set_published(info)

    async def on_handout(self, handout: Handout) -> None:
        await self._library.set_peers(handout)


def _differs(old: _Told | None, new: _Told) -> bool:
    """Whether the master should hear of it: another state, piece count or note, or a rate of another magnitude."""
    if old is None:
        return new.holding.state != "none" or bool(new.holding.note)
    return _shown(old.holding) != _shown(new.holding)


def _shown(holding: Holding) -> tuple[str, bool, int, str, int, int]:
    return (
        holding.state,
        holding.ordered,
        holding.pieces,
        holding.note,
        (holding.down // _NO_RATE).bit_length(),
        (holding.up // _NO_RATE).bit_length(),
    )
