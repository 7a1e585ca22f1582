"""The catalogue and the registry as hosts see them: publish, find, list, remove."""

import pytest
import trio
from trio.testing import MockClock

from daemons.master import requests
from interfiles.errors import InvalidManifest, NoSpace, UnknownFile
from interfiles.manifest import Manifest
from interfiles.wire import master_messages as m
from tests.daemons.master.scripted import Client, Fleet, holding, manifest


def forgotten(client: Client) -> list[m.Forget]:
    return [message for message in client.pushed if isinstance(message, m.Forget)]


class TestPublishing:
    async def test_a_published_file_is_found_by_id_prefix_and_name_with_its_manifest(
        self, fleet: Fleet, autojump_clock: MockClock
    ) -> None:
        published = manifest()
        publisher, other = await fleet.join("publisher"), await fleet.join("other")
        info = await publisher.publish(published)
        assert (info.name, info.size, info.pieces, info.entries) == ("weights", published.size, 2, 1)
        assert (info.uploaded_by, info.uploaded_at, info.replicas_wanted) == ("publisher", 1_700_000_000, 3)
        for query in (published.file_id.hex(), published.file_id.hex()[:4], "weights"):
            assert await other.resolve(query) == (info, b"")
        found, payload = await other.resolve("weights", with_manifest=True)
        assert Manifest.decode(payload) == published
        assert found == info

    async def test_replicas_are_the_publishers_or_the_masters(self, fleet: Fleet, autojump_clock: MockClock) -> None:
        publisher = await fleet.join("publisher")
        for asked, wanted in ((5, 5), (0, 5), (2, 2)):
            assert (await publisher.publish(manifest(), replicas=asked)).replicas_wanted == wanted

    async def test_several_of_one_name_are_told_apart_by_id(self, fleet: Fleet, autojump_clock: MockClock) -> None:
        publisher = await fleet.join("publisher")
        ids = [(await publisher.publish(manifest(seed=seed))).file_id.hex() for seed in (1, 2)]
        with pytest.raises(UnknownFile) as caught:
            await publisher.resolve("weights")
        assert str(caught.value).startswith("2 files go by 'weights': ")
        assert all(file_id[:12] in str(caught.value) for file_id in ids)

    async def test_a_manifest_that_is_not_what_it_is_called_is_refused(
        self, fleet: Fleet, autojump_clock: MockClock
    ) -> None:
        publisher = await fleet.join("publisher")
        with pytest.raises(InvalidManifest, match=r"the manifest of [0-9a-f]{12} was published as 000000000000"):
            await publisher.publish(manifest(), file_id=bytes(32))
        with pytest.raises(UnknownFile):
            await publisher.resolve("weights")

    async def test_a_malformed_manifest_is_refused_and_the_connection_goes_on(
        self, fleet: Fleet, autojump_clock: MockClock
    ) -> None:
        publisher = await fleet.join("publisher")
        for payload in (b"", b"\x00" * 1000, manifest().encode()[:-1]):
            with pytest.raises(InvalidManifest):
                await publisher.ask(m.Published, lambda number: m.Publish(number, bytes(32), 0, 0, 0, False), payload)
        assert (await publisher.publish(manifest())).name == "weights"

    async def test_large_manifests_wait_for_one_another(
        self, fleet: Fleet, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("daemons.master.hosts.LARGE_PAYLOAD_BYTES", 1000)
        monkeypatch.setattr(requests, "LARGE_PAYLOAD_BYTES", 1000)
        publishers = [await fleet.join(f"publisher-{number}") for number in range(12)]
        async with trio.open_nursery() as nursery:
            for seed, publisher in enumerate(publishers):
                nursery.start_soon(publisher.publish, manifest(seed=seed, pieces=100))
        async with trio.open_nursery() as nursery:
            for seed, publisher in enumerate(publishers):
                nursery.start_soon(resolve_whole, publisher, manifest(seed=seed, pieces=100))

    async def test_a_full_disk_is_told_and_nothing_is_half_there(
        self, fleet: Fleet, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object, **__: object) -> None:
            raise NoSpace("the catalogue cannot be written: its disk is full; free some room")

        publisher = await fleet.join("publisher")
        with monkeypatch.context() as patched:
            patched.setattr("interfiles.storage.catalogue.Catalogue.publish", full)
            with pytest.raises(NoSpace, match="its disk is full"):
                await publisher.publish(manifest())
        assert (await publisher.publish(manifest())).name == "weights"

    async def test_the_catalogue_survives_a_crash_of_the_master(self, fleet: Fleet, autojump_clock: MockClock) -> None:
        publisher = await fleet.join("publisher")
        info = await publisher.publish(manifest())
        await fleet.crash()
        await fleet.start()
        publisher = await fleet.rejoin(publisher)
        assert await publisher.resolve("weights", with_manifest=True) == (info, manifest().encode())


async def resolve_whole(client: Client, wanted: Manifest) -> None:
    _, payload = await client.resolve(wanted.file_id.hex(), with_manifest=True)
    assert payload == wanted.encode()


class TestLists:
    async def test_files_come_with_their_copies_page_by_page(self, fleet: Fleet, autojump_clock: MockClock) -> None:
        whole, part = await fleet.join("whole"), await fleet.join("part")
        for number in range(m.PAGE_ROWS + 6):
            await whole.publish(manifest(f"file-{number:03}", seed=number))
        first = manifest("file-000", seed=0)
        await whole.announce(holding(first.file_id))
        await part.announce(holding(first.file_id, "fetching", 1))
        page = await part.files()
        assert [row.info.name for row in page.files] == [f"file-{number:03}" for number in range(m.PAGE_ROWS)]
        assert [(row.complete, row.partial) for row in page.files[:2]] == [(1, 1), (1, 0)]
        rest = await part.files(m.PAGE_ROWS)
        assert (len(rest.files), page.more, rest.more) == (6, True, False)

    async def test_holders_come_with_what_they_said(self, fleet: Fleet, autojump_clock: MockClock) -> None:
        published = manifest()
        whole, part = await fleet.join("whole", zone="rack-a"), await fleet.join("part")
        info = await whole.publish(published)
        await whole.announce(holding(published.file_id))
        await part.announce(m.Holding(published.file_id, "fetching", 1, 1_100, 0, "slow", False))
        page = await part.holders(published.file_id)
        assert (page.info, page.complete, page.more) == (info, 1, False)
        assert [(row.name, row.zone, row.host_state) for row in page.holders] == [
            ("part", "", "live"),
            ("whole", "rack-a", "live"),
        ]
        assert page.holders[0].holding == m.Holding(published.file_id, "fetching", 1, 1_100, 0, "slow", False)

    async def test_the_holders_of_an_unknown_file_are_unknown(self, fleet: Fleet, autojump_clock: MockClock) -> None:
        client = await fleet.join("client")
        with pytest.raises(UnknownFile):
            await client.holders(bytes(32))


class TestRemoval:
    async def test_every_holder_is_told_to_forget(self, fleet: Fleet, autojump_clock: MockClock) -> None:
        published = manifest()
        whole, part, idle = [await fleet.join(name) for name in ("whole", "part", "idle")]
        await whole.publish(published)
        await whole.announce(holding(published.file_id))
        await part.announce(holding(published.file_id, "fetching", 1))
        assert await idle.remove(published.file_id, delete=True) == 2
        for client in (whole, part, idle):
            await client.announce()
        told = [m.Forget(published.file_id, True)]
        assert [forgotten(client) for client in (whole, part, idle)] == [told, told, []]
        with pytest.raises(UnknownFile):
            await idle.resolve("weights")
        with pytest.raises(UnknownFile):
            await idle.holders(published.file_id)

    async def test_a_host_that_was_away_is_told_on_its_return_also_by_a_restarted_master(
        self, fleet: Fleet, autojump_clock: MockClock
    ) -> None:
        published, other = manifest(), manifest("other", seed=1)
        away, here = await fleet.join("away"), await fleet.join("here")
        await away.publish(published)
        await away.announce(holding(published.file_id), holding(other.file_id))
        away.close()
        await trio.testing.wait_all_tasks_blocked()
        assert await here.remove(published.file_id) == 1
        await fleet.crash()
        await fleet.start()
        away = await fleet.rejoin(away, holdings=[holding(published.file_id), holding(other.file_id)])
        assert forgotten(away) == [m.Forget(published.file_id, False)]
        assert (await away.hosts())["away"].files == 1

    async def test_removing_again_is_allowed_and_what_nobody_knows_is_unknown(
        self, fleet: Fleet, autojump_clock: MockClock
    ) -> None:
        client = await fleet.join("client")
        await client.publish(manifest())
        assert await client.remove(manifest().file_id) == 1, "who publishes holds it"
        assert await client.remove(manifest().file_id) == 0
        with pytest.raises(UnknownFile):
            await client.remove(bytes(32))

    async def test_a_file_that_was_never_published_can_be_removed_from_its_holders(
        self, fleet: Fleet, autojump_clock: MockClock
    ) -> None:
        client = await fleet.join("client")
        await client.announce(holding(manifest().file_id))
        assert await client.remove(manifest().file_id) == 1

    async def test_a_removed_file_that_is_published_again_is_not_forgotten(
        self, fleet: Fleet, autojump_clock: MockClock
    ) -> None:
        client = await fleet.join("client")
        await client.publish(manifest())
        await client.remove(manifest().file_id)
        await client.publish(manifest())
        await client.announce(holding(manifest().file_id))
        assert len(forgotten(client)) == 1, "the removal, and nothing after it"
        assert (await client.holders(manifest().file_id)).complete == 1

    async def test_an_announcement_right_behind_the_publication_is_not_answered_by_the_tombstone(
        self, fleet: Fleet, autojump_clock: MockClock
    ) -> None:
        client = await fleet.join("client")
        await client.publish(manifest())
        await client.remove(manifest().file_id)
        await client.send(m.Publish(77, manifest().file_id, 0, 0, 0, False), manifest().encode())
        await client.announce(holding(manifest().file_id))
        await trio.sleep(1)
        await client.announce()
        assert len(forgotten(client)) == 1, "the removal, and nothing after it"
        assert (await client.holders(manifest().file_id)).complete == 1
