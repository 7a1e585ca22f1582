"""Answers to a challenge, compared."""

import pytest

from interfiles.placement.challenges import judge

RIGHT, WRONG, OTHER = b"r" * 32, b"w" * 32, b"o" * 32


@pytest.mark.parametrize(
    ("digests", "failed", "is_open"),
    [
        ({"a": RIGHT, "b": RIGHT, "c": RIGHT}, "", False),
        ({"a": RIGHT, "b": RIGHT, "c": WRONG}, "c", False),
        ({"a": RIGHT, "b": RIGHT, "c": b""}, "c", False),
        ({"a": RIGHT, "b": b"", "c": b""}, "bc", False),
        ({"a": RIGHT, "b": RIGHT}, "", False),
        ({"a": RIGHT, "b": b""}, "b", False),
        ({"a": RIGHT, "b": WRONG}, "", True),
        ({"a": RIGHT, "b": WRONG, "c": b""}, "c", True),
        ({"a": RIGHT, "b": WRONG, "c": OTHER}, "", True),
        ({"a": b"", "b": b""}, "ab", False),
        ({"a": RIGHT}, "", False),
        ({}, "", False),
    ],
)
def test_the_answer_that_most_give_is_the_right_one(digests: dict[str, bytes], failed: str, is_open: bool) -> None:
    verdict = judge(digests)
    assert (verdict.failed, verdict.is_open) == (frozenset(failed), is_open)
