"""Who is served next, and with which piece: few full upload slots instead of many slow streams, and late choices.

Fetchers ask for sets of pieces. One that has something to ask for stands in line for a slot; with a slot it gets one
piece, or more of them up to `TURN_BYTES`, and goes to the end of the line. The line is in the order of the bytes that
each was given (start-time fair queueing: Goyal, Vin, Cheng, "Start-time Fair Queueing", 1996), so no download keeps
others out, whatever the sizes of their pieces. Bytes count by the weights of the downloads. Two of one host share its
line whatever the slots, so of these the heavier goes first until it is ahead. One that takes its pieces much more
slowly than the other does is not slow for want of that line, and is not waited for.

Those that weigh less than 1 are in the background: one of them at a time, and all together get no more than their
weight's share of what the others get, free slots or not, for as long as the others take their pieces about as quickly
as they do.

Of what a fetcher asks for, it gets the piece that this host has sent to the fewest: so a source sends each piece once
before it sends any twice. Ties go to the next in the order of the content, which disks like.

Times are seconds of one monotonic clock.
"""

from dataclasses import dataclass, field
from typing import Final

from interfiles.geometry import MIB, PieceIndex
from interfiles.swarm.availability import Availability

SLOTS: Final = 8
TURN_BYTES: Final = MIB  # what a slot sends before others that wait have their turn, and the piece that is begun
MAX_LAG_BYTES: Final = 4 * TURN_BYTES  # that who is behind, where weights differ, makes good for
HOLD_S: Final = 0.25  # for one piece, that another download of the host waits for the one that is behind,
HOLD_FACTOR: Final = 2.0  # or so many times as long as it took itself for as much, as both share a slow line
MARGIN: Final = (
    2.5  # that the background leaves more than its weight asks for: its pieces stand in the network's queues
)
LINGER_S: Final = (
    0.1  # after its last piece, that the background waits for who has nothing more to ask: it may ask again
)
OPEN_S: Final = 1.0  # that it waits for who has just come: who is to ask hears first what there is
STUCK_S: Final = 5.0  # a fetcher that takes so long for one piece has its slot, but no longer keeps it from others


class SentCounts:
    """How often this host has sent each piece of a file."""

    def __init__(self, count: int) -> None:
        self._counts = Availability(count)
        self._next = 0

    def choose(self, asked: int) -> PieceIndex:
        """Which of these pieces (bits, not 0) to send, and count it as sent."""
        least = self._counts.rarest(asked)
        later = least >> self._next
        piece = self._next + (later & -later).bit_length() - 1 if later else (least & -least).bit_length() - 1
        self._next = piece + 1
        self._counts.add_one(PieceIndex(piece))
        return PieceIndex(piece)

    def undo(self, piece: PieceIndex) -> None:
        """A piece that was chosen was not sent to its end."""
        self._counts.remove_one(piece)


@dataclass(slots=True)
class _Host:
    fetchers: dict[str, "_Fetcher"] = field(default_factory=dict)
    clock: float = 0.0  # of what they were given, apart from other hosts


@dataclass(slots=True)
class _Fetcher:
    sent: SentCounts
    piece_bytes: int
    host: str
    weight: float
    given_at_host: float  # bytes by the weight, on the clock of the host
    asked: int = 0  # bits
    given: float = 0.0  # bytes by the weight, on the clock of the line
    joined: int = 0  # when it joined the line, as a number in order
    slot_since: float | None = None
    turn_bytes: int = 0
    piece_since: float = 0.0  # when it was given its piece, or its slot
    byte_s: float = 0.0  # that it took for each byte of its last piece
    lingers_until: float = 0.0  # that the background waits for what it asks next


