"""How far the hosts that drain are: what is still to be copied from each to others, and what cannot be."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(slots=True)
class Left:
    """What is found of one host. `files`: to be copied to others; `bytes`: of these, that have not come anywhere yet.

    `why_stays`: why some file gets no other copy, in words; empty: there is no such reason. `short`: files that are on
    all others that could hold one, and those are fewer than are wanted.
    """

    files: int = 0
    bytes: int = 0
    why_stays: str = ""
    short: int = 0


class Drains:
    """What the last look at the fleet's files has shown of each host."""

    def __init__(self) -> None:
        self._left: dict[str, Left] = {}

    def forget(self, host_id: str) -> None:
        """A host begins or ends to drain, or is not of the fleet any more."""
        self._left.pop(host_id, None)

    def look(self, draining: Iterable[str], found: Mapping[str, Left]) -> list[str]:
        """Note what was found of these hosts, which drain; return those that have just nothing left to be moved."""
        drained = []
        for host_id in draining:
            left = found.get(host_id, Left())
            if not left.files and self.to_move(host_id) != 0:
                drained.append(host_id)
            self._left[host_id] = left
        return drained

    def to_move(self, host_id: str) -> int | None:
        """How many files should get another copy before a draining host goes; None: it is not known yet."""
        left = self._left.get(host_id)
        return left.files if left is not None else None

    def left(self, host_id: str) -> Left:
        """What was found of a draining host; nothing where it is not known yet."""
        return self._left.get(host_id, Left())
