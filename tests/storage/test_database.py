"""The database: what has ended is durable, what failed left nothing, and every failure is a sentence."""

import os
from pathlib import Path

import apsw
import pytest

from interfiles.errors import NoSpace, NotPermitted, Refused, StorageFailed
from interfiles.storage.database import Database

ID = 0x1234
SCHEMA = ("CREATE TABLE things (thing BLOB)",)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.sqlite"


def database(path: Path, *, schema: tuple[str, ...] = SCHEMA, application_id: int = ID) -> Database:
    return Database(path, what="list", remedy="start anew", application_id=application_id, schema=schema)


def test_it_is_private_and_keeps_what_was_written(path: Path) -> None:
    first = database(path)
    first.rows("INSERT INTO things VALUES (?)", b"x")
    assert {mode.stat().st_mode & 0o777 for mode in path.parent.iterdir()} == {0o600}
    first.close()
    first.close()
    again = database(path)
    assert again.rows("SELECT thing FROM things") == [(b"x",)]
    assert again.row("SELECT thing FROM things WHERE thing = ?", b"y") is None
    again.close()


def test_every_commit_waits_for_the_disk(path: Path) -> None:
    opened = database(path)
    assert opened.rows("PRAGMA journal_mode") == [("wal",)]
    assert opened.rows("PRAGMA synchronous") == [(2,)]
    opened.close()


def test_a_transaction_that_fails_leaves_nothing(path: Path) -> None:
    opened = database(path)

    def fail_half_way() -> None:
        with opened.transaction():
            opened.rows("INSERT INTO things VALUES (?)", b"x")
            raise KeyError("lost")

    with pytest.raises(KeyError):
        fail_half_way()
    assert opened.rows("SELECT thing FROM things") == []
    opened.close()


def test_an_older_version_is_brought_up_to_date(path: Path) -> None:
    old = database(path)
    old.rows("INSERT INTO things VALUES (?)", b"x")
    old.close()
    new = database(path, schema=(*SCHEMA, "ALTER TABLE things ADD COLUMN size INTEGER DEFAULT 7"))
    assert new.rows("SELECT thing, size FROM things") == [(b"x", 7)]
    new.close()


def test_a_newer_version_is_refused(path: Path) -> None:
    database(path, schema=(*SCHEMA, "CREATE TABLE more (a)")).close()
    with pytest.raises(Refused, match=r"was written by a newer InterFiles \(version 2, this one knows 1\)"):
        database(path)


def test_another_programs_database_is_refused_and_not_touched(path: Path) -> None:
    other = apsw.Connection(str(path))
    other.execute("CREATE TABLE theirs (a)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(Refused, match=r"the list .* belongs to another program; move it away"):
        database(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content", [b"x", b"no database at all, but a longer text" * 100, b"SQLite format 3\x00" + bytes(8_000)]
)
def test_what_is_no_database_is_damaged(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(StorageFailed, match=r"^the list .*a\.sqlite is damaged \(.*\); start anew$"):
        database(path)


def test_a_database_cut_short_is_damaged(path: Path) -> None:
    opened = database(path)
    with opened.transaction():
        for _ in range(100):
            opened.rows("INSERT INTO things VALUES (?)", os.urandom(5_000))
    opened.close()
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(StorageFailed, match=r"is damaged \(.*\); start anew$"):
        database(path).rows("SELECT sum(length(thing)) FROM things")


def test_a_directory_in_its_place_and_a_missing_directory_are_told(path: Path) -> None:
    path.mkdir()
    with pytest.raises(StorageFailed, match="cannot be opened: Is a directory"):
        database(path)
    with pytest.raises(StorageFailed, match="cannot be opened: No such file or directory"):
        database(path / "deeper" / "a.sqlite")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open everything")
def test_a_file_that_may_not_be_opened_is_told(path: Path) -> None:
    path.touch(0o000)
    with pytest.raises(NotPermitted, match="cannot be opened: Permission denied"):
        database(path)


def test_a_full_disk_leaves_the_transaction_undone_and_the_database_usable(path: Path) -> None:
    opened = database(path)
    (row,) = opened.rows("PRAGMA page_count")
    opened.rows(f"PRAGMA max_page_count = {row[0]!r}")
    with pytest.raises(NoSpace, match="its disk is full; free some room"), opened.transaction():
        opened.rows("INSERT INTO things VALUES (?)", bytes(100_000))
    assert opened.rows("SELECT thing FROM things") == []
    opened.rows("PRAGMA max_page_count = 1000")
    opened.rows("INSERT INTO things VALUES (?)", b"x")
    opened.close()
