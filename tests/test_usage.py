"""The parser's messages in our words."""

import pytest

from interfiles.usage import sentence


@pytest.mark.parametrize(
    ("message", "ours"),
    [
        ("Invalid value for '-n': 'x' is not a valid int range.", "invalid value for '-n': 'x' is not a whole number"),
        ("Invalid value for '-n': 'x' is not a valid integer.", "invalid value for '-n': 'x' is not a whole number"),
        ("Invalid value: 0 is not in the range 1<=x<=1000.", "invalid value: 0 is not from 1 to 1000"),
        ("Invalid value: -1 is not in the range x>=0.", "invalid value: -1 is not 0 or more"),
        ("Got unexpected\n  extra argument (a valid integral)", "got unexpected extra argument (a valid integral)"),
    ],
)
def test_a_sentence_of_ours(message: str, ours: str) -> None:
    assert sentence(message) == ours
