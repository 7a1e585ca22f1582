"""What a file costs by its size alone, before a byte of it has moved."""

import gc
import os
import random
import tracemalloc
from dataclasses import replace

from daemons.client.local_file import LocalFile
from daemons.client.notice import Notice
from interfiles.geometry import MIB
from interfiles.manifest import FileEntry, Manifest
from interfiles.piece_set import PieceSet
from interfiles.storage.records import FileRecord
from interfiles.swarm.request_scheduler import RequestScheduler

TERABYTE = 10**12
PEERS = 12


def test_the_manifest_and_the_piece_map_of_a_terabyte_take_less_than_50_mb() -> None:
    """With a dozen peers that hold all of it, and requests to each."""
    pieces = -(-TERABYTE // (16 * MIB))
    hashes = os.urandom(32 * pieces)
    gc.collect()
    tracemalloc.start()
    try:
        manifest = Manifest.build("f", False, [FileEntry("f", TERABYTE, False)], 16 * MIB, hashes)
        file = LocalFile(record_of(manifest), manifest, Notice(), now=0.0)
        scheduler, rng = RequestScheduler(manifest.geometry, file.verified), random.Random(1)
        for peer in map(str, range(PEERS)):
            scheduler.add_peer(peer, PieceSet.full(pieces), 0.0)
            scheduler.next_asks(peer, 0.0, rng)
        file.add_verified(list(manifest.geometry.pieces()))
        current, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert file.bytes_done == TERABYTE
    assert current > 2 * 10**6, "the piece table is counted"
    assert peak < 50 * 10**6


def record_of(manifest: Manifest) -> FileRecord:
    """Of a download that has just begun."""
    record = FileRecord(
        file_id=manifest.file_id,
        manifest=b"",
        path=b"/data/f",
        part=b"/data/f.part",
        state="downloading",
        overwrite=False,
        uploaded_at=0,
        uploaded_by="a",
        replicas=3,
        published=True,
        stamps=b"",
        durable=PieceSet(manifest.piece_count).to_bytes(),
        bytes_local=0,
        bytes_from_peers={},
        pieces_rejected=0,
        seconds=0.0,
        note="",
        owned=False,
    )
    return replace(record, manifest=manifest.encode())
