"""What log lines look like, on a terminal, in a file and in the journal."""

import io
import os
import re
from pathlib import Path

import pytest
import structlog

from daemons.logs import configure_logging, stderr_is_journal


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class BrokenPipe(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


def logged(
    event: str = "failed", *, to_journal: bool = True, stream: io.StringIO | None = None, **fields: object
) -> str:
    stream = io.StringIO() if stream is None else stream
    configure_logging(level="info", to_journal=to_journal, stream=stream)
    structlog.get_logger().info(event, **fields)
    return stream.getvalue()


def test_a_line_has_time_level_event_and_fields() -> None:
    line = logged("joined", to_journal=False, fleet="7f3a", hosts=3)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z info    joined fleet=7f3a hosts=3\n", line)


def test_the_journal_gets_a_priority_and_no_time() -> None:
    assert logged("joined", fleet="7f3a") == "<6>joined fleet=7f3a\n"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("two words", '"two words"'),
        ("", '""'),
        ('say "x"', r'"say \"x\""'),
        ("a=b", '"a=b"'),
        ("evil\x1b[2J\nname", r"evil\x1b[2J\x0aname"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("данные", "данные"),
        (b"\x00\xff", "00ff"),
        (2.5, "2.5"),
        (None, "None"),
    ],
    ids=repr,
)
def test_values_are_unambiguous_and_harmless(value: object, shown: str) -> None:
    assert logged(value=value) == f"<6>failed value={shown}\n"


def test_a_traceback_follows_its_record_escaped_and_with_its_priority() -> None:
    stream = io.StringIO()
    configure_logging(level="info", to_journal=True, stream=stream)
    structlog.get_logger().error("bug", exc_info=KeyError("evil\x1b[2J"), task="peer")
    assert stream.getvalue() == "<3>bug task=peer\n<3>    KeyError: 'evil\\x1b[2J'\n"


def test_lesser_records_than_the_level_are_dropped() -> None:
    stream = io.StringIO()
    configure_logging(level="warning", to_journal=True, stream=stream)
    log = structlog.get_logger()
    log.info("asked")
    log.warning("slow")
    assert stream.getvalue() == "<4>slow\n"


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)], ids=["plain", "NO_COLOR"])
def test_colours_only_on_a_terminal_that_wants_them(
    no_color: str, coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    stream = Terminal()
    configure_logging(level="info", to_journal=False, stream=stream)
    structlog.get_logger().error("bug")
    assert ("\x1b[31merror" in stream.getvalue()) is coloured


def test_a_log_that_nobody_reads_harms_nobody() -> None:
    assert logged(stream=BrokenPipe()) == ""


def test_the_journal_is_known_by_its_device_and_inode(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stderr = (tmp_path / "stderr").open("w")
    monkeypatch.setattr("sys.stderr", stderr)
    found = os.fstat(stderr.fileno())
    assert stderr_is_journal({"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"})
    assert not stderr_is_journal({"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino + 1}"})
    assert not stderr_is_journal({})
    stderr.close()


def test_without_a_stderr_there_is_no_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", None)
    assert not stderr_is_journal({"JOURNAL_STREAM": "1:2"})
