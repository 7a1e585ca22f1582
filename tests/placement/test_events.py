"""The event log: numbers, pages, and what falls out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interfiles.placement.events import MAX_EVENTS, MAX_REASON_LENGTH, EventLog

FILE = b"f" * 32


def log_of(count: int, *, capacity: int = MAX_EVENTS) -> EventLog:
    log = EventLog(capacity)
    for at in range(count):
        log.add("live", at=at, host=f"{at:032x}")
    return log


def test_events_are_numbered_from_1_and_keep_what_they_are_about() -> None:
    log = EventLog()
    assert log.newest == 0
    assert (log.since(0, 10).events, log.since(0, 10).more) == ([], False)
    log.add("joined", at=5.0, host="ab", host_name="render-07", reason="by a token")
    event = log.add("failed", at=6.5, host="ab", host_name="render-07", file=FILE, file_name="weights", reason="full")
    assert (event.sequence, event.at, event.kind, event.host, event.host_name) == (2, 6.5, "failed", "ab", "render-07")
    assert (event.file, event.file_name, event.reason) == (FILE, "weights", "full")
    assert [(event.sequence, event.kind) for event in log.since(0, 10).events] == [(1, "joined"), (2, "failed")]
    assert log.newest == 2


def test_a_long_reason_is_cut() -> None:
    log = EventLog()
    assert log.add("failed", at=0, reason="x" * MAX_REASON_LENGTH).reason == "x" * MAX_REASON_LENGTH
    reason = log.add("failed", at=0, reason="x" * (MAX_REASON_LENGTH + 1)).reason
    assert reason == "x" * (MAX_REASON_LENGTH - 1) + "…"


@pytest.mark.parametrize(
    ("after", "count", "numbers", "missed", "more"),
    [
        (0, 3, [3, 4, 5], 2, True),  # 1 and 2 have fallen out
        (2, 3, [3, 4, 5], 0, True),
        (2, 5, [3, 4, 5, 6, 7], 0, False),
        (5, 9, [6, 7], 0, False),
        (7, 9, [], 0, False),
        (99, 9, [], 0, False),
        (0, 0, [], 2, True),
    ],
)
def test_a_page_says_what_fell_out_before_it_and_whether_there_is_more(
    after: int, count: int, numbers: list[int], missed: int, more: bool
) -> None:
    page = log_of(7, capacity=5).since(after, count)
    assert ([event.sequence for event in page.events], page.missed, page.more) == (numbers, missed, more)


def test_it_is_bounded() -> None:
    log = log_of(MAX_EVENTS + 5)
    page = log.since(0, 2 * MAX_EVENTS)
    assert (len(page.events), page.missed) == (MAX_EVENTS, 5)


@given(st.integers(1, 20), st.lists(st.one_of(st.integers(1, 30), st.none())), st.integers(1, 7))
def test_who_reads_page_by_page_misses_just_what_it_is_told(
    capacity: int, script: list[int | None], count: int
) -> None:
    """A number adds so many events, None reads a page."""
    log, after, seen, missed = EventLog(capacity), 0, list[int](), 0
    for step in [*script, *[None] * 40]:
        for at in range(step or 0):
            log.add("live", at=at)
        if step is None:
            page = log.since(after, count)
            seen += [event.sequence for event in page.events]
            missed += page.missed
            after = seen[-1] if seen else 0
    assert seen == sorted(set(seen))
    assert len(seen) + missed == log.newest
