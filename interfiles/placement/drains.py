"""How far the hosts that drain are: what is still to be copied from each to others, and what cannot be."""

from collections.abc import Iterable, Mapping


class Drains:
    """What the last look at the fleet's files has shown of each host."""

    def __init__(self) -> None:
        self._to_move: dict[str, int] = {}
        self._why_stays: dict[str, str] = {}
        self._short: dict[str, int] = {}

    def forget(self, host_id: str) -> None:
        """A host begins or ends to drain, or is not of the fleet any more."""
        self._to_move.pop(host_id, None)
        self._why_stays.pop(host_id, None)
        self._short.pop(host_id, None)

    def look(
        self,
        draining: Iterable[str],
        to_move: Mapping[str, int],
        why_stays: Mapping[str, str],
        short: Mapping[str, int],
    ) -> list[str]:
        """Note what was found of these hosts, which drain; return those that have just nothing left to be moved.

        `to_move`: files, by host; `why_stays`: in words, why some file gets no other copy; `short`: files that are on
        all others that could hold one, and those are fewer than are wanted.
        """
        drained = []
        for host_id in draining:
            self._why_stays[host_id] = why_stays.get(host_id, "")
            self._short[host_id] = short.get(host_id, 0)
            left = to_move.get(host_id, 0)
            if not left and self._to_move.get(host_id) != 0:
                drained.append(host_id)
            self._to_move[host_id] = left
        return drained

    def to_move(self, host_id: str) -> int | None:
        """How many files should get another copy before a draining host goes; None: it is not known yet."""
        return self._to_move.get(host_id)

    def why_stays(self, host_id: str) -> str:
        """Why some file on a draining host gets no other copy, in words; empty: there is no such reason."""
        return self._why_stays.get(host_id, "")

    def short(self, host_id: str) -> int:
        """How many files have fewer copies than wanted without a draining host, as no other could hold one."""
        return self._short.get(host_id, 0)
