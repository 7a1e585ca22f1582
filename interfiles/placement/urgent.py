"""Which of the files that lack copies is looked after next."""

from itertools import islice
from typing import TypeAlias

# Copies left, copies that lack negated, and the file's id: the least is the most urgent.
Urgency: TypeAlias = tuple[int, int, bytes]


class Urgent:
    """Files by urgency, those alike in the order in which they came; and apart, those that nobody can help now."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, tuple[int, int]] = {}
        self._alike: dict[tuple[int, int], dict[bytes, None]] = {}
        self._put_off: dict[bytes, None] = {}

    def put(self, urgency: Urgency) -> None:
        """A file waits to be looked after, as urgently as this says; one that is put off is so until it is retried."""
        left, missing, file_id = urgency
        if file_id not in self._put_off and self._waiting.get(file_id) != (left, missing):
            self._take_out(file_id)
            self._waiting[file_id] = left, missing
            self._alike.setdefault((left, missing), {})[file_id] = None

    def put_off(self, file_id: bytes) -> None:
        """Nobody can help a file now."""
        self._take_out(file_id)
        self._put_off[file_id] = None

    def drop(self, file_id: bytes) -> None:
        """A file does not wait any more."""
        self._take_out(file_id)
        self._put_off.pop(file_id, None)

    def pop(self) -> bytes | None:
        """Take the most urgent file out; None: none waits."""
        if not self._alike:
            return None
        file_id = next(iter(self._alike[min(self._alike)]))
        self._take_out(file_id)
        return file_id

    def retry(self, most: int) -> list[bytes]:
        """Put at most so many files off no more, those first that have been longest; return them."""
        files = list(islice(self._put_off, most))
        for file_id in files:
            del self._put_off[file_id]
        return files

    def retry_this(self, file_id: bytes) -> None:
        """Put a file off no more: something has changed for it."""
        self._put_off.pop(file_id, None)

    def _take_out(self, file_id: bytes) -> None:
        rank = self._waiting.pop(file_id, None)
        if rank is not None:
            alike = self._alike[rank]
            del alike[file_id]
            if not alike:
                del self._alike[rank]
