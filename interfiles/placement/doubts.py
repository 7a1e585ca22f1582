"""Copies that do not count because their hosts could not show a piece of them. Times are seconds on one clock."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from interfiles.placement.orders import MEND_S

DOUBT_S: Final = (
    3600.0  # that a copy does not count whose host can be asked for nothing, since it could not show it last
)
ASK_AGAIN_S: Final = 600.0  # until it is asked for the same piece again
MAX_DOUBTS: Final = 10_000  # copies: of more the one longest known counts again


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
    was_asked: bool = False  # again


class Doubts:
    """A doubt ends when the host shows the piece, says itself that it holds the file no more, or cannot be asked."""

    def __init__(self) -> None:
        self._all: dict[tuple[bytes, str], _Since] = {}  # those first that are to be asked first
        self._hosts: dict[bytes, set[str]] = {}  # the same by file
        self._fresh: dict[tuple[bytes, str], float] = {}  # since when, for `MEND_S`

    def note(self, doubt: Doubt, now: float) -> bool:
        """A host could not show a piece; return whether its copy has counted until now."""
        key = doubt.file_id, doubt.host_id
        before = self._all.pop(key, None)
        if len(self._all) >= MAX_DOUBTS:
            self._drop(*next(iter(self._all)))
        piece = doubt.piece if before is None else before.piece  # it may well be able to show the other
        self._all[key] = _Since(piece, now + DOUBT_S, now + ASK_AGAIN_S)
        if before is None:
            self._fresh[key] = now
        self._hosts.setdefault(doubt.file_id, set()).add(doubt.host_id)
        return before is None

    def end(self, shown: Doubt) -> bool:
        """A host has shown a piece; return whether its copy did not count for want of it."""
        since = self._all.get((shown.file_id, shown.host_id))
        if since is None or since.piece != shown.piece:
            return False
        self._drop(shown.file_id, shown.host_id)
        return True

    def trust(self, host_id: str, file_ids: Iterable[bytes]) -> None:
        """A host says itself that it does not hold these files now: what it holds of them next is another copy."""
        for file_id in file_ids if self._all else ():
            self._drop(file_id, host_id)

    def forget_host(self, host_id: str) -> None:
        """A host is not of the fleet any more."""
        self.trust(host_id, list(self._hosts))

    def forget_file(self, file_id: bytes) -> None:
        """A file is not in the catalogue any more."""
        for host_id in list(self._hosts.get(file_id, ())):
            self._drop(file_id, host_id)

    def hosts(self, file_id: bytes) -> Iterable[str]:
        """The hosts whose copies of a file do not count."""
        return self._hosts.get(file_id, ())

    @property
    def files(self) -> Collection[bytes]:
        """The files of which some copy does not count."""
        return self._hosts.keys()

    def is_fresh(self, file_id: bytes, host_id: str, now: float) -> bool:
        """Whether a host may just be finding out that its copy has bad bytes, to mend them: it has had little time."""
        return now < self._fresh.get((file_id, host_id), float("-inf")) + MEND_S

    def age(self, now: float) -> set[bytes]:
        """Return the files of doubts that are fresh no more since this was called last."""
        old = [key for key, since in self._fresh.items() if now >= since + MEND_S]
        for key in old:
            del self._fresh[key]
        return {file_id for file_id, _ in old}

    def to_ask(self, now: float) -> Doubt | None:
        """Whom to ask again, and for what: who has waited longest. It has its turn again after others; None: nobody."""
        for (file_id, host_id), since in self._all.items():
            if since.ask_at > now:
                return None
            since.ask_at, since.was_asked = now + ASK_AGAIN_S, True
            self._all[file_id, host_id] = self._all.pop((file_id, host_id))
            return Doubt(file_id, host_id, since.piece)
        return None

    def expire(self, now: float) -> set[bytes]:
        """Forget those of hosts that were asked again, and for an hour could show nothing; return their files."""
        over = [key for key, since in self._all.items() if since.was_asked and since.until <= now]
        for file_id, host_id in over:
            self._drop(file_id, host_id)
        return {file_id for file_id, _ in over}

    def _drop(self, file_id: bytes, host_id: str) -> None:
        self._fresh.pop((file_id, host_id), None)
        if self._all.pop((file_id, host_id), None) is not None:
            self._hosts[file_id].discard(host_id)
            if not self._hosts[file_id]:
                del self._hosts[file_id]
