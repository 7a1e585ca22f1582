"""How the hosts of a `MemoryNetwork` are connected: rates, latencies and partitions, and what they sent each other."""

import math
import random
from collections import Counter
from dataclasses import dataclass
from typing import Final

import trio


@dataclass(slots=True, kw_only=True)
class Link:
    """A host's way to the middle of the network, shared by its connections; by default it takes no time.

    `latency_s` is that of this way alone, so two hosts' latencies add up. `jitter` 0.5 lengthens the latency of each
    segment by up to a half.
    """

    uplink_bytes_per_s: float = math.inf
    downlink_bytes_per_s: float = math.inf
    latency_s: float = 0.0
    jitter: float = 0.0
    _uplink_free_at: float = -math.inf
    _downlink_free_at: float = -math.inf

    def send(self, now: float, length: int) -> float:
        """Occupy the uplink; return when the last byte has left."""
        self._uplink_free_at = max(now, self._uplink_free_at) + length / self.uplink_bytes_per_s
        return self._uplink_free_at

    def receive(self, now: float, length: int) -> float:
        """Occupy the downlink; return when the last byte is through."""
        self._downlink_free_at = max(now, self._downlink_free_at) + length / self.downlink_bytes_per_s
        return self._downlink_free_at


class Links:
    """All links. A host's traffic with itself takes no time. `rng` is asked only for jitter."""

    def __init__(self, rng: random.Random) -> None:
        self.of_host: Final[dict[str, Link]] = {}
        self.partitions: Final[set[frozenset[str]]] = set()
        self.bytes_sent: Final[Counter[tuple[str, str]]] = Counter()
        self._rng = rng

    def are_parted(self, a: str, b: str) -> bool:
        """Whether a partition holds back everything between two hosts."""
        return frozenset((a, b)) in self.partitions

    def latency_s(self, sender: str, receiver: str) -> float:
        """Draw the latency of one segment, in seconds."""
        if sender == receiver:
            return 0.0
        ends = (self._link(sender), self._link(receiver))
        return sum(end.latency_s * (1 + end.jitter * self._rng.random() if end.jitter else 1) for end in ends)

    def transmit(self, sender: str, receiver: str, length: int) -> tuple[float, float]:
        """Put a segment of `length` bytes on its way; return when it has left the sender and when it arrives."""
        self.bytes_sent[sender, receiver] += length
        now = trio.current_time()
        if sender == receiver:
            return now, now
        left_at = self._link(sender).send(now, length)
        return left_at, self._link(receiver).receive(left_at, length) + self.latency_s(sender, receiver)

    def _link(self, host: str) -> Link:
        return self.of_host.setdefault(host, Link())
