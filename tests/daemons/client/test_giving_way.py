"""Replicas that come to a host give way to what is fetched there for people, in virtual time."""

from pathlib import Path

import trio
from trio.testing import MockClock

from interfiles.wire import master_messages
from tests.daemons.client.peers import Server, Stream, hand_out
from tests.daemons.client.world import World
from tests.storage.contents import PIECE, a_file

PIECE_S = 0.2


class Slow(Server):
    """Takes its time for each piece, and remembers what waits to be answered."""

    async def answer(self, stream: Stream, piece: int) -> None:
        await trio.sleep(PIECE_S)
        await super().answer(stream, piece)

    @property
    def waiting(self) -> set[int]:
        """What was asked and is neither answered nor taken back."""
        counts = {piece: self.asked.count(piece) - self.cancels.count(piece) for piece in self.asked}
        return {piece for piece, count in counts.items() if count > 0} - set(self.answered)


async def test_little_is_asked_for_a_replica_while_something_is_fetched_for_people(
    world: World, tmp_path: Path, autojump_clock: MockClock
) -> None:
    copied = a_file(tmp_path / "copied" / "copied", size=200 * PIECE)
    wanted = a_file(tmp_path / "wanted" / "wanted", size=30 * PIECE, seed=9)
    replica, person = Slow(world, copied, "replica"), Slow(world, wanted, "person")
    world.master.catalogue[copied.manifest.file_id] = copied.manifest
    await world.master.push(master_messages.Order(copied.manifest.file_id, copied.manifest.size))
    await trio.sleep(5)
    await hand_out(world, replica)
    await trio.sleep(2)
    assert len(replica.waiting) > 100, "all that it has is asked at once"
    await world.daemon.download(wanted.manifest, detach=True)
    await hand_out(world, person)
    for _ in range(20):
        await trio.sleep(PIECE_S)
        if len(person.answered) > 3:
            assert len(replica.waiting) <= 1
            assert len(person.waiting) <= 30 - len(person.answered)
    assert len(person.answered) > 10
    await world.daemon.wait(wanted.manifest)
    await trio.sleep(2)
    assert len(replica.waiting) > 50, "and again afterwards"
    await trio.sleep(200 * PIECE_S)
    assert world.master.holdings[copied.manifest.file_id].state == "complete"
