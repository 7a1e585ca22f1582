"""Chance as an argument: what the sans-IO code needs of `random.Random`."""

from typing import Protocol


class Chance(Protocol):
    """A source of random numbers; the same seed gives the same choices."""

    def random(self) -> float:
        """A number from 0 up to 1, which is never reached."""
