"""How far a look at everything should be that is spread over its time. Times are seconds on one clock."""

from typing import Final


class Sweep:
    """A look at the whole catalogue every `every_s`, page by page; the first of all is as quick as can be.

    `after`: the id of the last file that was looked at, empty at the beginning.
    """

    def __init__(self, every_s: float) -> None:
        self._every_s: Final = every_s
        self._total: int | None = None  # files, as the last look found
        self._began = float("-inf")
        self._seen = 0
        self._is_under_way = False
        self.after = b""

    def is_behind(self, now: float) -> bool:
        """Whether the next page is due."""
        if not self._is_under_way:
            return now - self._began >= self._every_s
        share = (now - self._began) / self._every_s
        return self._total is None or share >= 1 or self._seen <= self._total * share

    def begin(self, now: float) -> None:
        """Begin anew."""
        self._began, self._seen, self._is_under_way, self.after = now, 0, True, b""

    @property
    def is_under_way(self) -> bool:
        """Whether it has begun, and not ended."""
        return self._is_under_way

    def saw(self, count: int, last: bytes) -> None:
        """So many files of a page were looked at, of which this was the last."""
        self._seen += count
        self.after = last

    def end(self) -> None:
        """There are no more."""
        self._total, self._is_under_way = self._seen, False