@dataclass(slots=True)
class UploadQueue:
    """What fetchers ask of this host, of all files. Methods that free a slot return who has one from now on."""

    slots: int = SLOTS
    _fetchers: dict[str, _Fetcher] = field(default_factory=dict)
    _hosts: dict[str, _Host] = field(default_factory=dict)
    _weighted: int = 0  # how many of them do not weigh 1
    _line: dict[str, None] = field(default_factory=dict)
    _clock: float = 0.0
    _joined: int = 0
    _ahead: float = 0.0  # bytes, by weight, that those in the background were given before their turn

    def add(
        self, fetcher: str, sent: SentCounts, piece_bytes: int, now: float, *, host: str = "", weight: float = 1.0
    ) -> None:
        """A fetcher comes; `sent`: the counts of its file, which all its fetchers share; `host`: whose it is."""
        its = self._hosts.setdefault(host, _Host())
        made = _Fetcher(sent, piece_bytes, host, weight, its.clock, given=self._clock, lingers_until=now + OPEN_S)
        self._fetchers[fetcher] = its.fetchers[fetcher] = made
        self._weighted += weight != 1.0

    def weigh(self, fetcher: str, weight: float, now: float) -> list[str]:
        """A fetcher has another weight from now on."""
        state = self._fetchers[fetcher]
        self._weighted += (weight != 1.0) - (state.weight != 1.0)
        state.weight = weight
        return self.grant(now)

    def drop(self, fetcher: str, now: float) -> list[str]:
        """A fetcher is gone."""
        if (gone := self._fetchers.pop(fetcher, None)) is not None:
            del self._hosts[gone.host].fetchers[fetcher]
            if not self._hosts[gone.host].fetchers:
                del self._hosts[gone.host]
            self._weighted -= gone.weight != 1.0
        self._line.pop(fetcher, None)
        return self.grant(now)

    def ask(self, fetcher: str, pieces: int, now: float) -> list[str]:
        """A fetcher asks for more pieces (bits)."""
        state = self._fetchers[fetcher]
        if not state.asked and state.slot_since is None:  # it was away, and is owed nothing for that
            state.given_at_host = max(state.given_at_host, self._hosts[state.host].clock)
        state.asked, state.lingers_until = state.asked | pieces, now
        if state.slot_since is None and fetcher not in self._line:
            self._join(fetcher, state)
        return self.grant(now)

    def cancel(self, fetcher: str, pieces: int, now: float) -> list[str]:
        """A fetcher takes back what it asked for (bits); what is being sent is its session's to end."""
        state = self._fetchers[fetcher]
        state.asked &= ~pieces
        if not state.asked:
            self._line.pop(fetcher, None)
        return self.grant(now)

    def next(self, fetcher: str, now: float) -> PieceIndex | None:
        """The piece to send to a fetcher, begun from now on; None where it has no slot. What it was sent is done.

        A slot whose turn is over goes to whoever waits: `grant` tells.
        """
        state = self._fetchers[fetcher]
        if state.slot_since is None:
            return None
        if state.turn_bytes:
            state.byte_s, state.lingers_until = (now - state.piece_since) / state.piece_bytes, now + LINGER_S
        is_over = state.turn_bytes >= TURN_BYTES and self._line
        if not state.asked or is_over or self._gives_way(state, now):
            state.slot_since = None
            if state.asked:
                self._join(fetcher, state, lag_bytes=MAX_LAG_BYTES if self._weighted else 0)
            return None
        piece = state.sent.choose(state.asked)
        state.asked &= ~(1 << piece)
        state.slot_since = state.piece_since = now
        self._clock = max(self._clock, state.given)
        state.turn_bytes += state.piece_bytes
        state.given += state.piece_bytes / state.weight
        self._count_ahead(state, now)
        its = self._hosts[state.host]
        state.given_at_host = max(state.given_at_host, its.clock - MAX_LAG_BYTES)  # it was slow by itself
        its.clock = max(its.clock, state.given_at_host)
        state.given_at_host += state.piece_bytes / state.weight
        return piece

    def moves(self, fetcher: str, now: float) -> None:
        """A fetcher takes what it is sent, though a limit makes that take long: it is not stuck."""
        state = self._fetchers[fetcher]
        if state.slot_since is not None:
            state.slot_since = now

    def grant(self, now: float) -> list[str]:
        """Give free slots to those who are first in line, and return them."""
        granted: list[str] = []
        while self._line and self._slots_in_use(now) < self.slots:
            able = list(self._line)
            if self._weighted:
                able = [name for name in able if not self._gives_way(self._fetchers[name], now)]
            if not able:
                break
            first = min(able, key=lambda name: (self._fetchers[name].given, self._fetchers[name].joined))
            del self._line[first]
            state = self._fetchers[first]
            if state.asked:
                state.slot_since, state.piece_since, state.turn_bytes = now, now, 0
                granted.append(first)
        return granted

    @property
    def is_held_back(self) -> bool:
        """Whether somebody may stand in line, slots or none, for another of its host to get ahead."""
        return bool(self._line and self._weighted)

    def waiting(self) -> list[str]:
        """Who stands in line."""
        return list(self._line)

    def is_asking(self, fetcher: str) -> bool:
        """Whether a fetcher asks for something that is not begun."""
        return self._fetchers[fetcher].asked != 0

    def is_waiting(self, fetcher: str) -> bool:
        """Whether a fetcher stands in line."""
        return fetcher in self._line

    def _join(self, fetcher: str, state: _Fetcher, *, lag_bytes: float = 0) -> None:
        self._joined += 1
        state.joined = self._joined
        state.given = max(state.given, self._clock - lag_bytes)
        self._line[fetcher] = None

    def _gives_way(self, state: _Fetcher, now: float) -> bool:
        """Whether another download is behind that this one may not be ahead of, and makes use of being let past."""
        if not self._weighted:
            return False
        if (
            state.weight < 1
            and self._is_foreground(state, now)
            and (self._ahead > 0 or self._is_one_behind(state, now))
        ):
            return True
        return bool(state.host) and any(
            other.weight != state.weight
            and other.given_at_host < state.given_at_host
            and not (other.weight < 1 <= state.weight and self._ahead > 0)  # that one waits for this
            and self._is_quick(other, state, now)
            for other in self._hosts[state.host].fetchers.values()
        )

    def _is_quick(self, other: _Fetcher, state: _Fetcher, now: float) -> bool:
        """Whether another fetcher waits for its turn, or takes its piece about as quickly as this one took its last."""
        if other.slot_since is None:
            return other.asked != 0
        return now - other.piece_since < min(max(HOLD_S, HOLD_FACTOR * state.byte_s * other.piece_bytes), STUCK_S)

    def _is_foreground(self, state: _Fetcher, now: float) -> bool:
        """Whether anybody who is not in the background makes use of being let past by this one."""
        return any(
            other.weight >= 1 and (self._is_quick(other, state, now) or now < other.lingers_until)
            for other in self._fetchers.values()
        )

    def _is_one_behind(self, state: _Fetcher, now: float) -> bool:
        """Whether another one in the background has a slot: two would make the others look slow."""
        return any(
            other is not state and other.weight < 1 and _is_sent_to(other, now) for other in self._fetchers.values()
        )

    def _count_ahead(self, state: _Fetcher, now: float) -> None:
        """A piece is begun: what the background gets puts it ahead, what others get lets it come back.

        While it is alone, it is ahead by what is being sent: that is still on the line when another comes.
        """
        if state.weight >= 1:
            self._ahead = max(0.0, self._ahead - state.piece_bytes)
        elif self._is_foreground(state, now):
            self._ahead += MARGIN * state.piece_bytes / state.weight
        else:
            begun = [other for other in self._fetchers.values() if other.weight < 1 and _is_sent_to(other, now)]
            self._ahead = sum(MARGIN * other.piece_bytes / other.weight for other in begun)

    def _slots_in_use(self, now: float) -> int:
        return sum(_is_sent_to(state, now) for state in self._fetchers.values())


def _is_sent_to(state: _Fetcher, now: float) -> bool:
    """Whether a fetcher has a slot, and makes use of it."""
    return state.slot_since is not None and now - state.slot_since < STUCK_S
