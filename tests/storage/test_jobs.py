"""What the client remembers: everything, narrowly written, and through a kill."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interfiles.errors import InterFilesError, Refused, StorageFailed
from interfiles.storage.acting import Owner
from interfiles.storage.jobs import JobStore
from interfiles.storage.places import Place
from interfiles.storage.records import (
    CopyRecord,
    FileRecord,
    Identity,
    KnownPeer,
    ScrubRecord,
    decode_stamps,
    encode_stamps,
)
from interfiles.storage.scan import Stamp

IDENTITY = Identity(
    fleet="7f3a",
    host_id="0" * 32,
    name="render-07",
    zone="rack-a",
    key="a private key",
    chain="a certificate\nand a cross certificate\n",
    authorities=("the newest", "the older"),
    masters=("10.0.0.5:4850", "[::1]:4850"),
)
ONE, TWO = b"\x01" * 32, b"\x02" * 32
RECORD = FileRecord(
    file_id=ONE,
    manifest=b"manifest",
    path=b"/data/\xff\xfename",
    part=b"/data/name.part",
    state="downloading",
    overwrite=True,
    uploaded_at=1_764_000_000,
    uploaded_by="render-01",
    replicas=3,
    published=False,
    stamps=b"",
    durable=b"\xf0",
    bytes_local=5,
    bytes_from_peers={"render-01": 2**62, "名": 1},
    pieces_rejected=2,
    seconds=1.5,
    note="waiting",
    owned=True,
    in_place=True,
    owner=Owner(1000, 1001, (1002,), 0o022),
    place=Place(2**64 - 1, 7),
    priority="high",
    ordered=True,
    again=True,
    expires_at=1_764_100_000,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "client.sqlite"


@pytest.fixture
def jobs(path: Path) -> Iterator[JobStore]:
    opened = JobStore(path)
    yield opened
    opened.close()


def reloaded(path: Path) -> list[FileRecord]:
    """What a restarted client finds."""
    jobs = JobStore(path)
    found = jobs.load_all()
    jobs.close()
    return found


def test_records_come_back_as_they_were_in_the_order_they_were_added(path: Path, jobs: JobStore) -> None:
    second = replace(RECORD, file_id=TWO, part=None, state="seeding", bytes_from_peers={}, owned=False, in_place=False)
    second = replace(second, owner=None, place=None)
    jobs.add(second)
    jobs.add(RECORD)
    assert reloaded(path) == jobs.load_all() == [second, RECORD]
    newer = replace(second, path=b"/elsewhere")
    jobs.add(newer)
    assert reloaded(path) == [RECORD, newer]


def test_each_change_touches_what_it_names(jobs: JobStore) -> None:
    jobs.add(RECORD)
    other = replace(RECORD, file_id=TWO)
    jobs.add(other)
    jobs.record_progress(
        ONE, durable=b"\xff", bytes_from_peers={"b": 7}, bytes_local=8, pieces_rejected=9, seconds=10.5
    )
    expected = replace(
        RECORD, durable=b"\xff", bytes_from_peers={"b": 7}, bytes_local=8, pieces_rejected=9, seconds=10.5
    )
    assert jobs.load_all() == [expected, other]
    jobs.set_state(ONE, "paused", "by hand")
    expected = replace(expected, state="paused", note="by hand")
    assert jobs.load_all() == [expected, other]
    jobs.set_published(ONE, True)
    expected = replace(expected, published=True)
    assert jobs.load_all() == [expected, other]
    jobs.complete(ONE, path=b"/data/done", stamps=b"s" * 32, durable=b"\x0f")
    expected = replace(
        expected, state="complete", note="", path=b"/data/done", part=None, stamps=b"s" * 32, durable=b"\x0f"
    )
    assert jobs.load_all() == [expected, other]
    jobs.remove(ONE)
    jobs.remove(ONE)
    assert jobs.load_all() == [other]


def test_progress_does_not_write_the_manifest_again(path: Path, jobs: JobStore) -> None:
    jobs.add(replace(RECORD, manifest=os.urandom(4 << 20)))
    wal = path.with_name(path.name + "-wal")
    before = wal.stat().st_size
    for done in range(10):
        jobs.record_progress(
            ONE, durable=bytes(500), bytes_from_peers={"b": done}, bytes_local=0, pieces_rejected=0, seconds=0
        )
        jobs.set_state(ONE, "downloading")
        jobs.set_published(ONE, True)
    assert wal.stat().st_size - before < 1 << 20


def test_copies_are_kept_until_they_are_made(path: Path, jobs: JobStore) -> None:
    one = CopyRecord(b"/b/.\xff.part", ONE, b"/b/\xff", True, RECORD.owner, RECORD.place)
    two = CopyRecord(b"/c/.n.part", ONE, b"/c/n", False, None, None)
    jobs.add_copy(one)
    jobs.add_copy(replace(two, overwrite=True))
    jobs.add_copy(two)
    again = JobStore(path)
    assert again.load_copies() == [one, two]
    again.remove_copy(one)
    again.remove_copy(one)
    assert again.load_copies() == [two]
    again.close()


def test_peers_are_kept_in_their_order(path: Path, jobs: JobStore) -> None:
    peers = [KnownPeer(f"{number:032x}", f"host-{number}", f"10.0.0.{number}:4851") for number in (3, 1, 2)]
    jobs.add(RECORD)
    jobs.save_peers(ONE, peers)
    assert jobs.peers(ONE) == peers
    jobs.save_peers(ONE, peers[:1])
    again = JobStore(path)
    assert again.peers(ONE) == peers[:1]
    assert again.peers(TWO) == []
    again.close()
    jobs.remove(ONE)
    assert jobs.peers(ONE) == []


def test_peers_of_a_file_that_was_just_removed_are_not_kept(jobs: JobStore) -> None:
    jobs.save_peers(ONE, [KnownPeer("0" * 32, "a", "h:1")])
    assert jobs.peers(ONE) == []


def test_a_finished_download_needs_no_peers(jobs: JobStore) -> None:
    jobs.add(RECORD)
    jobs.save_peers(ONE, [KnownPeer("0" * 32, "a", "h:1")])
    jobs.complete(ONE, path=b"/p", stamps=b"", durable=b"")
    assert jobs.peers(ONE) == []


def test_a_transaction_is_all_or_nothing(path: Path, jobs: JobStore) -> None:
    jobs.add(RECORD)

    def fail() -> None:
        with jobs.transaction():
            jobs.set_state(ONE, "paused")
            jobs.add(replace(RECORD, file_id=TWO))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert reloaded(path) == [RECORD]
    with jobs.transaction():
        with jobs.transaction():
            jobs.set_state(ONE, "paused")
        jobs.remove(ONE)
        assert reloaded(path) == [RECORD]
    assert reloaded(path) == []


def test_a_failed_transaction_does_not_hold_up_the_next(jobs: JobStore) -> None:
    with pytest.raises(StorageFailed), jobs.transaction():
        raise StorageFailed("test")
    jobs.add(RECORD)
    assert jobs.load_all() == [RECORD]


def test_threads_take_turns(jobs: JobStore) -> None:
    def work(number: int) -> None:
        file_id = bytes([number]) * 32
        jobs.add(replace(RECORD, file_id=file_id))
        for turn in range(20):
            with jobs.transaction():
                jobs.set_state(file_id, "paused", str(turn))
                jobs.set_published(file_id, turn % 2 == 1)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [(record.state, record.note, record.published) for record in jobs.load_all()] == [("paused", "19", True)] * 4


WRITER = """
import sys
from dataclasses import replace
from pathlib import Path
from interfiles.storage.jobs import JobStore
from tests.storage.test_jobs import RECORD

