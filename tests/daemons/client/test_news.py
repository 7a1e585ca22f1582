"""Who is served a file hears of its changes, all at once and not too often."""

import trio
from trio.testing import MockClock

from daemons.client.news import NEWS_S, News
from daemons.client.notice import Notice


async def test_all_who_follow_a_file_are_rung_at_once_and_not_too_often(autojump_clock: MockClock) -> None:
    news, changed, other, bells = News(), Notice(), Notice(), [Notice(), Notice()]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(news.run)
        await trio.testing.wait_all_tasks_blocked()
        for bell in bells:
            news.follow(changed, bell)
        await trio.testing.wait_all_tasks_blocked()
        other.tell()
        changed.tell()
        await trio.testing.wait_all_tasks_blocked()
        assert [bell.count for bell in bells] == [1, 1]
        for _ in range(5):
            changed.tell()
            await trio.sleep(NEWS_S / 10)
        assert [bell.count for bell in bells] == [1, 1], "these are told together"
        await trio.sleep(NEWS_S)
        assert [bell.count for bell in bells] == [2, 2]
        news.leave(changed, bells[0])
        changed.tell()
        await trio.sleep(2 * NEWS_S)
        assert [bell.count for bell in bells] == [2, 3]
        nursery.cancel_scope.cancel()


async def test_who_comes_before_or_again_is_rung_too(autojump_clock: MockClock) -> None:
    news, changed, bell = News(), Notice(), Notice()
    news.follow(changed, bell)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(news.run)
        await trio.testing.wait_all_tasks_blocked()
        changed.tell()
        await trio.sleep(2 * NEWS_S)
        assert bell.count == 1
        news.leave(changed, bell)
        news.leave(changed, bell)
        changed.tell()
        await trio.sleep(2 * NEWS_S)
        assert bell.count == 1, "nobody follows it"
        news.follow(changed, bell)
        await trio.testing.wait_all_tasks_blocked()
        assert bell.count == 1, "what was before is no news"
        changed.tell()
        await trio.sleep(2 * NEWS_S)
        assert bell.count == 2
        nursery.cancel_scope.cancel()
    news.follow(changed, bell)  # while the daemon stops
    news.leave(changed, bell)
