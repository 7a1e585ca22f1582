"""The tree of errors: each code is one class, every exit code is of the CLI's contract, names are shown harmlessly."""

import ast
import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interfiles import errors
from interfiles.errors import InterFilesError, Refused, from_wire, printable


def tree(base: type[InterFilesError] = InterFilesError) -> list[type[InterFilesError]]:
    return [base] + [found for child in base.__subclasses__() for found in tree(child)]


def test_every_class_has_a_code_of_its_own() -> None:
    codes = [cls.code for cls in tree()]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize("cls", tree())
def test_an_error_survives_the_wire(cls: type[InterFilesError]) -> None:
    received = from_wire(cls.code, "the sentence")
    assert type(received) is cls
    assert str(received) == "the sentence"


@pytest.mark.parametrize("cls", tree())
def test_exit_codes_are_those_of_the_contract(cls: type[InterFilesError]) -> None:
    assert cls.exit_code in {2, 3, 4, 5, 6, 7, 8, 9}


def test_an_unknown_code_from_a_newer_version_is_a_refusal() -> None:
    received = from_wire("moon-phase", "the moon is wrong")
    assert type(received) is Refused
    assert received.exit_code == errors.REFUSED


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("weights.tracker", "weights.tracker"),
        ("a\\b", "a\\b"),
        ("", ""),
        ("évil 文件 ملف שם 🗂 e\u0301", "évil 文件 ملف שם 🗂 e\u0301"),
        ("evil\x1b[2J.txt", "evil\\x1b[2J.txt"),
        ("two\nlines\r\t\x00", "two\\x0alines\\x0d\\x09\\x00"),
        ("\x7f\x9b31m", "\\x7f\\x9b31m"),
        ("\x1b]52;c;aGk=\x07", "\\x1b]52;c;aGk=\\x07"),
        ("cod\u202egnp.exe", "cod\\u202egnp.exe"),
        ("\u2066a\u2069\u200b\u200f\ufeff", "\\u2066a\\u2069\\u200b\\u200f\\ufeff"),
        ("\u2028\u2029", "\\u2028\\u2029"),
        ("\ud800", "\\ud800"),
        ("\U000e0001", "\\U000e0001"),
    ],
)
def test_printable(name: str, shown: str) -> None:
    assert printable(name) == shown


@given(st.text())
def test_printable_leaves_nothing_that_moves_a_cursor_or_reorders_a_line(text: str) -> None:
    shown = printable(text)
    assert not {unicodedata.category(character) for character in shown} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert len(shown.splitlines()) <= 1
    assert printable(shown) == shown


SPOKEN_BY_THE_API = ["control", "control_socket", "handing", "locations", "source", "tracker_place"]
SPOKEN_LATER = ["storage/finishing", "storage/part_layout", "storage/part_store"]


@pytest.mark.parametrize("module", [*SPOKEN_BY_THE_API, *SPOKEN_LATER])
def test_who_uses_the_python_api_is_told_of_no_options_of_the_command(module: str) -> None:
    """Nor who watches a download by `wait` or `status`, which lack those of `download`."""
    tree = ast.parse((Path(errors.__file__).parent / f"{module}.py").read_text())
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    texts = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    said = [text.value for text in texts if id(text) not in docstrings]
    assert [text for text in said if re.search(r"(^|[\s`'])--?[a-z]", str(text))] == []
