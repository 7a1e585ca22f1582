"""Error boundaries, restarts and the shell around a daemon."""

import os
import resource
import signal
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import NoReturn

import pytest
import structlog
import trio

from daemons.notify import Notifier
from daemons.supervision import (
    Backoff,
    contain,
    exit_with_sentence,
    raise_file_limit,
    run_daemon,
    supervise,
)
from interfiles.errors import AddressInUse, ConnectFailed, InterFilesError, LocalProtocolError, NoSpace, PeerGone
from tests.conftest import LogRecords

LOG = structlog.get_logger()


def raising(error: BaseException) -> Callable[[], Awaitable[None]]:
    async def run() -> None:
        raise error

    return run


def lines(records: LogRecords) -> list[tuple[str, str, str]]:
    return [(record["level"], record["event"], record.get("reason", "")) for record in records.records]


class TestBackoff:
    def test_delays_double_up_to_the_cap(self) -> None:
        backoff = Backoff(Highest(), floor_s=0.5, cap_s=5)
        assert [backoff.next() for _ in range(6)] == [1, 2, 4, 5, 5, 5]

    def test_delays_never_fall_below_the_floor(self) -> None:
        backoff = Backoff(Lowest(), floor_s=0.5, cap_s=5)
        assert [backoff.next() for _ in range(6)] == [0.5] * 6

    def test_delays_are_spread_over_the_whole_range(self) -> None:
        backoff = Backoff(Random(1), floor_s=1, cap_s=100)
        late = [backoff.next() for _ in range(1000)][10:]
        assert min(late) < 5
        assert max(late) > 95

    def test_a_limit_holds_at_once_and_never_undercuts_the_floor(self) -> None:
        backoff = Backoff(Highest(), floor_s=1, cap_s=64)
        assert [backoff.next() for _ in range(4)] == [2, 4, 8, 16]
        backoff.limit(3)
        assert [backoff.next() for _ in range(2)] == [3, 3]
        backoff.limit(0.1)
        assert backoff.next() == 1

    def test_a_reset_starts_from_the_floor(self) -> None:
        backoff = Backoff(Highest(), floor_s=1, cap_s=64)
        assert [backoff.next() for _ in range(3)] == [2, 4, 8]
        backoff.reset()
        assert backoff.next() == 2

    @pytest.mark.parametrize(("floor_s", "cap_s"), [(0, 1), (-1, 1), (2, 1)], ids=str)
    def test_bounds_without_sense_are_refused(self, floor_s: float, cap_s: float) -> None:
        with pytest.raises(ValueError, match="0 < floor_s <= cap_s"):
            Backoff(Random(1), floor_s=floor_s, cap_s=cap_s)


class Highest(Random):
    def uniform(self, a: float, b: float) -> float:
        return b


class Lowest(Random):
    def uniform(self, a: float, b: float) -> float:
        return a


class TestContain:
    async def test_an_expected_error_is_one_info_line(self, log_records: LogRecords) -> None:
        await contain("peer", raising(PeerGone("render-04 closed the connection.")), expected=(PeerGone,), log=LOG)
        assert lines(log_records) == [("info", "failed", "render-04 closed the connection.")]
        assert log_records.records[0]["task"] == "peer"

    async def test_a_message_that_we_may_not_send_is_a_bug_whatever_is_expected(self, error_log: LogRecords) -> None:
        await contain("peer", raising(LocalProtocolError("too long")), expected=(InterFilesError,), log=LOG)
        assert [record["event"] for record in error_log.errors] == ["bug"]

    async def test_a_bug_is_one_error_line_with_its_traceback(self, error_log: LogRecords) -> None:
        await contain("peer", raising(KeyError("lost")), expected=(PeerGone,), log=LOG)
        assert lines(error_log) == [("error", "bug", "")]
        assert "in run\n    raise error" in error_log.records[0]["exception"]

    async def test_errors_in_groups_are_told_apart_and_equal_ones_named_once(self, error_log: LogRecords) -> None:
        error = ExceptionGroup("", [PeerGone("a"), ExceptionGroup("", [PeerGone("a"), KeyError("lost")])])
        await contain("peer", raising(error), expected=(PeerGone,), log=LOG)
        assert lines(error_log) == [("info", "failed", "a"), ("error", "bug", "")]

    async def test_a_line_names_few_reasons(self, log_records: LogRecords) -> None:
        error = ExceptionGroup("", [PeerGone(text) for text in "abcde"])
        await contain("peer", raising(error), expected=(PeerGone,), log=LOG)
        assert lines(log_records) == [("info", "failed", "a; b; c; and 2 more")]

    async def test_an_error_without_words_is_named(self, log_records: LogRecords) -> None:
        await contain("peer", raising(trio.BrokenResourceError()), expected=(trio.BrokenResourceError,), log=LOG)
        assert lines(log_records) == [("info", "failed", "BrokenResourceError")]

    async def test_success_logs_nothing(self, log_records: LogRecords) -> None:
        await contain("peer", trio.lowlevel.checkpoint, expected=(PeerGone,), log=LOG)
        assert log_records.records == []

    async def test_cancellation_passes(self, autojump_clock: trio.testing.MockClock) -> None:
        with trio.move_on_after(1) as scope:
            await contain("peer", trio.sleep_forever, expected=(PeerGone,), log=LOG)
        assert scope.cancelled_caught

    async def test_a_bug_that_comes_with_a_cancellation_is_logged_and_the_cancellation_passes(
        self, error_log: LogRecords, autojump_clock: trio.testing.MockClock
    ) -> None:
        async def fail_in_cleanup() -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise KeyError("lost")

        async def session() -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fail_in_cleanup)
                nursery.start_soon(trio.sleep_forever)

        with trio.move_on_after(1) as scope:
            await contain("peer", session, expected=(PeerGone,), log=LOG)
            pytest.fail("the cancellation was swallowed")
        assert scope.cancelled_caught
        assert lines(error_log) == [("error", "bug", "")]

    @pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)], ids=repr)
    async def test_the_wish_to_end_passes(self, error: BaseException) -> None:
        with pytest.raises(type(error)):
            await contain("peer", raising(error), expected=(PeerGone,), log=LOG)


