"""What has been ordered and what became of it: the reconciler's memory from one plan to the next.

Hosts' announcements are the truth; this adds what they cannot tell: that an order is on its way to a host, that a copy
has not grown for long, who has failed and rests. All of it may be lost with the master: what is under way is announced
again, and what was asked for and not begun is ordered anew.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Final, Literal

from interfiles.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from interfiles.placement.standing import Copy
    from interfiles.wire.master_messages import Holding

ANSWER_S: Final = 30.0  # for a host to take or decline an order, or to give up what it was told to
MEND_S: Final = 30.0  # for a host to begin to mend a replica with bad bytes, before another is made elsewhere
STALLED_S: Final = 600.0  # that a copy on its way may go without gaining a piece,
MAX_RETURNS: Final = 3  # and anew when its host was away, so often between two gains
MIN_REST_S: Final = 60.0  # that a host which failed is given no orders, twice as long each time in a row,
MAX_REST_S: Final = 3600.0  # and no longer than this
MAX_REFUSED_FILES: Final = 10_000  # of which it is remembered who would not hold them
MAX_DECLINES: Final = 8  # of single files in a row, before a host counts as failing altogether
_COPIES: Final[dict[tuple[str, bool], Copy]] = {
    ("complete", False): "own",
    ("complete", True): "ordered",
    ("fetching", False): "coming",
    ("fetching", True): "arriving",
    ("waiting", True): "arriving",
}


@dataclass(frozen=True, slots=True)
class Ended:
    """An order came to its end: the copy is complete, was given up as told, or will not come, in words why.

    `stalled`: the host still tries, and is to be told to give up.
    """

    host_id: str
    outcome: Literal["complete", "released", "failed"]
    reason: str = ""
    stalled: bool = False


@dataclass(slots=True)
class _Watched:
    stage: Literal["asked", "arriving", "mending", "damaged", "declined", "releasing"]
    ordered: bool
    since: float  # of the stage, or when it gained a piece last
    pieces: int = 0  # the most that it has had
    is_away: bool = False  # as is its host
    returns: int = 0  # times that it went away since it gained a piece last
    size: int = 0  # bytes that are asked for, and that the host does not know of yet

    @property
    def is_on_its_way(self) -> bool:
        """Whether a copy comes by order, as far as is known."""
        return self.ordered and self.stage in ("asked", "arriving", "mending")

    def is_getting_on(self, pieces: int, now: float, *, is_up: bool) -> bool:
        """Note that the host has so many pieces; False: it has gained none for too long, and can be told so.

        What it loses and gains again is no gain, or one that loses what it has would be waited for without an end.
        """
        self.returns += not is_up and not self.is_away
        self.is_away = not is_up
        if pieces > self.pieces:
            self.pieces, self.since, self.returns = pieces, now, 0
        elif not is_up and self.returns <= MAX_RETURNS:
            self.since = now
        return not is_up or now - self.since < STALLED_S


@dataclass(slots=True)
class _Failures:
    in_a_row: int = 0
    declines: int = 0  # of single files, in a row
    rests_until: float = float("-inf")


class Orders:
    """Times are seconds on one clock, given as `now`."""

    def __init__(self) -> None:
        self._watched: dict[bytes, dict[str, _Watched]] = {}
        self._arriving: Counter[str] = Counter()  # ordered, asked or on their way, by host
        self._asked_bytes: Counter[str] = Counter()
        self._surplus: dict[bytes, float] = {}
        self._refused: dict[bytes, dict[str, float]] = {}
        self._unwilling: dict[bytes, dict[str, float]] = {}
        self._failures: dict[str, _Failures] = {}
        self._changed: set[str] = set()  # hosts that have other orders, or rest otherwise

    # What is done

    def ordered(self, file_id: bytes, host_id: str, size: int, now: float) -> None:
        """A host is told to get a copy of `size` bytes."""
        self._watch(file_id, host_id, _Watched("asked", True, now, size=size))

    def released(self, file_id: bytes, host_id: str, now: float) -> None:
        """A host is told to give its copy up."""
        self._watch(file_id, host_id, _Watched("releasing", True, now))

    def declined(self, file_id: bytes, host_id: str, *, rest_s: float, whole_host: bool, now: float) -> None:
        """A host will not hold a copy. `rest_s` above 0: it does not want this file, and is no place for it so long.

        Otherwise it has failed, and is not asked for this file for a while. `whole_host`: nor for others, as after
        `MAX_DECLINES` files in a row. What it has of the copy does not count until it is gone, which is no news.
        """
        if host_id in self._watched.get(file_id, {}):
            self._watch(file_id, host_id, _Watched("declined", True, now))
        if rest_s > 0:
            _keep(self._unwilling, file_id, host_id, now + rest_s)
        else:
            self._fail(file_id, host_id, now, whole_host=whole_host)

    def may_decline(self, file_id: bytes, host_id: str, now: float) -> bool:
        """Whether a host is asked for a copy, makes one by order, or has just given it up and may say why."""
        watched = self._watched.get(file_id, {}).get(host_id)
        if watched is None:
            return host_id in self.refused_by(file_id, now)
        return watched.is_on_its_way  # a host that cannot remove what it has declined says so again and again

    def lost(self, host_id: str, now: float) -> list[bytes]:
        """A host's connection is gone, and with it what it had not answered: return these files.

        It has failed with them, so that one which comes and goes is not asked anew each time.
        """
        if not self._arriving[host_id]:
            return []
        unanswered = [
            file_id
            for file_id, watched in self._watched.items()
            if (one := watched.get(host_id)) is not None and one.stage == "asked"
        ]
        for file_id in unanswered:
            self._unwatch(file_id, host_id)
            self._fail(file_id, host_id, now)
        return unanswered

    def settle(self, file_id: bytes) -> None:
        """There is nothing to be done for a file now; who would not hold it is remembered."""
        for host_id in list(self._watched.get(file_id, ())):
            self._unwatch(file_id, host_id)
        self._surplus.pop(file_id, None)

    def forget_file(self, file_id: bytes) -> None:
        """A file is not in the catalogue any more."""
        self.settle(file_id)
        self._refused.pop(file_id, None)
        self._unwilling.pop(file_id, None)

    def forget_host(self, host_id: str) -> list[bytes]:
        """A host is not of the fleet any more; return the files that it was making or giving up a copy of."""
        files = [file_id for file_id, watched in self._watched.items() if host_id in watched]
        for file_id in files:
            self._unwatch(file_id, host_id)
        self._succeed(host_id)
        for refusals in (self._refused, self._unwilling):
            for by_host in refusals.values():
                by_host.pop(host_id, None)
        return files

    # What is seen

    def notice(self, file_id: bytes, held: Mapping[str, Holding], up: Collection[str], now: float) -> list[Ended]:
        """Take in what hosts announce of a file; return what has come to an end since.

        `held`: every holding of it, by host; `up`: the hosts that can be told something now.
        """
        ended: list[Ended] = []
        all_watched = self._watched.get(file_id, {})
        for host_id, holding in held.items():
            if holding.state != "complete" or host_id in all_watched:  # else, as mostly, there is nothing to be noted
                self._notice_held(file_id, host_id, holding, up, now, ended)
        for host_id, watched in list(self._watched.get(file_id, {}).items()):
            if host_id not in held:
                self._notice_missing(file_id, host_id, watched, up, now, ended)
        return ended

    def copies(self, file_id: bytes, held: Mapping[str, Holding], now: float) -> dict[str, Copy]:
        """The copies of a file as a plan counts them."""
        copies = {host_id: _COPIES.get((one.state, one.ordered), "stuck") for host_id, one in held.items()}
        for host_id, until in self._unwilling.get(file_id, {}).items():
            if until > now:
                copies.setdefault(host_id, "stuck")
        if (all_watched := self._watched.get(file_id)) is None:
            return copies
        for host_id, watched in all_watched.items():
            if watched.stage == "asked":
                copies.setdefault(host_id, "arriving")
            elif watched.stage == "mending" and host_id in copies:
                copies[host_id] = "arriving"
            elif host_id in copies and (watched.stage in ("declined", "releasing") or now - watched.since >= STALLED_S):
                copies[host_id] = "stuck"
        return copies

    def _notice_held(
        self, file_id: bytes, host_id: str, holding: Holding, up: Collection[str], now: float, ended: list[Ended]
    ) -> None:
        copy = _COPIES.get((holding.state, holding.ordered), "stuck")
        watched = self._watched.get(file_id, {}).get(host_id)
        if watched is not None and watched.stage == "releasing":
            if now - watched.since >= ANSWER_S:
                self._unwatch(file_id, host_id)
        elif copy in ("arriving", "coming"):
            is_ordered = copy == "arriving"
            is_new = watched is None or watched.stage in ("asked", "mending", "damaged")
            if watched is None or is_new or watched.ordered != is_ordered:
                self._watch(file_id, host_id, _Watched("arriving", is_ordered, now, holding.pieces))
            elif not watched.is_getting_on(holding.pieces, now, is_up=host_id in up) and is_ordered:
                reason = f"it has gained nothing for {format_duration(STALLED_S)}"
                ended.append(Ended(host_id, "failed", reason, stalled=True))
                self._fail(file_id, host_id, now)
        elif holding.state == "damaged" and holding.ordered and (watched is None or watched.stage != "declined"):
            self._notice_damaged(file_id, host_id, watched, now)
        elif watched is not None:
            if copy == "ordered":
                ended.append(Ended(host_id, "complete"))
                self._succeed(host_id)
            self._unwatch(file_id, host_id)

    def _notice_damaged(self, file_id: bytes, host_id: str, watched: _Watched | None, now: float) -> None:
        """A replica has bad bytes: its host mends it by itself, which costs less than to make another."""
        if watched is None or watched.stage not in ("mending", "damaged"):
            self._watch(file_id, host_id, _Watched("mending", True, now))
        elif watched.stage == "mending" and now - watched.since >= MEND_S:
            self._watch(file_id, host_id, _Watched("damaged", True, watched.since))

    def _notice_missing(
        self, file_id: bytes, host_id: str, watched: _Watched, up: Collection[str], now: float, ended: list[Ended]
    ) -> None:
        if watched.stage == "asked" and now - watched.since < ANSWER_S:
            return
        self._unwatch(file_id, host_id)
        if watched.stage == "releasing":
            ended.append(Ended(host_id, "released"))
        elif watched.is_on_its_way and host_id in up:
            unanswered = f"it did not answer within {format_duration(ANSWER_S)}"
            reason = unanswered if watched.stage == "asked" else "it has given the copy up"
            ended.append(Ended(host_id, "failed", reason))
            self._fail(file_id, host_id, now)

    def is_releasing(self, file_id: bytes, host_id: str) -> bool:
        """Whether a host was told to give its copy up, and has not answered."""
        watched = self._watched.get(file_id, {}).get(host_id)
        return watched is not None and watched.stage == "releasing"

    def is_going(self, file_id: bytes) -> bool:
        """Whether a host is about to give its copy up, as it was told to or said."""
        return any(one.stage in ("declined", "releasing") for one in self._watched.get(file_id, {}).values())

    def surplus_since(self, file_id: bytes, now: float, *, has_surplus: bool) -> float | None:
        """Note whether a file has copies too many; return since when it has had them without a break."""
        if not has_surplus:
            self._surplus.pop(file_id, None)
            return None
        return self._surplus.setdefault(file_id, now)

    def surplus_due(self, until: float, most: int, without: Collection[bytes]) -> list[bytes]:
        """At most so many files that have had copies too many since then or longer, those first that have longest.

        `without`: these are left out.
        """
        due = takewhile(lambda one: one[1] <= until, self._surplus.items())
        return list(islice((file_id for file_id, _ in due if file_id not in without), most))

    def watched(self) -> set[bytes]:
        """Files with copies on their way, or being given up: these are to be noticed again and again."""
        return set(self._watched)

    # What plans need of it

    def arriving(self, host_id: str) -> int:
        """Ordered copies that a host fetches or is asked to."""
        return self._arriving[host_id]

    def asked_bytes(self, host_id: str) -> int:
        """The size of what a host is asked to hold, and does not count as held yet."""
        return self._asked_bytes[host_id]

    def rests_until(self, host_id: str) -> float:
        """When a host is given orders again."""
        failures = self._failures.get(host_id)
        return failures.rests_until if failures is not None else float("-inf")

    def failures_in_a_row(self, host_id: str) -> int:
        """How often a host has failed since it last completed an order."""
        failures = self._failures.get(host_id)
        return failures.in_a_row if failures is not None else 0

    def why_rests(self, host_id: str, now: float) -> str:
        """Why a host is given no orders, in words; empty: there is no such reason."""
        failures = self._failures.get(host_id)
        if failures is None or failures.rests_until <= now:
            return ""
        failed = "failed" if failures.in_a_row == 1 else f"failed {failures.in_a_row:,} times"
        return f"it {failed} and is given no copies for {format_duration(failures.rests_until - now)}"

    def refused_by(self, file_id: bytes, now: float) -> Mapping[str, float]:
        """The hosts that are not asked for a file, and until when."""
        refused = self._refused.get(file_id)
        if refused is None:
            return {}
        for host_id in [host_id for host_id, until in refused.items() if until <= now]:
            del refused[host_id]
        if not refused:
            del self._refused[file_id]
        return refused

    def changed(self) -> set[str]:
        """Hosts that may have other orders, or rest otherwise, than when this was asked last."""
        changed, self._changed = self._changed, set()
        return changed

    # Inside

    def _succeed(self, host_id: str) -> None:
        if self._failures.pop(host_id, None) is not None:
            self._changed.add(host_id)

    def _fail(self, file_id: bytes, host_id: str, now: float, *, whole_host: bool = True) -> None:
        failures = self._failures.setdefault(host_id, _Failures())
        if not whole_host:
            failures.declines += 1
            whole_host = failures.declines % MAX_DECLINES == 0
        if (
            whole_host and failures.rests_until <= now
        ):  # what fails at one time with another order is no further failure
            failures.in_a_row += 1
            failures.rests_until = now + _rest_s(failures.in_a_row)
            self._changed.add(host_id)
        _keep(self._refused, file_id, host_id, now + _rest_s(failures.in_a_row))

    def _watch(self, file_id: bytes, host_id: str, watched: _Watched) -> None:
        self._unwatch(file_id, host_id)
        self._watched.setdefault(file_id, {})[host_id] = watched
        if watched.is_on_its_way:
            self._arriving[host_id] += 1
            self._asked_bytes[host_id] += watched.size
            self._changed.add(host_id)

    def _unwatch(self, file_id: bytes, host_id: str) -> None:
        watched = self._watched.get(file_id, {}).pop(host_id, None)
        if watched is None:
            return
        if not self._watched[file_id]:
            del self._watched[file_id]
        if watched.is_on_its_way:
            self._arriving[host_id] -= 1
            self._asked_bytes[host_id] -= watched.size
            self._changed.add(host_id)
            if not self._arriving[host_id]:
                del self._arriving[host_id], self._asked_bytes[host_id]

    def check_invariants(self) -> None:
        """Raise AssertionError unless the counts are those of what is watched (for tests)."""
        arriving, asked = Counter[str](), Counter[str]()
        for watched in self._watched.values():
            assert watched, "a file is watched for nothing"
            for host_id, one in watched.items():
                if one.is_on_its_way:
                    arriving[host_id] += 1
                    asked[host_id] += one.size
        assert arriving == self._arriving, "copies on their way are miscounted"
        assert asked == self._asked_bytes, "asked bytes are miscounted"


def _keep(refusals: dict[bytes, dict[str, float]], file_id: bytes, host_id: str, until: float) -> None:
    """Remember until when a host is not asked for a file; of too many files the one longest known is forgotten."""
    if file_id not in refusals and len(refusals) >= MAX_REFUSED_FILES:
        del refusals[next(iter(refusals))]
    refusals.setdefault(file_id, {})[host_id] = until


def _rest_s(in_a_row: int) -> float:
    return min(MIN_REST_S * 2.0 ** min(max(in_a_row - 1, 0), 16), MAX_REST_S)
