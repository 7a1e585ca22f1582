"""Tells who is served a file that it has changed: all of them at once, and not too often."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from daemons.client.notice import Notice

# News that follow one another so closely are told together: each costs both ends as much as a block.
NEWS_S: Final = 0.02


@dataclass(slots=True)
class _Watched:
    seen: int  # changes before anybody followed: no news
    bells: dict[Notice, None] = field(default_factory=dict)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)


class News:
    """The bells of those who follow a file, by the notice of its changes. `run` must run meanwhile.

    One timer a file: a timer for each follower costs a busy swarm more than telling the news does.
    """

    def __init__(self) -> None:
        self._watched: dict[Notice, _Watched] = {}
        self._nursery: trio.Nursery | None = None

    async def run(self) -> None:
        """Ring until cancelled."""
        try:
            async with trio.open_nursery() as self._nursery:
                for changed, watched in self._watched.items():
                    self._nursery.start_soon(_watch, changed, watched)
                await trio.sleep_forever()
        finally:
            self._nursery = None

    def follow(self, changed: Notice, bell: Notice) -> None:
        """Ring this bell after each change from now on: at once, or `NEWS_S` after the one before."""
        if changed not in self._watched:
            self._watched[changed] = watched = _Watched(changed.count)
            if self._nursery is not None:
                self._nursery.start_soon(_watch, changed, watched)
        self._watched[changed].bells[bell] = None

    def leave(self, changed: Notice, bell: Notice) -> None:
        """Ring it no more; it need not have been followed."""
        watched = self._watched.get(changed)
        if watched is None:
            return
        watched.bells.pop(bell, None)
        if not watched.bells:
            watched.scope.cancel()
            del self._watched[changed]


async def _watch(changed: Notice, watched: _Watched) -> None:
    with watched.scope:
        while True:
            watched.seen = await changed.later_than(watched.seen)
            for bell in watched.bells:
                bell.tell()
            await trio.sleep(NEWS_S)
