"""Daemons that die in the middle of a transfer: what was on disk counts, and what was acknowledged stays."""

import random
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import trio

from daemons.client.download import SOME_PEER
from interfiles.piece_set import PieceSet
from interfiles.storage.jobs import JobStore
from interfiles.storage.records import FileRecord
from interfiles.tracker_file import TrackerFile
from interfiles.transport.message_stream import MessageStream
from interfiles.wire.codec import Message
from interfiles.wire.peer_messages import Piece
from tests.e2e.content import MIB, differences, make_file
from tests.e2e.fleet import Fleet
from tests.e2e.member import Member
from tests.e2e.processes import Daemon, listening_port, poll
from tests.e2e.proxy import PeerProxy

SIZE = 96 * MIB
BLOCK = MIB
GREETING = 32 << 10  # enough to learn who has what, and too little for a block
KILLS = 3
MORE = 32  # pieces that may come between a moment and its kill
TWO_HEARTBEATS_S = 20.0  # the master's default


class Scene:
    """A fleet whose clients can stand behind proxies, and one file that travels."""

    def __init__(self, fleet: Fleet, stack: ExitStack) -> None:
        self.fleet = fleet
        self._stack = stack
        fleet.start_master()

    def host(self, name: str, proxy: PeerProxy | None = None) -> Daemon:
        """Start a client; `proxy` is what other hosts reach instead of it."""
        if proxy is None:
            return self.fleet.start_client(name)
        self._stack.enter_context(proxy)
        daemon = self.fleet.start_client(name, "--advertise", proxy.address)
        proxy.target_port = listening_port(daemon)
        return daemon

    def member(self, name: str, *, is_linked: bool = False) -> Member:
        """A member of the fleet that this test can do anything with."""
        return self._stack.enter_context(Member(self.fleet, name, is_linked=is_linked))

    def upload(self, daemon: Daemon, size: int = SIZE) -> tuple[Path, Path]:
        """Upload a new file; return it and its tracker file."""
        content = make_file(daemon.home / "film.mov", size)
        return content, Path(self.fleet.cli(daemon, "upload", "-p", content.name, json=True).done.json["tracker"])

    def proxy(self) -> PeerProxy:
        """A proxy that knows who dials."""
        return PeerProxy(name_of=self.fleet.dialler)

    def verified_bytes(self, daemon: Daemon) -> int:
        """How much of its one download a client has."""
        (transfer,) = self.fleet.ask(daemon, lambda client: client.status()).transfers
        return transfer.bytes_done

    def wait_until_held(self, proxy: PeerProxy, count: int, *, fetchers: int = 1) -> None:
        """Wait until the proxy has let through what it may."""
        poll(lambda: proxy.passed.total() > count - fetchers * BLOCK, f"{count:,} bytes to pass")


@pytest.fixture
def scene(own_fleet: Fleet) -> Iterator[Scene]:
    with ExitStack() as stack:
        yield Scene(own_fleet, stack)


class Counting:
    """Right answers of a piece each, no more of them than `limit`; `answered` has the pieces, from the first on."""

    def __init__(self) -> None:
        self.answered: list[int] = []
        self.limit = 0

    async def answer(self, stream: MessageStream[Message], answer: Piece, block: memoryview) -> None:
        await trio.sleep(0.002)
        while len(self.answered) >= self.limit:  # noqa: ASYNC110 - the test is in another thread
            await trio.sleep(0.002)
        self.answered.append(answer.piece)
        await stream.send(answer, block)


def recorded(client: Daemon) -> FileRecord:
    """What a client that does not run has written down of its one download."""
    jobs = JobStore(client.state / "client.db")
    (record,) = jobs.load_all()
    jobs.close()
    return record


