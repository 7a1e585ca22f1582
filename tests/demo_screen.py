"""The demo's screen: what is typed, what is said, and the bars of downloads that run at once."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Self

import msgspec
import trio
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from interfiles.cli.progress import fit_parts, progress_parts
from interfiles.units import format_bytes, format_duration

if TYPE_CHECKING:
    from interfiles.wire.control_messages import Progress
    from interfiles.wire.reports import DownloadReport

_REDRAW_S: Final = 0.1
_PLAIN_STEP_PERCENT: Final = 25

console: Final = Console(highlight=False, markup=False, emoji=False, soft_wrap=not sys.stdout.isatty())
_is_live: Final = console.is_terminal and not console.is_dumb_terminal


def say(sentence: str) -> None:
    """Tell the person something."""
    console.print()
    console.print(sentence)


def command(typed: str, *, on: str = "") -> None:
    """Show what a person would type; `on`: on which host."""
    console.print()
    where = Text(f"{on} ", style="dim") if on else Text()
    line(where.append("$ ", style="bold green").append(typed, style="bold"))


def line(text: Text) -> None:
    """Print what must stay one line; on a terminal its end may be missing."""
    console.print(text, no_wrap=True, overflow="ellipsis")


class Bars:
    """A line for each host: on a terminal a bar that is drawn again and again, elsewhere a line now and then."""

    def __init__(self, names: Sequence[str]) -> None:
        self._latest: dict[str, Progress | None] = dict.fromkeys(names)
        self._done: dict[str, str] = {}
        self._told: dict[str, int] = dict.fromkeys(names, 0)
        self._live = Live(console=console, auto_refresh=False) if _is_live else None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._draw()
            self._live.stop()

    def show(self, name: str, progress: "Progress") -> None:
        """Take what a host's daemon tells."""
        progress = msgspec.structs.replace(progress, name=name)
        self._latest[name] = progress
        percent = progress.done * 100 // progress.total if progress.total else 0
        if self._live is None and percent >= self._told[name] + _PLAIN_STEP_PERCENT:
            self._told[name] = percent
            console.print("  ".join([name, *progress_parts(progress, 0)]))

    def finish(self, name: str, report: "DownloadReport") -> None:
        """A host has it all."""
        text = f"done: {format_bytes(report.size)} in {format_duration(report.seconds)}, every piece verified"
        self._done[name] = text
        if self._live is None:
            console.print(f"{name}  {text}")

    async def draw(self) -> None:
        """Draw again and again, until cancelled."""
        while self._live is not None:
            self._draw()
            await trio.sleep(_REDRAW_S)

    def _draw(self) -> None:
        assert self._live is not None
        self._live.update(Group(*(self._text(name) for name in self._latest)), refresh=True)

    def _text(self, name: str) -> Text:
        if done := self._done.get(name):
            return Text.assemble(name, "  ", ("✔ ", "green"), done, no_wrap=True, overflow="ellipsis")
        progress = self._latest[name]
        if progress is None:
            return Text(name)
        label, bar, rest = fit_parts(progress_parts(progress, 0), progress, console.width)
        text = Text(label, no_wrap=True, overflow="crop")
        if bar is not None:
            text.append("  ").append("█" * bar[0], style="cyan").append("░" * bar[1], style="dim")
        return text.append("".join("  " + part for part in rest))
