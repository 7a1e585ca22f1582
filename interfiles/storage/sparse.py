"""Which ranges of a file hold data, and which are holes that need no reading."""

import errno
import os
from collections.abc import Iterator
from typing import Final

_UNSUPPORTED: Final = frozenset({errno.EINVAL, errno.EOPNOTSUPP})


class Holes:
    """Answers for one open file, mostly from memory.

    To ask the system about every piece would walk the extents of a large, fragmented file over and over.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor: Final = descriptor
        # The range asked about last, in bytes: `start` to `end` is either all data or all hole.
        self._start, self._end, self._is_data = 0, 0, False

    def segments(self, start: int, end: int) -> Iterator[tuple[int, int, bool]]:
        """Cut a range (bytes) into (start, end, is data), in order.

        Raises:
          OSError: the system cannot tell.
        """
        while start < end:
            if not self._start <= start < self._end:
                self._look(start)
            stop = min(end, self._end)
            yield start, stop, self._is_data
            start = stop

    def _look(self, start: int) -> None:
        data = self._seek(start, os.SEEK_DATA)
        if data > start:
            self._start, self._end, self._is_data = start, data, False
        else:
            self._start, self._end, self._is_data = start, self._seek(start, os.SEEK_HOLE), True

    def _seek(self, start: int, whence: int) -> int:
        try:
            return os.lseek(self._descriptor, start, whence)
        except OSError as e:
            if e.errno == errno.ENXIO:  # no more data (or, after a truncation, no file there: reading tells)
                return _END
            if e.errno in _UNSUPPORTED:  # all of it counts as data
                return start if whence == os.SEEK_DATA else _END
            raise


_END: Final = 1 << 62  # beyond any file
