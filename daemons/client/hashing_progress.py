"""How far something is that threads do and callers watch."""

from dataclasses import dataclass


@dataclass(slots=True)
class HashingProgress:
    """Counted by the hashing threads, shown by the control session."""

    name: str = ""
    done: int = 0
    total: int = 0
    copying: bool = False
    publishing: bool = False

    def add(self, count: int) -> None:
        """So many bytes more are hashed."""
        self.done += count
