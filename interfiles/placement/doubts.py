"""Copies that do not count because their hosts could not show a piece of them. Times are seconds on one clock."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

DOUBT_S: Final = 3600.0  # that a copy does not count, from the last time its host was asked in vain
ASK_AGAIN_S: Final = 600.0  # until it is asked for the same piece again


@dataclass(frozen=True, slots=True)
class Doubt:
    """A host could not show this piece of a file."""

    file_id: bytes
    host_id: str
    piece: int


@dataclass(slots=True)
class _Since:
    piece: int
    until: float
    ask_at: float


class Doubts:
    """A doubt ends when the host shows the piece, says itself that it holds the file no more, or cannot be asked."""

    def __init__(self) -> None:
        self._by_file: dict[bytes, dict[str, _Since]] = {}

    def note(self, doubt: Doubt, now: float) -> bool:
        """A host could not show a piece; return whether its copy has counted until now."""
        by_host = self._by_file.setdefault(doubt.file_id, {})
        before = by_host.get(doubt.host_id)
        by_host[doubt.host_id] = _Since(doubt.piece, now + DOUBT_S, now + ASK_AGAIN_S)
        return before is None or before.until <= now

    def end(self, shown: Doubt) -> bool:
        """A host has shown a piece; return whether its copy did not count for want of it."""
        since = self._by_file.get(shown.file_id, {}).get(shown.host_id)
        if since is None or since.piece != shown.piece:
            return False
        self._drop(shown.file_id, shown.host_id)
        return True

    def trust(self, host_id: str, file_ids: Iterable[bytes]) -> None:
        """A host says itself that it does not hold these files now: what it holds of them next is another copy."""
        for file_id in file_ids if self._by_file else ():
            self._drop(file_id, host_id)

    def forget_host(self, host_id: str) -> None:
        """A host is not of the fleet any more."""
        self.trust(host_id, list(self._by_file))

    def forget_file(self, file_id: bytes) -> None:
        """A file is not in the catalogue any more."""
        self._by_file.pop(file_id, None)

    def hosts(self, file_id: bytes, now: float) -> list[str]:
        """The hosts whose copies of a file do not count."""
        by_host = self._by_file.get(file_id)
        return [host_id for host_id, since in by_host.items() if since.until > now] if by_host else []

    def to_ask(self, now: float) -> Doubt | None:
        """Whom to ask again, and for what; it is not named again for a while. None: nobody yet."""
        for file_id, by_host in list(self._by_file.items()):
            for host_id, since in list(by_host.items()):
                if since.until <= now:
                    self._drop(file_id, host_id)
                elif since.ask_at <= now:
                    since.ask_at = now + ASK_AGAIN_S
                    return Doubt(file_id, host_id, since.piece)
        return None

    def _drop(self, file_id: bytes, host_id: str) -> None:
        by_host = self._by_file.get(file_id, {})
        by_host.pop(host_id, None)
        if not by_host:
            self._by_file.pop(file_id, None)
