"""What a person asks about copies of a file in the fleet: have another number of them, wait until they are there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from interfiles.errors import MasterUnreachable, TimedOut, UnknownFile, printable
from interfiles.units import format_count, format_duration
from interfiles.wire import control_messages as c
from interfiles.wire import master_messages as m
from interfiles.wire.fields import MAX_TEXT_LENGTH
from interfiles.wire.reports import ReplicasReport

if TYPE_CHECKING:
    from daemons.client.callers import Call, Caller
    from daemons.client.library import Library
    from daemons.client.master_link import MasterLink
    from daemons.client.sources import Sources
    from interfiles.manifest import FileId

LOOK_S: Final = 1.0  # between two looks at how many copies there are
_NO_ROWS: Final = 2**53  # further than any list of holders goes: their number is asked for, not who they are


class ReplicaRequests:
    """Asks the master; any number at once."""

    def __init__(self, library: Library, link: MasterLink, sources: Sources) -> None:
        self._library = library
        self._link = link
        self._sources = sources

    async def set(self, caller: Caller, request: c.SetReplicas, payload: bytes) -> ReplicasReport:
        """Want another number of copies of a file.

        Raises:
          NotPermitted: the file is not the caller's to change.
          MasterUnreachable: the master is away.
          UnknownFile: it has no such file; AmbiguousFile, InvalidTrackerFile: as `Sources.find`.
        """
        file_id, name = await self._sources.identify(request.query, payload)
        if (file := self._library.find(file_id)) is not None:
            caller.check_owns(file)
        else:
            caller.check_commands_fleet(name)
        await self._link.request(lambda n: m.SetReplicas(n, file_id, request.replicas), m.ReplicasSet)
        return await self._count(file_id)

    async def wait(self, call: Call, request: c.WaitReplicas, payload: bytes) -> ReplicasReport:
        """Stream how many copies there are until there are enough; the caller may leave at any time.

        While the master is away, or has not been told of an upload of this host yet, it goes on to wait.

        Raises:
          TimedOut: there are too few after `timeout_s` seconds.
          UnknownFile: the fleet has no such file; AmbiguousFile, InvalidTrackerFile: as `Sources.find`.
        """
        waiting = _Waiting(request.query)
        with trio.move_on_after(float("inf") if request.timeout_s is None else request.timeout_s):
            while True:
                found = await self._look(waiting, request.query, payload)
                if found is not None and found.complete >= _enough(found, request.replicas):
                    return found
                await call.say(waiting.progress(request.replicas))
                await trio.sleep(LOOK_S)
        raise TimedOut(waiting.sentence(request.replicas, request.timeout_s or 0.0))

    async def _look(self, waiting: _Waiting, query: str, payload: bytes) -> ReplicasReport | None:
        """Count the copies, if that can be done now."""
        try:
            if waiting.file_id is None:
                waiting.file_id, waiting.name = await self._sources.identify(query, payload)
            waiting.found = await self._count(waiting.file_id)
        except MasterUnreachable as e:
            waiting.trouble = str(e)
            return None
        except UnknownFile:
            file = self._library.find(waiting.file_id) if waiting.file_id is not None else None
            if file is None or file.record.published:
                raise
            waiting.trouble = "the master has not been told of it yet"
            return None
        waiting.trouble = ""
        return waiting.found

    async def _count(self, file_id: FileId) -> ReplicasReport:
        page, _ = await self._link.request(lambda n: m.ListHolders(n, file_id, _NO_ROWS), m.HolderPage)
        return ReplicasReport(
            id=file_id.hex(),
            name=page.info.name,
            replicas_wanted=page.info.replicas_wanted,
            hosts=page.hosts,
            complete=page.complete,
            under_way=page.under_way,
            why_not=page.why_not,
        )


def _enough(found: ReplicasReport, asked: int | None) -> int:
    """How many copies are waited for. With none named, no more than there are hosts for, and one at least."""
    return asked if asked is not None else max(1, min(found.replicas_wanted, found.hosts))


class _Waiting:
    """What is known meanwhile. `trouble`: why the copies cannot be counted now, in words."""

    def __init__(self, query: str) -> None:
        self.file_id: FileId | None = None
        self.name = query
        self.found: ReplicasReport | None = None
        self.trouble = ""

    def reason(self, asked: int | None) -> str:
        """Why there are not enough copies, as far as that is known; empty: they are coming."""
        if self.trouble or self.found is None:
            return self.trouble
        if asked is not None and asked > self.found.replicas_wanted:  # be there room or none
            wanted = format_count(self.found.replicas_wanted, "copy is", "copies are")
            return f"only {wanted} wanted; `interfiles replicas set` changes that"
        return self.found.why_not

    def progress(self, asked: int | None) -> c.Progress:
        """How far it is."""
        done, total, under_way = 0, 0, 0
        if self.found is not None:
            done, total, under_way = self.found.complete, _enough(self.found, asked), self.found.under_way
        text = printable(self.reason(asked))[:MAX_TEXT_LENGTH]
        return c.Progress("replicating", self.name, done, total, 0, under_way, text)

    def sentence(self, asked: int | None, timeout_s: float) -> str:
        """That the time is over, with the numbers and the reason."""
        name, after = printable(self.name), format_duration(timeout_s)
        why = f": {self.reason(asked)}" if self.reason(asked) else ""
        if self.found is None:
            return f"nobody could say within {after} how many copies of {name} there are{why}"
        have, wanted = self.found.complete, _enough(self.found, asked)
        coming = f", {self.found.under_way:,} more under way" if self.found.under_way else ""
        return f"{name} has {have:,} of {format_count(wanted, 'copy', 'copies')} after {after}{coming}{why}"
