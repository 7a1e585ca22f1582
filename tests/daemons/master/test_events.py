"""What a master tells of what happens: on its socket, and in its log."""

import pytest
import trio
from trio.testing import MockClock

from daemons.master import admin
from interfiles.errors import Refused
from interfiles.locations import admin_socket
from interfiles.transport.message_stream import greet
from interfiles.transport.unix import dial_unix
from interfiles.wire import control_messages as c
from interfiles.wire.admin_reports import EventListReport, EventReport
from tests.conftest import LogRecords
from tests.daemons.master.scripted import EPOCH, Fleet, manifest

ALL = 1 << 53
SAID = {
    *("enrolled", "host is up", "host is suspect", "host is gone", "removed host", "published", "removed file"),
    *("host connected anew", "connection ended"),
}


async def everything(fleet: Fleet) -> list[EventReport]:
    return (await fleet.admin.events(last=ALL)).events


async def told(fleet: Fleet) -> list[tuple[str, str, str]]:
    return [(event.kind, event.host_name, event.reason) for event in await everything(fleet)]


def logged(log_records: LogRecords) -> list[str]:
    return [record["event"] for record in log_records.records if record["event"] in SAID]


class TestHosts:
    async def test_a_host_that_joins_and_leaves_and_is_gone(
        self, fleet: Fleet, log_records: LogRecords, autojump_clock: MockClock
    ) -> None:
        host = await fleet.join("render-07")
        host.close()
        await trio.sleep(200)
        joined, live, suspect, gone = await everything(fleet)
        assert [event.kind for event in (joined, live, suspect, gone)] == ["joined", "live", "suspect", "gone"]
        assert [event.sequence for event in (joined, live, suspect, gone)] == [1, 2, 3, 4]
        assert {(event.host, event.host_name) for event in (joined, live, suspect, gone)} == {
            (host.host_id, "render-07")
        }
        assert joined.reason == f"from 10.0.0.1 by token {fleet.token.token_id.hex()}"
        assert live.reason == "connected from 10.0.0.2:4851"
        assert "closed" in suspect.reason
        assert gone.reason == "silent for 2 min 2 s"  # it is looked every 2 s
        assert (live.at, suspect.at) == (EPOCH, EPOCH)
        assert 120 <= gone.at - EPOCH <= 122
        assert logged(log_records) == ["enrolled", "host is up", "host is suspect", "host is gone"]

    async def test_a_host_that_is_silent_and_heard_again(self, fleet: Fleet, autojump_clock: MockClock) -> None:
        host = await fleet.join("render-07")
        await trio.sleep(25)
        await host.announce()
        await trio.sleep(25)
        assert (await told(fleet))[2:] == [
            ("suspect", "render-07", "silent for 24 s"),
            ("live", "render-07", "heard from again"),
            ("suspect", "render-07", "silent for 23 s"),
        ]

    async def test_the_end_of_a_silent_connection_is_no_second_event(
        self, fleet: Fleet, log_records: LogRecords, autojump_clock: MockClock
    ) -> None:
        await fleet.join("render-07")
        await trio.sleep(40)
        assert [kind for kind, *_ in await told(fleet)] == ["joined", "live", "suspect"]
        (ended,) = [record for record in log_records.records if record["event"] == "connection ended"]
        assert (ended["host"], ended["reason"]) == ("render-07", "render-07 was silent for 3 heartbeats")

    async def test_a_gone_host_that_registers_is_live(self, fleet: Fleet, autojump_clock: MockClock) -> None:
        host = await fleet.join("render-07")
        host.close()
        await trio.sleep(130)
        await fleet.rejoin(host)
        assert [kind for kind, *_ in await told(fleet)] == ["joined", "live", "suspect", "gone", "live"]

    async def test_a_newer_connection_of_a_live_host_is_no_event(
        self, fleet: Fleet, log_records: LogRecords, autojump_clock: MockClock
    ) -> None:
        host = await fleet.join("render-07")
        await fleet.rejoin(host)
        await trio.sleep(5)
        assert [kind for kind, *_ in await told(fleet)] == ["joined", "live"]
        assert logged(log_records) == ["enrolled", "host is up", "host connected anew", "connection ended"]

    async def test_a_removed_host(self, fleet: Fleet, log_records: LogRecords, autojump_clock: MockClock) -> None:
        host = await fleet.join("render-07")
        await fleet.admin.remove_host("render-07")
        await trio.sleep(300)
        *_, removed = await everything(fleet)
        assert (removed.sequence, removed.kind, removed.host, removed.host_name, removed.reason) == (
            *(3, "removed", host.host_id, "render-07", ""),
        )
        assert logged(log_records) == ["enrolled", "host is up", "removed host", "connection ended"]

    async def test_after_a_restart_hosts_that_never_came_back_are_gone(
        self, fleet: Fleet, autojump_clock: MockClock
    ) -> None:
        host, _ = await fleet.join("back"), await fleet.join("away")
        await fleet.stop()
        await fleet.start()
        await fleet.rejoin(host)
        await trio.sleep(10)
        assert [(kind, name) for kind, name, _ in await told(fleet)] == [("live", "back")]
        await trio.sleep(125)
        assert ("gone", "away") in [(kind, name) for kind, name, _ in await told(fleet)]


