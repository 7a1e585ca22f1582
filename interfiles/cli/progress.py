"""Progress while a daemon works: a bar on a terminal; elsewhere only what is waited for, if anything is."""

import sys
import time
from typing import TYPE_CHECKING, Final, Protocol, Self

from interfiles.cli import output
from interfiles.cli.phrases import part_of, percent, time_left
from interfiles.cli.tables import cells, crop
from interfiles.errors import printable
from interfiles.units import format_bytes, format_count, format_duration, format_rate

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from interfiles.wire.control_messages import Progress

_LABELS: Final = {
    "hashing": "Hashing ",
    "checking": "Checking ",
    "verifying": "Verifying ",
    "finishing": "Finishing ",
    "publishing": "Publishing ",
}
_WITHOUT_BAR: Final = ("finishing", "publishing")
_WAITING: Final = ("waiting", "replicating")  # in these a text says what is waited for
_MIN_REDRAW_S: Final = 0.1  # a person reads no faster, and a daemon may tell more often
# Of a screen so wide the bar takes so much: the figures say more than it does, so they have their room first.
_BAR_CELLS: Final = ((90, 20), (80, 14), (60, 8), (0, 0))
_GAP: Final = "  "


class View(Protocol):
    """Takes progress, as a context manager around an operation. `started`: the daemon has taken the request on."""

    started: bool

    def __call__(self, progress: "Progress") -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None: ...


def view() -> View:
    """The way to show progress that fits stderr."""
    screen = output.Screen.of(sys.stderr)
    return Silence() if screen.width is None or screen.is_dumb else Bar()


class Silence:
    """Says only, once for every wait, what is waited for."""

    def __init__(self) -> None:
        self.started = False
        self._waiting = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        pass

    def __call__(self, progress: "Progress") -> None:
        self.started = True
        waiting = progress.phase in _WAITING and bool(progress.text)
        if waiting and not self._waiting:
            output.tell(waiting_sentence(progress))
        self._waiting = waiting


class Bar:
    """One line that is drawn again and again; hashing leaves its line behind, for nothing else tells its speed."""

    def __init__(self) -> None:
        self.started = False
        self._last: Progress | None = None
        self._phase_began = time.monotonic()
        self._drawn_at = 0.0
        self._waiting_for = ""
        self._live: Live | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._live is None:
            return
        if kind is None:
            self._leave_phase()
        elif self._last is not None:
            self._draw(self._last)
        # What failed or was interrupted stays on the screen, to show how far it came.
        self._live.transient = kind is None
        self._live.stop()

    def __call__(self, progress: "Progress") -> None:
        self.started = True
        live = self._begin() if self._live is None else self._live
        now = time.monotonic()
        changed = self._last is None or self._last.phase != progress.phase
        if self._last is not None and changed:
            self._leave_phase()
            self._phase_began, self._waiting_for = now, ""
        self._last = progress
        if progress.phase in _WAITING:
            if progress.text and not self._waiting_for:
                live.console.print(waiting_sentence(progress), markup=False, highlight=False)
            self._waiting_for = progress.text
        if changed or now - self._drawn_at >= _MIN_REDRAW_S:
            self._drawn_at = now
            self._draw(progress)

    def _begin(self) -> "Live":
        self._live = _live()
        return self._live

    def _draw(self, progress: "Progress") -> None:
        if self._live is not None:
            parts = progress_parts(progress, time.monotonic() - self._phase_began)
            self._live.update(_line(self._live.console, parts, progress), refresh=True)

    def _leave_phase(self) -> None:
        """Another phase follows, or success: what was under way is done, whatever was told of it last."""
        last, live = self._last, self._live
        if last is None or live is None or last.phase != "hashing":
            return
        parts = finished_parts(last, time.monotonic() - self._phase_began)
        live.console.print(_line(live.console, parts, last, done=True), crop=True, no_wrap=True)