@pytest.mark.parametrize("seed", [1, 2])
def test_a_client_killed_at_any_moment_fetches_only_what_was_not_durable(scene: Scene, seed: int) -> None:
    fleet, rng, source = scene.fleet, random.Random(seed), Counting()
    uploader = scene.host("uploader")
    content, tracker = scene.upload(uploader)
    fleet.ask(uploader, lambda client: client.pause(tracker))
    manifest = TrackerFile.decode(tracker.read_bytes()).manifest
    count, size = manifest.piece_count, manifest.piece_size
    assert count * size == SIZE
    member = scene.member("source", is_linked=True)
    member.claim(tracker, content, source)
    client = fleet.new_client("client")
    client.constants = {"daemons.client.download:SYNC_BYTES": 16 * size}
    fleet.start_new(client)
    command = fleet.begin_cli(client, "download", "-p", str(tracker))
    life, durable = 0, PieceSet(count)
    for kill in range(KILLS):
        moment = life + rng.randrange(16, count // KILLS - MORE)
        source.limit = moment + MORE  # it never comes to the end, however late this process notices
        poll(lambda moment=moment: len(source.answered) >= moment, "the moment to kill it")  # type: ignore[misc]
        had = scene.verified_bytes(client)
        fleet.kill(client)
        poll(lambda: all(served.ended_at is not None for served in member.served), "the source to stop answering")
        assert not set(durable) & set(source.answered[life:]), "what was durable is not fetched again"
        record, life = recorded(client), len(source.answered)
        durable = PieceSet.from_bytes(count, record.durable)
        print(f"seed {seed}, kill {kill}: {life} answers, {had // size} verified, {len(durable)} durable")  # noqa: T201
        if not kill:
            ended = fleet.finish_cli(command)
            assert ended.code == 3
            assert ended.err.startswith("interfiles: the client daemon went away before the download was done; start")
        fleet.start(client)  # and nobody tells it to go on
    source.limit = 2 * count
    report = fleet.cli(client, "wait", "-p", str(tracker), json=True).done.json

    assert differences(content, client.home / content.name) == []
    fetched = source.answered[life:]
    assert len(durable) > 0
    assert not set(durable) & set(fetched), "what was durable is not fetched again"
    assert len(fetched) * size <= SIZE - max(had, len(durable) * size), "nor is anything that was verified"
    counts = report["bytes_from_peers"]
    assert counts.keys() <= {"source", SOME_PEER}
    assert counts["source"] - record.bytes_from_peers.get("source", 0) <= SIZE - len(durable) * size
    assert sum(counts.values()) == SIZE
    assert (report["bytes_local"], report["pieces_rejected"]) == (0, 0)


def test_the_master_killed_in_the_middle_of_transfers_is_missed_by_none_and_forgets_nothing(scene: Scene) -> None:
    fleet, proxy = scene.fleet, scene.proxy()
    proxy.allow(SIZE // 8)
    seed = scene.host("seed", proxy)
    content, tracker = scene.upload(seed)
    clients = fleet.start_clients("one", "two", "three")
    commands = [fleet.begin_cli(client, "download", "-p", str(tracker)) for client in clients]
    poll(lambda: all(proxy.passed[client.name] > BLOCK for client in clients), "all three to have begun")

    fleet.kill(fleet.master)
    proxy.allow(None)
    for client, command in zip(clients, commands, strict=True):
        fleet.finish_cli(command).done  # noqa: B018 - it raises
        assert differences(content, client.home / content.name) == []
    alone = fleet.cli(seed, "stat", "-p", str(tracker), json=True).done.json
    assert not alone["complete_info"]
    assert [host["name"] for host in alone["hosts"]] == ["seed"]
    assert fleet.cli(seed, "hosts").code == 3
    make_file(seed.home / "later.mov", MIB)
    assert not fleet.cli(seed, "upload", "-p", "later.mov", json=True).done.json["published"]

    fleet.start(fleet.master)
    poll(
        lambda: (
            (found := fleet.ask(seed, lambda client: client.stat(tracker))).replicas.complete == 4
            and {host.host_state for host in found.hosts} == {"live"}
        ),
        "all clients to be back with all they have",
        timeout_s=TWO_HEARTBEATS_S,
    )
    files = {file["name"] for file in fleet.cli(seed, "ls", json=True).done.json}
    assert files == {"film.mov", "later.mov"}, "what was uploaded in between is published, too"
    newcomer = scene.host("newcomer")
    report = fleet.cli(newcomer, "download", "-p", "film.mov", json=True).done.json
    assert differences(content, newcomer.home / content.name) == []
    assert len(report["bytes_from_peers"]) > 1


def test_a_seeder_killed_when_the_others_hold_all_pieces_between_them_is_not_needed(scene: Scene) -> None:
    fleet, source, lefts, rights = scene.fleet, scene.proxy(), scene.proxy(), scene.proxy()
    source.allow(0)
    for proxy in (lefts, rights):
        proxy.allow(GREETING)
    seed, left, right = scene.host("seed", source), scene.host("left", lefts), scene.host("right", rights)
    content, tracker = scene.upload(seed)
    found = fleet.cli(seed, "stat", "-p", str(tracker), json=True).done.json

    observer = scene.member("observer")

    def held(daemon: Daemon) -> PieceSet:
        return observer.served_pieces(daemon, found["id"], found["pieces"])

    # One gets two thirds of the file, the other what the first was not sent: the seed picks that first. What it has
    # sent and the proxy still holds up must come to the first, for nobody else gets it soon.
    source.allow(SIZE * 2 // 3, left.name)
    commands = [fleet.begin_cli(left, "download", "-p", str(tracker))]
    poll(lambda: len(held(left)) > found["pieces"] * 0.6, "two thirds to arrive")
    commands.append(fleet.begin_cli(right, "download", "-p", str(tracker)))
    allowed = 0
    while held(left).bits | held(right).bits != PieceSet.full(found["pieces"]).bits:
        assert allowed < SIZE * 3 // 4, "the second was sent what the first has"
        allowed += 4 * BLOCK
        source.allow(allowed, right.name)
        source.allow(SIZE * 2 // 3 + allowed // 4, left.name)
        scene.wait_until_held(source, SIZE * 2 // 3 + allowed + allowed // 4, fetchers=2)
    assert not held(left).is_full
    assert not held(right).is_full

    fleet.kill(seed)
    lefts.allow(None)
    rights.allow(None)
    for client, command in zip((left, right), commands, strict=True):
        fleet.finish_cli(command).done  # noqa: B018 - it raises
        assert differences(content, client.home / content.name) == []
