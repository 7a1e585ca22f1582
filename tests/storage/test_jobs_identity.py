"""What the client remembers of its fleet: who it is, whom it believes, and who is not of the fleet any more."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from interfiles.storage.jobs import JobStore
from interfiles.storage.records import Identity
from tests.storage.test_jobs import IDENTITY, ONE, RECORD, TWO

HOSTS = [f"{number:032x}" for number in range(5)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "client.sqlite"


@pytest.fixture
def jobs(path: Path) -> Iterator[JobStore]:
    opened = JobStore(path)
    yield opened
    opened.close()


@pytest.mark.parametrize(
    "other",
    [
        replace(IDENTITY, fleet="8b", masters=()),
        replace(IDENTITY, key="another key", chain="another certificate", authorities=("the newest",)),
        replace(IDENTITY, removed="this host was removed from its fleet"),
    ],
)
def test_a_host_knows_who_it_is(path: Path, jobs: JobStore, other: Identity) -> None:
    assert jobs.load_identity() is None
    jobs.save_identity(IDENTITY)
    assert jobs.load_identity() == IDENTITY
    jobs.save_identity(other)
    again = JobStore(path)
    assert again.load_identity() == other
    again.close()


def test_its_key_is_private_and_not_shown(path: Path, jobs: JobStore) -> None:
    jobs.save_identity(IDENTITY)
    assert "a private key" not in repr(jobs.load_identity())
    assert {file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {0o600}


def test_who_was_removed_is_kept_beside_or_in_place_of_those_before(path: Path, jobs: JobStore) -> None:
    assert jobs.load_revoked() == set()
    jobs.save_revoked(HOSTS[:2], replace=True)
    jobs.save_revoked(HOSTS[1:3], replace=False)
    again = JobStore(path)
    assert again.load_revoked() == set(HOSTS[:3])
    again.close()
    jobs.save_revoked(HOSTS[3:], replace=True)
    assert jobs.load_revoked() == set(HOSTS[3:])
    jobs.save_revoked([], replace=False)
    assert jobs.load_revoked() == set(HOSTS[3:])
    jobs.save_revoked([], replace=True)
    assert jobs.load_revoked() == set()


def test_those_removed_are_replaced_as_a_whole_or_not_at_all(path: Path, jobs: JobStore) -> None:
    def broken() -> Iterator[str]:
        yield HOSTS[4]
        raise ZeroDivisionError

    jobs.save_revoked(HOSTS[:2], replace=True)
    with pytest.raises(ZeroDivisionError):
        jobs.save_revoked(broken(), replace=True)
    assert jobs.load_revoked() == set(HOSTS[:2])


def test_a_newcomer_starts_anew_and_publishes_what_it_has_again(jobs: JobStore) -> None:
    jobs.save_identity(replace(IDENTITY, removed="removed"))
    jobs.save_revoked(HOSTS, replace=True)
    plain = replace(RECORD, published=True, owned=False, in_place=False, ordered=False, again=False)
    seeded = replace(plain, owned=True)
    in_place = replace(plain, file_id=TWO, in_place=True)
    fetched = replace(plain, file_id=b"\x03" * 32)
    replica = replace(plain, file_id=b"\x04" * 32, owned=True, ordered=True)
    for record in (seeded, in_place, fetched, replica):
        jobs.add(record)
    newcomer = replace(IDENTITY, fleet="8b", host_id="1" * 32)
    jobs.save_newcomer(newcomer)
    assert jobs.load_identity() == newcomer
    assert jobs.load_revoked() == set(), "those were of another time, or of another fleet"
    assert {record.file_id: (record.published, record.again) for record in jobs.load_all()} == {
        ONE: (False, True),
        TWO: (False, True),
        b"\x03" * 32: (True, False),
        b"\x04" * 32: (True, False),
    }


def test_a_newcomer_is_kept_as_a_whole_or_not_at_all(jobs: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs.save_identity(IDENTITY)
    jobs.save_revoked(HOSTS, replace=True)
    change = jobs._change

    def fail_late(sql: str, *values: str) -> None:
        if sql.startswith("UPDATE files"):
            raise ZeroDivisionError
        change(sql, *values)

    monkeypatch.setattr(jobs, "_change", fail_late)
    with pytest.raises(ZeroDivisionError):
        jobs.save_newcomer(replace(IDENTITY, fleet="8b"))
    monkeypatch.undo()
    assert jobs.load_identity() == IDENTITY
    assert jobs.load_revoked() == set(HOSTS)