class TestSupervise:
    async def test_it_retries_for_ever_with_growing_delays(
        self, log_records: LogRecords, autojump_clock: trio.testing.MockClock
    ) -> None:
        attempts = []

        async def dial() -> None:
            attempts.append(trio.current_time())
            raise ConnectFailed("nobody answers at 10.0.0.5:4850.")

        with trio.move_on_after(20):
            await supervise(
                "master link", dial, expected=(ConnectFailed,), backoff=Backoff(Highest(), floor_s=1, cap_s=8), log=LOG
            )
        assert attempts == [0, 2, 6, 14]
        assert lines(log_records)[0] == ("info", "failed", "nobody answers at 10.0.0.5:4850.")
        assert [record["retry_in_s"] for record in log_records.records] == [2, 4, 8, 8]

    async def test_success_resets_the_delay(self, autojump_clock: trio.testing.MockClock) -> None:
        attempts = []
        backoff = Backoff(Highest(), floor_s=1, cap_s=64)

        async def dial() -> None:
            attempts.append(trio.current_time())
            if len(attempts) == 3:
                backoff.reset()
            raise ConnectFailed("")

        with trio.move_on_after(13):
            await supervise("master link", dial, expected=(ConnectFailed,), backoff=backoff, log=LOG)
        assert attempts == [0, 2, 6, 8, 12]

    async def test_a_bug_is_an_error_and_retried_too(
        self, error_log: LogRecords, autojump_clock: trio.testing.MockClock
    ) -> None:
        with trio.move_on_after(5):
            await supervise(
                "sync", raising(KeyError("lost")), expected=(), backoff=Backoff(Highest(), floor_s=1, cap_s=4), log=LOG
            )
        assert lines(error_log) == [("error", "bug", "")] * 2

    async def test_work_that_returns_is_run_again(
        self, log_records: LogRecords, autojump_clock: trio.testing.MockClock
    ) -> None:
        runs = []

        async def run() -> None:
            runs.append(trio.current_time())

        with trio.move_on_after(5):
            await supervise("sync", run, expected=(), backoff=Backoff(Highest(), floor_s=1, cap_s=2), log=LOG)
        assert runs == [0, 2, 4]
        assert log_records.records == []


class ExitedNow(BaseException):
    """Stands for the end of the process."""


def exit_now(status: int) -> NoReturn:
    raise ExitedNow(status)


def run(
    main: Callable[[trio.TaskStatus[None]], Awaitable[None]], *, notifier: Notifier | None = None
) -> trio.testing.MockClock:
    """Run a daemon to its end with 10 seconds of drain time; the clock tells when that was."""

    async def body(*, task_status: trio.TaskStatus[None]) -> None:
        await main(task_status)

    async def daemon() -> None:
        await run_daemon(body, drain_timeout_s=10, notifier=notifier or Notifier(None), exit_now=exit_now)

    clock = trio.testing.MockClock(autojump_threshold=0)
    trio.run(daemon, clock=clock)
    return clock


