"""What the tests of the scrub have in common: rot, what is read, and a daemon that scrubs."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from interfiles.piece_set import PieceSet
from interfiles.storage.hashing import Cancelled, Progress
from interfiles.storage.piece_store import PieceStore
from interfiles.storage.records import ScrubRecord
from interfiles.wire.reports import DownloadReport, ScrubReport
from tests.conftest import LogRecords
from tests.daemons.client.peers import Server, hand_out
from tests.daemons.client.setting import until
from tests.daemons.client.world import World
from tests.storage.contents import PIECE, Content

EVERY = 240.0


@dataclass(frozen=True)
class Hashed:
    """A piece that was hashed for the scrub."""

    name: str
    piece: int
    at: float


def watched(monkeypatch: pytest.MonkeyPatch) -> list[Hashed]:
    """What is hashed from the disk from now on."""
    found: list[Hashed] = []
    check = PieceStore.check

    def noted(
        store: PieceStore, pieces: PieceSet, *, progress: Progress, cancelled: Cancelled, from_disk: bool = False
    ) -> PieceSet:
        if from_disk:
            found.extend(Hashed(store.manifest.name, int(piece), trio.current_time()) for piece in pieces)
        return check(store, pieces, progress=progress, cancelled=cancelled, from_disk=from_disk)

    monkeypatch.setattr(PieceStore, "check", noted)
    return found


def pieces_of(hashed: list[Hashed], content: Content) -> list[int]:
    return [one.piece for one in hashed if one.name == content.manifest.name]


def rot(content: Content, *pieces: int, root: Path | None = None) -> None:
    """Flip a bit of each piece as a disk does: no time of the file changes."""
    path = root or content.root
    before = path.stat()
    with open(path, "r+b") as file:
        for piece in pieces:
            file.seek(piece * PIECE + 5)
            byte = file.read(1)[0]
            file.seek(piece * PIECE + 5)
            file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


async def scrubbing(world: World, every_s: float | None = EVERY) -> None:
    """Start the daemon again, with a scrub."""
    world.daemon.scrub_every_s = every_s
    heard = len(world.master.heartbeats)
    await world.daemon.restart()
    await until(lambda: len(world.master.heartbeats) > heard)


async def download(world: World, content: Content, *, overwrite: bool = False) -> DownloadReport:
    """Fetch it from an honest server."""
    await world.daemon.download(content.manifest, overwrite=overwrite, detach=True)
    await hand_out(world, Server(world, content, "honest"))
    return await world.daemon.wait(content.manifest)


async def scrub_of(world: World) -> ScrubReport:
    report = (await world.daemon.status()).scrub
    assert report is not None
    return report


def remembered(world: World) -> dict[bytes, ScrubRecord]:
    """What the daemon, which is not running, knows of its scrubs."""
    jobs = world.daemon.records()
    found = jobs.load_scrubs(1e12)
    jobs.close()
    return found


def warnings(records: LogRecords, event: str) -> list[dict[str, object]]:
    return [dict(record) for record in records.records if record["event"] == event and record["level"] == "warning"]
