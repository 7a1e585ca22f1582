"""What the link to the master needs of the rest of the daemon."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

from interfiles.wire import master_messages as m

if TYPE_CHECKING:
    from daemons.client.notice import Notice
    from interfiles.manifest import FileId

Errand: TypeAlias = m.Order | m.Release | m.Challenge | m.Forget


@dataclass(frozen=True, slots=True)
class Publication:
    """A file that the master's catalogue should have."""

    file_id: FileId
    manifest: bytes
    uploaded_at: int
    replicas: int
    expires_at: int
    again: bool


class Forget(Protocol):
    """What to do when a file was removed from the fleet."""

    def __call__(self, file_id: FileId, *, delete: bool) -> None: ...


class Inbox(Protocol):
    """Where what the master has this host do about replicas goes."""

    def __call__(self, errand: Errand, /) -> None: ...


class Announcer(Protocol):
    """What the link needs of the host's library."""

    @property
    def announcements(self) -> Notice:
        """Told when a holding's state changes."""

    def all_holdings(self) -> list[m.Holding]:
        """Everything, for a master that knows nothing; changes count from here."""

    def changed_holdings(self) -> list[m.Holding]:
        """What changed since the last call of either."""

    def room(self) -> tuple[int, int]:
        """Bytes used by held files, and free for more."""

    def unpublished(self) -> list[Publication]:
        """Uploads that the master has not confirmed."""

    async def on_published(self, info: m.FileInfo) -> None:
        """The master has it."""

    async def on_handout(self, handout: m.Handout) -> None:
        """Peers for a file."""
