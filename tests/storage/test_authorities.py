"""The CAs' private keys: private, whole or told of in a sentence, and gone once they are not needed."""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from interfiles.errors import InterFilesError, NoSpace, NotPermitted, StorageFailed
from interfiles.identity.authority import Authority, digest
from interfiles.storage import authorities
from interfiles.storage.authorities import StoredAuthority
from interfiles.storage.catalogue import AUTHORITIES_NAME, Catalogue

OLDER, NEWER = (Authority.make("f1ee7", now=0) for _ in range(2))


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    opened = Catalogue(tmp_path / "catalogue", new_fleet_id="f1ee7", now=0)
    yield opened
    opened.close()


def stored(authority: Authority, cross: str = "") -> StoredAuthority:
    return StoredAuthority(authority, cross, 7.0)


def key_path(state: Path, authority: Authority) -> Path:
    return state / AUTHORITIES_NAME / f"{digest(authority.certificate).hex()[:16]}.key"


def test_they_come_back_the_newest_first(catalogue: Catalogue, tmp_path: Path) -> None:
    first, second = stored(OLDER), stored(NEWER, OLDER.cross_sign(NEWER, now=0))
    assert catalogue.authorities.load() == []
    catalogue.authorities.add(first)
    catalogue.authorities.add(second)
    again = Catalogue(tmp_path / "catalogue", new_fleet_id="other", now=0)
    assert again.authorities.load() == [second, first]
    again.close()


def test_keys_are_in_files_that_only_their_user_reads(catalogue: Catalogue, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        catalogue.authorities.add(stored(OLDER))
    finally:
        os.umask(before)
    path = key_path(tmp_path, OLDER)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert path.read_text() == OLDER.key


def test_the_database_has_no_key(catalogue: Catalogue, tmp_path: Path) -> None:
    catalogue.authorities.add(stored(OLDER))
    middle = OLDER.key.splitlines()[1].encode()
    assert all(middle not in path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
    assert "PRIVATE KEY" not in repr(catalogue.authorities.load())


def damage_missing(path: Path) -> None:
    path.unlink()


def damage_cut(path: Path) -> None:
    path.write_text(path.read_text()[:40])


def damage_binary(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\x00")


def damage_swapped(path: Path) -> None:
    path.write_text(NEWER.key)


def damage_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (damage_missing, "No such file or directory"),
        (damage_cut, "a private key is damaged"),
        (damage_binary, "a private key is damaged"),
        (damage_swapped, "it is not the key of the CA's certificate"),
        (damage_directory, "Is a directory"),
    ],
)
def test_a_key_that_is_not_there_or_not_right_is_told_in_a_sentence(
    catalogue: Catalogue, tmp_path: Path, damage: Callable[[Path], None], reason: str
) -> None:
    catalogue.authorities.add(stored(OLDER))
    path = key_path(tmp_path, OLDER)
    damage(path)
    with pytest.raises(StorageFailed) as caught:
        catalogue.authorities.load()
    told = str(caught.value)
    assert told.startswith(f"the CA's key {path} cannot be used: {reason}")
    assert told.endswith("; put it back from a backup")
    assert len(told.splitlines()) == 1


def test_a_crash_between_key_and_row_leaves_what_was_before(
    catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue.authorities.add(stored(OLDER))

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(catalogue.authorities._database, "rows", die)
        with pytest.raises(KeyboardInterrupt):
            catalogue.authorities.add(stored(NEWER))
    assert key_path(tmp_path, NEWER).exists()
    again = Catalogue(tmp_path / "catalogue", new_fleet_id="other", now=0)
    assert again.authorities.load() == [stored(OLDER)]
    again.authorities.add(stored(NEWER))
    assert again.authorities.load() == [stored(NEWER), stored(OLDER)]
    again.close()


def test_a_key_is_on_disk_before_anything_names_it(
    catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def watch(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    monkeypatch.setattr(authorities, "sync_descriptor", watch)
    monkeypatch.setattr(catalogue.authorities._database, "rows", lambda *_: synced.append("row"))
    catalogue.authorities.add(stored(OLDER))
    path = key_path(tmp_path, OLDER)
    assert synced == [str(path), str(path.parent), str(tmp_path), "row"]


def test_a_key_is_destroyed_with_its_ca(catalogue: Catalogue, tmp_path: Path) -> None:
    catalogue.authorities.add(stored(OLDER))
    catalogue.authorities.add(stored(NEWER))
    catalogue.authorities.remove(OLDER)
    assert catalogue.authorities.load() == [stored(NEWER)]
    assert [path.name for path in (tmp_path / AUTHORITIES_NAME).iterdir()] == [key_path(tmp_path, NEWER).name]
    catalogue.authorities.remove(OLDER)


@pytest.mark.parametrize(
    ("call", "error", "raised"),
    [("open", OSError(28, "No space left on device"), NoSpace), ("open", PermissionError(13, "no"), NotPermitted)],
)
def test_a_key_that_cannot_be_written_adds_no_ca(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch, call: str, error: OSError, raised: type[InterFilesError]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(os, call, fail)
        with pytest.raises(raised):
            catalogue.authorities.add(stored(OLDER))
    assert catalogue.authorities.load() == []


def test_a_key_that_cannot_be_destroyed_is_told(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    catalogue.authorities.add(stored(OLDER))
    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", fail)
        with pytest.raises(NotPermitted, match="cannot be removed: Read-only file system"):
            catalogue.authorities.remove(OLDER)
    catalogue.authorities.remove(OLDER)