jobs = JobStore(Path(sys.argv[1]))
number = 0
while True:
    file_id = number.to_bytes(32, "big")
    with jobs.transaction():
        jobs.add(replace(RECORD, file_id=file_id, manifest=bytes(10_000)))
        jobs.record_progress(
            file_id, durable=file_id, bytes_from_peers={}, bytes_local=number, pieces_rejected=0, seconds=0
        )
    print(number, flush=True)
    number += 1
"""


@pytest.mark.parametrize("lines", [1, 40])
def test_what_was_acknowledged_survives_a_kill(path: Path, lines: int) -> None:
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        acknowledged = [int(process.stdout.readline()) for _ in range(lines)]
        process.send_signal(signal.SIGKILL)
        acknowledged += [int(line) for line in process.stdout.read().split()]
    found = reloaded(path)
    assert [record.bytes_local for record in found][: len(acknowledged)] == acknowledged
    assert len(found) - len(acknowledged) in (0, 1)
    assert all(record.durable == record.file_id and record.manifest == bytes(10_000) for record in found)


def test_a_database_of_another_kind_is_refused(path: Path) -> None:
    other = apsw.Connection(str(path))
    other.execute("CREATE TABLE theirs (x)")
    other.close()
    with pytest.raises(Refused, match=f"the client's database {path} belongs to another program; move it away"):
        JobStore(path)


def test_a_newer_database_is_refused(path: Path, jobs: JobStore) -> None:
    jobs.close()
    newer = apsw.Connection(str(path))
    newer.pragma("user_version", 99)
    newer.close()
    with pytest.raises(Refused, match=r"was written by a newer InterFiles \(version 99, this one knows \d\)"):
        JobStore(path)


@pytest.mark.parametrize("damage", [b"no database at all" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_damaged_database_is_named(path: Path, damage: bytes) -> None:
    path.write_bytes(damage)
    with pytest.raises(InterFilesError, match=f"the client's database {path} is damaged .*; move it away, join again"):
        JobStore(path)


def test_scrubs_are_kept_with_their_file_and_no_longer(path: Path, jobs: JobStore) -> None:
    jobs.add(RECORD)
    jobs.save_scrubs([ScrubRecord(ONE, 1000.5, 7), ScrubRecord(TWO, 1000.5, 0)])
    assert jobs.load_scrubs(2000.0) == {ONE: ScrubRecord(ONE, 1000.5, 7)}
    jobs.save_scrubs([ScrubRecord(ONE, 1500.0, 0)])
    jobs.close()
    jobs = JobStore(path)
    assert jobs.load_scrubs(2000.0) == {ONE: ScrubRecord(ONE, 1500.0, 0)}
    jobs.add(RECORD)  # another of the same id: it was hashed anew
    assert jobs.load_scrubs(2000.0) == {}
    jobs.close()


def test_a_scrub_in_the_future_was_now_from_then_on(jobs: JobStore) -> None:
    jobs.add(RECORD)
    jobs.save_scrubs([ScrubRecord(ONE, 1e12, 7)])
    assert jobs.load_scrubs(2000.0) == {ONE: ScrubRecord(ONE, 2000.0, 7)}
    assert jobs.load_scrubs(3000.0) == {ONE: ScrubRecord(ONE, 2000.0, 7)}


@given(
    st.lists(
        st.builds(
            Stamp, *[st.integers(0, 2**63 - 1), st.integers(-(2**63), 2**63 - 1)], *[st.integers(0, 2**64 - 1)] * 2
        )
    )
)
def test_stamps_round_trip(stamps: list[Stamp]) -> None:
    encoded = encode_stamps(stamps)
    assert len(encoded) == 32 * len(stamps)
    assert decode_stamps(encoded) == tuple(stamps)


def test_a_torn_stamp_is_refused() -> None:
    with pytest.raises(ValueError, match="33 bytes are not a whole number of stamps"):
        decode_stamps(bytes(33))