class TestRunDaemon:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
    def test_it_says_ready_and_a_signal_stops_it(
        self, number: signal.Signals, capsys: pytest.CaptureFixture[str]
    ) -> None:
        async def main(task_status: trio.TaskStatus[None]) -> None:
            assert capsys.readouterr().out == ""
            task_status.started()
            await trio.sleep(5)
            assert capsys.readouterr().out == "ready\n"
            signal.raise_signal(number)
            await trio.sleep_forever()

        assert run(main).current_time() == 5

    def test_systemd_hears_of_start_and_stop_and_of_a_loop_that_turns(self, tmp_path: Path) -> None:
        async def main(task_status: trio.TaskStatus[None]) -> None:
            await trio.sleep(1)
            task_status.started()
            await trio.sleep(30)
            signal.raise_signal(signal.SIGTERM)
            await trio.sleep_forever()

        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as manager:
            manager.bind(str(tmp_path / "notify"))
            run(main, notifier=Notifier(manager.getsockname(), watchdog_interval_s=15))
            told = [manager.recv(100).decode() for _ in range(5)]
        assert told == ["WATCHDOG=1", "READY=1", "WATCHDOG=1", "WATCHDOG=1", "STOPPING=1"]

    def test_cleanup_may_take_the_drain_time(self) -> None:
        cleaned = []

        async def main(task_status: trio.TaskStatus[None]) -> None:
            task_status.started()
            signal.raise_signal(signal.SIGTERM)
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(9)
                cleaned.append(trio.current_time())

        run(main)
        assert cleaned == [9]

    def test_cleanup_that_hangs_is_cut_off(self, log_records: LogRecords) -> None:
        async def main(task_status: trio.TaskStatus[None]) -> None:
            task_status.started()
            signal.raise_signal(signal.SIGTERM)
            with trio.CancelScope(shield=True) as scope:
                scope.deadline = 1000  # so that the test ends where a process would have
                await trio.sleep_forever()

        with pytest.raises(ExitedNow, match=r"^1$"):
            run(main)
        assert ("warning", "cleanup took too long", "") in lines(log_records)

    def test_a_second_signal_ends_it_at_once(self) -> None:
        async def main(task_status: trio.TaskStatus[None]) -> None:
            task_status.started()
            signal.raise_signal(signal.SIGTERM)
            with trio.CancelScope(shield=True) as scope:
                scope.deadline = 9
                await trio.sleep(1)
                signal.raise_signal(signal.SIGINT)
                await trio.sleep_forever()

        with pytest.raises(ExitedNow, match=rf"^{128 + signal.SIGINT}$"):
            run(main)

    def test_a_hangup_is_ignored(self, log_records: LogRecords) -> None:
        async def main(task_status: trio.TaskStatus[None]) -> None:
            task_status.started()
            signal.raise_signal(signal.SIGHUP)
            await trio.sleep(5)

        assert run(main).current_time() == 5
        assert [record["event"] for record in log_records.records] == ["ignored"]

    def test_a_signal_during_the_start_stops_it_before_ready(self, capsys: pytest.CaptureFixture[str]) -> None:
        async def main(task_status: trio.TaskStatus[None]) -> None:
            signal.raise_signal(signal.SIGTERM)
            await trio.sleep_forever()

        run(main)
        assert capsys.readouterr().out == ""

    def test_a_start_that_fails_raises_its_error_bare(self, capsys: pytest.CaptureFixture[str]) -> None:
        async def main(task_status: trio.TaskStatus[None]) -> None:
            raise AddressInUse("port 4850 is taken.")

        with pytest.raises(AddressInUse, match="4850"):
            run(main)
        assert capsys.readouterr().out == ""

    def test_a_failure_deep_in_the_daemon_ends_it(self) -> None:
        async def fail() -> None:
            await trio.sleep(1)
            raise KeyError("lost")

        async def main(task_status: trio.TaskStatus[None]) -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fail)
                task_status.started()
                nursery.start_soon(trio.sleep_forever)

        with pytest.raises(KeyError, match="lost"):
            run(main)

    def test_it_serves_when_nobody_reads_stdout(self, monkeypatch: pytest.MonkeyPatch, log_records: LogRecords) -> None:
        async def main(task_status: trio.TaskStatus[None]) -> None:
            task_status.started()
            await trio.sleep(5)

        read_end, write_end = os.pipe()
        os.close(read_end)
        with os.fdopen(write_end, "w", buffering=1) as stdout:
            monkeypatch.setattr("sys.stdout", stdout)
            assert run(main).current_time() == 5
        assert [record["event"] for record in log_records.records] == ["nobody reads stdout"]


class TestExitWithSentence:
    def test_an_error_becomes_its_sentence_and_exit_code(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as ended, exit_with_sentence():
            raise NoSpace("/data has 12.1 GB free, weights\x1b[2J needs 18.4 GB.")
        assert ended.value.code == 8
        assert capsys.readouterr().err == "interfiles: /data has 12.1 GB free, weights\\x1b[2J needs 18.4 GB.\n"

    def test_several_errors_are_a_sentence_each(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as ended, exit_with_sentence():
            raise ExceptionGroup("", [AddressInUse("port 4850 is taken."), NoSpace("/data is full.")])
        assert ended.value.code == 9
        assert capsys.readouterr().err == "interfiles: port 4850 is taken.\ninterfiles: /data is full.\n"

    def test_a_bug_keeps_its_traceback(self) -> None:
        with pytest.raises(ExceptionGroup), exit_with_sentence():
            raise ExceptionGroup("", [AddressInUse("port 4850 is taken."), KeyError("lost")])

    def test_ctrl_c_before_the_daemon_listens_is_an_interrupt(self) -> None:
        with pytest.raises(SystemExit) as ended, exit_with_sentence():
            raise KeyboardInterrupt
        assert ended.value.code == 130


def test_the_file_limit_rises_to_the_hard_one() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        assert raise_file_limit() == hard
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
