"""Long work in a thread ends soon after its caller is cancelled, and its errors come out bare."""

import threading

import pytest
import trio

from daemons.client.cancellable import run_cancellable
from interfiles.errors import NoSpace
from interfiles.storage import Stopped
from interfiles.storage.executor import InlineExecutor, ThreadExecutor


async def test_what_the_function_returns() -> None:
    assert await run_cancellable(InlineExecutor(), lambda cancelled: (cancelled(), 7)) == (False, 7)


@pytest.mark.parametrize("error", [NoSpace("full"), ValueError("a bug"), Stopped()])
async def test_what_the_function_raises_is_in_no_group(error: Exception) -> None:
    def fail(_: object) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        await run_cancellable(InlineExecutor(), fail)
    assert caught.value is error


async def test_the_function_hears_of_the_cancellation_and_is_waited_for() -> None:
    begun, ended = threading.Event(), threading.Event()

    def work(cancelled) -> None:  # type: ignore[no-untyped-def]
        begun.set()
        while not cancelled():
            pass
        ended.set()
        raise Stopped

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_cancellable, ThreadExecutor(1), work)
            await trio.to_thread.run_sync(begun.wait)
            assert not ended.is_set()
            scope.cancel()
    assert ended.is_set()
    assert scope.cancelled_caught


async def test_a_function_that_does_not_listen_ends_in_its_own_time() -> None:
    begun, go_on = threading.Event(), threading.Event()
    results: list[int] = []

    def work(_: object) -> int:
        begun.set()
        go_on.wait()
        return 7

    async def run() -> None:
        results.append(await run_cancellable(ThreadExecutor(1), work))

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await trio.to_thread.run_sync(begun.wait)
            scope.cancel()
            go_on.set()
    assert results in ([], [7]), "its effects are whole either way"
