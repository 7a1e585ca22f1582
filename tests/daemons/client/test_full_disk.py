"""A client whose state lies on a full disk: what the master tells is in force all the same."""

import pytest
import trio
from trio.testing import MockClock

from daemons.client.master_link import STORE_RETRY_S
from interfiles.errors import NoSpace
from interfiles.identity.authority import read_certificate
from interfiles.storage.jobs import JobStore
from interfiles.wire import master_messages as m
from tests.conftest import LogRecords
from tests.daemons.client.scripted_master import saying
from tests.daemons.client.setting import id_of, until
from tests.daemons.client.world import World
from tests.storage.contents import Content


def full(*_: object) -> None:
    raise NoSpace("the client's database cannot be written: its disk is full; free some room")


async def test_a_client_that_was_restarted_on_a_full_disk_flapped_for_ever(
    world: World, content: Content, log_records: LogRecords, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """Every registration ended at the first thing that could not be stored: twice a second, registered and gone."""
    world.master.answer = saying(m.Publish)
    await world.seed(content)
    await world.daemon.crash()
    world.master.answer = None
    world.master.rotate()
    world.master.removed = [id_of("gone")]
    known = len(world.master.connections)
    with monkeypatch.context() as patched:
        patched.setattr(JobStore, "_change", full)
        await world.daemon.start()
        await until(lambda: len(world.master.connections) > known)
        await trio.sleep(300)
        assert len(world.master.connections) == known + 1
        assert (await world.daemon.status()).master_state == "connected"
        assert {content.manifest.file_id} == set(world.master.holdings) == set(world.master.catalogue)
        assert len(world.master.messages(m.Renew)) == 1, "the new certificate is used"
        assert world.master.heartbeats[-1].free == 0, "no room for replicas"
        warned = sorted(record["what"] for record in log_records.records if record["event"] == "not stored")
        assert warned == ["identity", "published", "revoked"], "once each"
    await trio.sleep(STORE_RETRY_S + 20)
    assert world.master.heartbeats[-1].free > 0
    await world.daemon.stop()
    jobs = world.daemon.records()
    stored = jobs.load_identity()
    assert stored is not None
    assert list(stored.authorities) == world.master.certificates
    assert read_certificate(stored.chain).subject.host_id == id_of("tested")
    assert jobs.load_revoked() == {id_of("gone")}
    jobs.close()
