"""What keeps a daemon going, and what stops it.

Errors stop at a boundary: `contain` for one conversation, `supervise` for work that must go on for ever. A boundary
knows which errors the world may cause (`expected`); any other is a bug of ours and is logged as ERROR with its
traceback, and the tests fail on any ERROR record. Both match inside exception groups, so that a failure which
arrives together with a cancellation is logged too, and the cancellation goes on.

`run_daemon` is the shell around a whole daemon: signals, readiness, and an end in bounded time.
"""

import gc
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Final, NoReturn, Protocol

import structlog
import trio
from structlog.typing import FilteringBoundLogger

from daemons.notify import Notifier
from interfiles.errors import INTERRUPTED, InterFilesError, LocalProtocolError, printable

_log: Final = structlog.get_logger()

_NEW_OBJECTS: Final = 10_000
_ROUNDS: Final = 10
# One line of the log names at most so many reasons.
_MAX_REASONS: Final = 3


class Backoff:
    """Delays that double from `floor_s` to `cap_s`, each drawn at random up to its ceiling ("full jitter").

    Hosts that lost their master at one instant come back spread out.
    """

    def __init__(self, rng: Random, *, floor_s: float, cap_s: float) -> None:
        if not 0 < floor_s <= cap_s:
            raise ValueError(f"a backoff needs 0 < floor_s <= cap_s, not {floor_s} and {cap_s}")
        self._rng = rng
        self._floor_s = floor_s
        self._cap_s = cap_s
        self._ceiling_s = floor_s

    def next(self) -> float:
        """Draw the next delay, in seconds, and double the ceiling."""
        self._ceiling_s = min(self._cap_s, self._ceiling_s * 2)
        return self._rng.uniform(self._floor_s, self._ceiling_s)

    def limit(self, cap_s: float) -> None:
        """From now on wait `cap_s` at the longest, but not less than the floor."""
        self._cap_s = max(cap_s, self._floor_s)
        self._ceiling_s = min(self._ceiling_s, self._cap_s)

    def reset(self) -> None:
        """Start from the floor again: the work succeeded."""
        self._ceiling_s = self._floor_s


async def contain(
    name: str,
    run: Callable[[], Awaitable[object]],
    *,
    expected: tuple[type[Exception], ...],
    log: FilteringBoundLogger,
) -> None:
    """Run one conversation, and let no Exception out of it.

    Expected errors give one info line, any other one ERROR line with its traceback.

    Cancellation:
      Passes through, as do KeyboardInterrupt and SystemExit.
    """
    await _attempt(name, run, expected, log, dict)


async def supervise(
    name: str,
    run: Callable[[], Awaitable[object]],
    *,
    expected: tuple[type[Exception], ...],
    backoff: Backoff,
    log: FilteringBoundLogger,
) -> NoReturn:
    """Run `run` again and again, for ever, with a delay from `backoff` between.

    Expected errors give one info line, any other one ERROR line with its traceback; both are retried, and so is a
    `run` that returned. Let `run` call `backoff.reset()` once it has succeeded, for instance when it is connected.

    Cancellation:
      Passes through, and is the only way to end it.
    """
    delay_s = 0.0

    def retry() -> dict[str, object]:
        nonlocal delay_s
        delay_s = backoff.next()
        return {"retry_in_s": round(delay_s, 3)}

    while True:
        await _attempt(name, run, expected, log, retry)
        await trio.sleep(delay_s)


async def _attempt(
    name: str,
    run: Callable[[], Awaitable[object]],
    expected: tuple[type[Exception], ...],
    log: FilteringBoundLogger,
    further_fields: Callable[[], dict[str, object]],
) -> None:
    failed: ExceptionGroup[Exception] | None = None
    bug: ExceptionGroup[Exception] | None = None
    try:
        try:
            await run()
        except* LocalProtocolError as group:  # of all errors of ours, the one that is a bug
            bug = group
        except* expected as group:
            failed = group
        except* Exception as group:  # noqa: BLE001 - the boundary itself
            bug = group
    finally:  # also when a cancellation, which came in the same group, travels on
        fields = further_fields()
        if failed is not None:
            log.info("failed", task=name, reason=_reasons(failed), **fields)
        if bug is not None:
            log.error("bug", task=name, exc_info=_sole_leaf(bug), **fields)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for child in error.exceptions:
            yield from _leaves(child)
    else:
        yield error


def first_leaf(error: BaseException) -> BaseException:
    """The first exception inside nested groups: the one to tell a person."""
    return next(_leaves(error))


def _sole_leaf(error: BaseException) -> BaseException:
    """The one exception inside nested groups of one, whose traceback reads best; else the group."""
    leaves = list(_leaves(error))
    return leaves[0] if len(leaves) == 1 else error


