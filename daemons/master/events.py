"""What happens in the fleet, told to all who want to know: the event log, those who follow it, the daemon's own log."""

from collections.abc import Callable
from functools import cached_property
from typing import Final

import structlog
import trio

from interfiles.placement.event_limit import EventLimit
from interfiles.placement.events import EventKind, EventLog
from interfiles.placement.host_facts import StateChange
from interfiles.placement.registry import Registry
from interfiles.units import format_count, format_duration
from interfiles.wire.master_messages import HostState

_LOG_ID_BYTES: Final = 8
_SAID: Final[dict[EventKind, str]] = {  # in the daemon's log
    "joined": "enrolled",
    "live": "host is up",
    "suspect": "host is suspect",
    "gone": "host is gone",
    "removed": "removed host",
    "draining": "host is draining",
    "drained": "host is drained",
    "undrained": "host is not draining any more",
    "published": "published",
    "file-removed": "removed file",
    "expired": "file has expired",
    "ordered": "ordered replica",
    "complete": "replica is complete",
    "failed": "replica failed",
    "released": "released replica",
    "corrupt": "replica is corrupt",
    "lost": "copy is lost",
}

log = structlog.get_logger()


class Events:
    """The one place where events are added. `secret` returns that many unguessable bytes, `wall_clock` Unix seconds."""

    def __init__(self, registry: Registry, *, wall_clock: Callable[[], float], secret: Callable[[int], bytes]) -> None:
        self.log: Final = EventLog()
        self._registry = registry
        self._wall_clock = wall_clock
        self._secret = secret
        self._added = trio.Event()
        self._limit = EventLimit()

    @cached_property
    def log_id(self) -> str:
        """What this log is called, another after each start of the master; made when somebody asks first."""
        return self._secret(_LOG_ID_BYTES).hex()

    def add(
        self,
        kind: EventKind,
        *,
        host: str = "",
        file: bytes = b"",
        file_name: str = "",
        reason: str = "",
        **facts: object,
    ) -> None:
        """Something has happened: to the host of this id, to the file of this id, or to that file on that host.

        It is one line of the daemon's log too, with these `facts` more. `file_name` is needed only for a file that is
        not in the catalogue any more. Where one host brings about too many it is counted for `tell_left_out` instead.
        """
        if not self._limit.admits(kind, host, trio.current_time()):
            return
        self._add(kind, host, file, file_name, reason, facts)

    def tell_left_out(self) -> None:
        """Tell how many events of single hosts were too many to be told one by one; to be called now and then."""
        for left_out in self._limit.over(trio.current_time()):
            reason = f"and {format_count(left_out.count, 'file')} more within a minute"
            self._add(left_out.kind, left_out.host_id, b"", "", reason, {})

    def _add(
        self, kind: EventKind, host: str, file: bytes, file_name: str, reason: str, facts: dict[str, object]
    ) -> None:
        name = self._registry.name(host)
        self.log.add(
            kind,
            at=round(self._wall_clock(), 3),
            host=host,
            host_name=name,
            file=file,
            file_name=file_name,
            reason=reason,
        )
        said: dict[str, object] = {"host": name, "file": file_name, "id": file[:6], "reason": reason}
        log.info(_SAID[kind], **{key: value for key, value in said.items() if value}, **facts)
        self._added.set()
        self._added = trio.Event()

    def add_change(self, change: StateChange, reason: str = "") -> None:
        """A host is in another state; `reason`: what brought that about, where it was not time alone."""
        silence = format_duration(int(change.silent_s))
        by_time: dict[HostState, str] = {
            "live": "heard from again",
            "suspect": f"silent for {silence}",
            "gone": f"silent for {silence}",
            "draining": "it is to be emptied",
        }
        kind: EventKind = "undrained" if (change.before, change.after) == ("draining", "live") else change.after
        self.add(kind, host=change.host_id, reason=reason or by_time[change.after])

    async def wait(self, after: int) -> None:
        """Wait until there is an event with a number above `after`."""
        while self.log.newest <= after:
            await self._added.wait()
