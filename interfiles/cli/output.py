"""Where output goes: results, or JSON where that was asked for, to stdout, and everything else to stderr."""

import io
import json
import os
import select
import shutil
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TextIO

import typer

from interfiles.errors import DONE, StorageFailed

_RESET: Final = "\x1b[0m"


def prepare_streams() -> None:
    """Let stdout and stderr show any name, even where their encoding has no letters for it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def emit(text: str) -> None:
    """Write a result and a newline to stdout.

    Raises:
      typer.Exit: whoever reads stdout has stopped (`| head`): there is nothing more to do.
      StorageFailed: it cannot be written.
    """
    if sys.stdout is None:  # it was closed before we started
        return
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except OSError as e:
        _drop_output()
        if isinstance(e, BrokenPipeError):
            raise typer.Exit(DONE) from e
        raise StorageFailed(f"the output cannot be written: {e.strerror or e}") from e


def is_unread() -> bool:
    """Whether whoever read stdout has gone, as `head` does: nobody would see what is written."""
    try:
        watched = select.poll()
        watched.register(sys.stdout, 0)  # asks for nothing but that
        return bool(watched.poll(0))
    except (OSError, ValueError, TypeError):  # it is closed, or no file
        return False


def emit_lines(lines: Iterable[str]) -> None:
    """Write the lines of a result to stdout, see `emit`."""
    emit("\n".join(lines))


def emit_json(value: object) -> None:
    """Write a report, or a list of reports, as one line of JSON to stdout; see `emit`.

    All of it is ASCII, so that no name in it can reach a terminal as a control or bidirectional character.
    """
    import msgspec

    emit(json.dumps(msgspec.to_builtins(value)))


def tell(text: str) -> None:
    """Write a remark and a newline to stderr, if there is one to write to."""
    if sys.stderr is not None:
        with suppress(OSError):
            sys.stderr.write(text + "\n")
            sys.stderr.flush()


def complain(sentence: str) -> None:
    """Write an error to stderr: one line that ends with a full stop."""
    tell(f"interfiles: {sentence.rstrip().removesuffix('.')}.")


def _drop_output() -> None:
    """Send what is still in stdout's buffer nowhere, or Python would complain about it at its end."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


@dataclass(frozen=True, slots=True)
class Screen:
    """What a stream can show: `width` in columns, None where it is no terminal and lines may be of any length.

    `is_dumb`: a terminal on which the cursor cannot be moved.
    """

    width: int | None = None
    colour: bool = False
    is_dumb: bool = False

    @classmethod
    def of(cls, stream: TextIO | None) -> "Screen":
        """Look at a stream; there is no colour in a pipe, on a dumb terminal, or where NO_COLOR is set."""
        if not is_terminal(stream):
            return cls()
        is_dumb = os.environ.get("TERM") == "dumb"
        return cls(shutil.get_terminal_size().columns, not is_dumb and not os.environ.get("NO_COLOR"), is_dumb)

    def paint(self, text: str, style: str) -> str:
        """The text in a style, the parameters of a terminal's colour sequence (`32`); empty: as it is."""
        return f"\x1b[{style}m{text}{_RESET}" if self.colour and style else text


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a person looks at this stream."""
    return stream is not None and not stream.closed and stream.isatty()