class TestFiles:
    async def test_one_that_is_published_and_removed(
        self, fleet: Fleet, log_records: LogRecords, autojump_clock: MockClock
    ) -> None:
        publisher, other = await fleet.join("publisher"), await fleet.join("other")
        info = await publisher.publish(manifest())
        await other.remove(info.file_id)
        published, removed = (await fleet.admin.events(last=2)).events
        assert (published.kind, published.host_name) == ("published", "publisher")
        assert (removed.kind, removed.host_name, removed.reason) == ("file-removed", "other", "1 host had some of it")
        for event in (published, removed):
            assert (event.file, event.file_name) == (info.file_id.hex(), "weights")
        assert logged(log_records)[-2:] == ["published", "removed file"]


class TestPages:
    async def test_the_newest_come_first_page_by_page(
        self, fleet: Fleet, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(admin, "EVENTS_A_PAGE", 2)
        for name in ("a", "b", "c"):
            await fleet.join(name)

        async def page(**asked: int | str) -> tuple[list[int], int, bool]:
            found: EventListReport = await fleet.admin.events(**asked)  # type: ignore[arg-type]
            assert found.log == log
            return [event.sequence for event in found.events], found.next, found.more

        log = (await fleet.admin.events()).log
        assert await page() == ([], 6, False)
        assert await page(last=1) == ([6], 6, False)
        assert await page(last=3) == ([4, 5], 5, True)
        assert await page(log=log, after=5, last=3) == ([6], 6, False)
        assert await page(log=log, after=6, last=3) == ([], 6, False)
        assert await page(log=log, after=99, last=3) == ([], 6, False)
        assert await page(log="00" * 8, after=5, last=ALL) == ([1, 2], 2, True)

    async def test_another_log_after_a_restart_is_shown_from_its_beginning(
        self, fleet: Fleet, autojump_clock: MockClock
    ) -> None:
        host = await fleet.join("render-07")
        before = await fleet.admin.events(last=ALL)
        await fleet.stop()
        await fleet.start()
        await fleet.rejoin(host)
        after = await fleet.admin.events(log=before.log, after=before.next, last=ALL, wait_s=30)
        assert after.log != before.log
        assert [(event.sequence, event.kind) for event in after.events] == [(1, "live")]


class TestWaiting:
    async def test_the_answer_comes_with_the_event(self, fleet: Fleet, autojump_clock: MockClock) -> None:
        log = (await fleet.admin.events()).log
        began = trio.current_time()
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def _() -> None:
                await trio.sleep(7)
                await fleet.join("late")

            page = await fleet.admin.events(log=log, after=0, wait_s=30)
            assert [event.kind for event in page.events] == ["joined"]
            assert trio.current_time() - began == 7

    async def test_or_without_one_when_the_time_is_over(self, fleet: Fleet, autojump_clock: MockClock) -> None:
        began = trio.current_time()
        page = await fleet.admin.events(last=10, wait_s=c.MAX_EVENT_WAIT_S)
        assert (page.events, page.next, page.more) == ([], 0, False)
        assert trio.current_time() - began == c.MAX_EVENT_WAIT_S

    async def test_too_many_that_wait_are_refused_and_who_leaves_makes_room(
        self, fleet: Fleet, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(admin, "MAX_WAITING", 2)
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(lambda: fleet.admin.events(wait_s=30))
            await trio.sleep(1)
            with pytest.raises(Refused, match="2 commands wait for events already; end one of them"):
                await fleet.admin.events(wait_s=30)
            assert (await fleet.admin.events()).events == [], "who does not wait is answered all the same"
            nursery.cancel_scope.cancel()
        await trio.sleep(1)
        with trio.move_on_after(5) as scope:
            await fleet.admin.events(wait_s=30)
        assert scope.cancelled_caught, "there is room again at once"

    async def test_who_says_something_meanwhile_is_cut_off(self, fleet: Fleet, autojump_clock: MockClock) -> None:
        stream, _ = await greet(await dial_unix(admin_socket(fleet.state)), "admin", "local")
        await stream.send(c.ListEvents("", 0, 0, 30))
        await stream.send(c.ListTokens())
        began = trio.current_time()
        assert await stream.transport.receive_some_into(memoryview(bytearray(10))) == 0
        assert trio.current_time() == began
        stream.close()