def _reasons(error: BaseException) -> str:
    shown = list(dict.fromkeys(printable(str(leaf)) or type(leaf).__name__ for leaf in _leaves(error)))
    more = len(shown) - _MAX_REASONS
    return "; ".join(shown[:_MAX_REASONS]) + (f"; and {more} more" if more > 0 else "")


class DaemonMain(Protocol):
    """A daemon's body: calls `task_status.started()` once it serves, and then serves until it is cancelled.

    Its cleanup runs in shielded scopes with deadlines; what outlasts the drain time is cut off with the process.
    """

    async def __call__(self, *, task_status: trio.TaskStatus[None]) -> None: ...


async def run_daemon(
    main: DaemonMain,
    *,
    drain_timeout_s: float,
    notifier: Notifier,
    exit_now: Callable[[int], NoReturn] = os._exit,
) -> None:
    """Run `main` until it ends or a signal ends it; print `ready` on stdout and tell systemd once it serves.

    The first SIGTERM or SIGINT cancels `main`, which then has `drain_timeout_s` to clean up. A second one, or the end
    of that time, ends the process at once by `exit_now`. SIGHUP is ignored: a daemon outlives its terminal.

    Raises:
      Whatever `main` raises; an error that is alone in its exception groups comes out without them.
    """
    try:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            async with trio.open_nursery() as nursery:
                main_scope = trio.CancelScope()
                nursery.start_soon(_stop_on_signal, signals, main_scope, drain_timeout_s, notifier, exit_now)
                nursery.start_soon(notifier.feed_watchdog)
                with main_scope:
                    async with trio.open_nursery() as inner:
                        await inner.start(main)
                        _announce_ready(notifier)
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        leaf = _sole_leaf(group)
        if leaf is group:
            raise
        raise leaf from leaf.__cause__


async def _stop_on_signal(
    signals: AsyncIterator[int],
    main_scope: trio.CancelScope,
    drain_timeout_s: float,
    notifier: Notifier,
    exit_now: Callable[[int], NoReturn],
) -> None:
    first = await _stop_signal(signals)
    _log.info("stopping", signal=first.name, drain_timeout_s=drain_timeout_s)
    notifier.stopping()
    main_scope.cancel()
    with trio.move_on_after(drain_timeout_s):
        second = await _stop_signal(signals)
        _log.warning("stopped before the cleanup ended", signal=second.name)
        exit_now(128 + second)
    _log.warning("cleanup took too long", drain_timeout_s=drain_timeout_s)
    exit_now(1)


async def _stop_signal(signals: AsyncIterator[int]) -> signal.Signals:
    while True:
        number = await anext(signals)
        if number != signal.SIGHUP:
            return signal.Signals(number)
        _log.info("ignored", signal="SIGHUP")


def spare_collector(*, new_objects: int = _NEW_OBJECTS, rounds: int = _ROUNDS) -> None:
    """Have the garbage collector pass over all that was made so far, and look less often at what is made from now on.

    Modules and classes stay; a daemon that moves pieces would spend a twentieth of its time on going through them.
    `new_objects`: that are made and not freed between two looks for cycles among them; `rounds`: such looks before one
    at those that were there already, each time.
    """
    gc.freeze()
    gc.set_threshold(new_objects, rounds, rounds)


def _announce_ready(notifier: Notifier) -> None:
    try:
        print("ready", flush=True)  # noqa: T201 - the contract: scripts wait for this line
    except OSError as error:  # nobody reads stdout: no reason not to serve
        _log.info("nobody reads stdout", reason=str(error))
        with open(os.devnull, "wb") as devnull:  # takes what is left in the buffer, which the exit would trip over
            os.dup2(devnull.fileno(), sys.stdout.fileno())
    notifier.ready()


@contextmanager
def exit_with_sentence() -> Iterator[None]:
    """The outermost edge of a daemon's process: an InterFilesError becomes one sentence on stderr and its exit code.

    Raises:
      SystemExit: with the first error's exit code, or 130 after Ctrl-C.
    """
    try:
        yield
    except (InterFilesError, ExceptionGroup) as error:
        leaves = list(_leaves(error))
        told = [leaf for leaf in leaves if isinstance(leaf, InterFilesError)]
        if len(told) < len(leaves):  # a bug among them: its traceback is wanted
            raise
        for leaf in told:
            sentence = printable(str(leaf)).removesuffix(".")
            print(f"interfiles: {sentence}.", file=sys.stderr)  # noqa: T201 - where the person looks
        raise SystemExit(told[0].exit_code) from error
    except KeyboardInterrupt as interrupt:
        raise SystemExit(INTERRUPTED) from interrupt


def raise_file_limit() -> int:
    """Raise the number of files that this process may open to the most it is allowed; return that number.

    The usual soft limit of 1,024 stands for the sake of old programs that call select(); a swarm needs more.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