class StatusLine:
    """One line of text that is written again and again on a terminal, and nowhere else; remarks go above it.

    `is_shown`: there is a terminal for it.
    """

    def __init__(self) -> None:
        screen = output.Screen.of(sys.stderr)
        self.is_shown = screen.width is not None and not screen.is_dumb
        self._live: Live | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, text: str) -> None:
        """Write the text, already printable, in place of what is there."""
        if not self.is_shown:
            return
        from rich.text import Text

        if self._live is None:
            self._live = _live(transient=True)
        self._live.update(Text(crop(text, max(1, self._live.console.width)), no_wrap=True), refresh=True)

    def remark(self, sentence: str) -> None:
        """Say something that stays, already printable."""
        if self._live is None:
            output.tell(sentence)
        else:
            self._live.console.print(sentence, markup=False, highlight=False)


def _live(*, transient: bool = False) -> "Live":
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True, highlight=False)
    live = Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False, transient=transient)
    live.start()
    return live


def _line(console: "Console", parts: list[str], progress: "Progress", *, done: bool = False) -> "Text":
    from rich.text import Text

    label, bar, rest = fit_parts(parts, progress, console.width)
    line = Text(label, no_wrap=True, overflow="crop")
    if bar is not None:
        full, empty = ("#", "-") if console.options.ascii_only else ("█", "░")
        filled, left = (sum(bar), 0) if done else bar
        line.append(_GAP).append(full * filled, style="cyan").append(empty * left, style="dim")
    return line.append("".join(_GAP + part for part in rest))


def waiting_sentence(progress: "Progress") -> str:
    """What is waited for, and what happens when the command is left."""
    left = "ends the wait, not the copying" if progress.phase == "replicating" else "leaves it queued"
    return f"interfiles: {printable(progress.text).rstrip('.')}. Waiting; Ctrl-C {left}."


def progress_parts(progress: "Progress", phase_s: float) -> list[str]:
    """The figures beside the bar, the most telling first; `phase_s`: seconds since the phase began."""
    if progress.phase == "waiting":
        known = [percent(progress.done, progress.total)] if progress.total else []
        return [*known, f"waiting {format_duration(int(phase_s))}"]
    remark = [printable(progress.text)] if progress.text else []
    if progress.phase == "replicating":
        known = [f"{progress.done:,} of {format_count(progress.total, 'copy', 'copies')}"] if progress.total else []
        return known + ([f"{progress.peers:,} under way"] if progress.peers else []) + remark
    if progress.phase in _WITHOUT_BAR:
        return remark
    if not progress.total:
        return [format_bytes(progress.done), *remark] if progress.done else remark
    parts = [f"{percent(progress.done, progress.total):>5}", part_of(progress.done, progress.total)]
    if progress.rate:
        parts.append(format_rate(progress.rate))
    if left := time_left(progress.done, progress.total, progress.rate):
        parts.append(f"{left} left")
    if progress.peers:
        parts.append(f"from {format_count(progress.peers, 'host')}")
    return parts + remark


def finished_parts(progress: "Progress", phase_s: float) -> list[str]:
    """The figures of a phase that is done."""
    rate = format_rate(progress.total / phase_s) if phase_s else ""
    return [part for part in (format_bytes(progress.total), rate, f"done in {format_duration(phase_s)}") if part]


def fit_parts(parts: list[str], progress: "Progress", width: int) -> tuple[str, tuple[int, int] | None, list[str]]:
    """What a line of `width` columns has room for: label, filled and empty cells of the bar, and the first figures."""
    label = crop(_LABELS.get(progress.phase, "") + printable(progress.name), max(1, width // 3))
    used = cells(label)
    bar = None
    length = next(bar_cells for columns, bar_cells in _BAR_CELLS if width >= columns)
    if length and progress.total and progress.phase not in _WITHOUT_BAR:
        filled = length * min(progress.done, progress.total) // progress.total
        bar = (filled, length - filled)
        used += len(_GAP) + length
    fitting = []
    for part in parts:
        used += len(_GAP) + cells(part)
        if used > width:
            break
        fitting.append(part)
    return label, bar, fitting
