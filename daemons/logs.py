"""Log lines for people and for the journal: `time level event key=value …`, one record to a line.

Values from other hosts reach these lines, so control and bidirectional characters are escaped everywhere. A traceback
follows its record, indented.
"""

import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, TextIO

import structlog
from structlog.typing import EventDict, WrappedLogger

from interfiles.errors import printable

# Syslog priorities, as the prefix `<n>` that the journal reads off each line (sd-daemon(3)).
_PRIORITIES: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
_COLOURS: Final = {"debug": "\x1b[2m", "warning": "\x1b[33m", "error": "\x1b[31m", "critical": "\x1b[31m"}
_RESET: Final = "\x1b[0m"


def configure_logging(*, level: str, to_journal: bool, stream: TextIO | None = None) -> None:
    """Send structlog's records of `level` ("debug", "info", "warning" or "error") and above to stderr, or `stream`.

    For the journal, which knows the time and shows priorities itself, lines carry a priority and no time. Colours
    appear only on a terminal, and never when NO_COLOR is set.
    """
    out = sys.stderr if stream is None else stream
    colours = not to_journal and out.isatty() and not os.environ.get("NO_COLOR")
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            _Renderer(to_journal=to_journal, colours=colours),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: _LineWriter(out),
        cache_logger_on_first_use=False,
    )


def stderr_is_journal(environ: Mapping[str, str]) -> bool:
    """Whether stderr goes to the journal: JOURNAL_STREAM names that very stream, as `device:inode`."""
    try:
        found = os.fstat(sys.stderr.fileno())
    except (AttributeError, OSError, ValueError):  # no stderr, a closed one, or one that is no file
        return False
    return environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


class _LineWriter:
    """The end of structlog's chain: writes lines, and outlives the terminal or pipe that they went to."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def msg(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # the terminal or pipe is gone, and there is nowhere to say so
            pass

    debug = info = warning = error = critical = msg


class _Renderer:
    def __init__(self, *, to_journal: bool, colours: bool) -> None:
        self._to_journal = to_journal
        self._colours = colours

    def __call__(self, logger: WrappedLogger, method: str, event_dict: EventDict) -> str:
        level = event_dict.pop("level")
        event = printable(str(event_dict.pop("event")))
        traceback = event_dict.pop("exception", "")
        fields = [f"{printable(key)}={_value(value)}" for key, value in event_dict.items()]
        lines = [" ".join([*self._start(level), event, *fields])]
        lines += [f"    {printable(line)}" for line in traceback.splitlines()]
        prefix = f"<{_PRIORITIES[level]}>" if self._to_journal else ""
        return "".join(f"{prefix}{line}\n" for line in lines)

    def _start(self, level: str) -> list[str]:
        if self._to_journal:
            return []
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        colour = _COLOURS.get(level) if self._colours else None
        return [now, f"{colour}{level:<7}{_RESET}" if colour else f"{level:<7}"]


def _value(value: Any) -> str:
    """Show one field's value; quotes keep `key=value` unambiguous where it has spaces, quotes or `=`."""
    text = value.hex() if isinstance(value, bytes) else printable(str(value))
    if text and not any(character in text for character in ' "='):
        return text
    return '"' + text.replace('"', '\\"') + '"'
