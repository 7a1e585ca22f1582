"""The catalogue: files by id, prefix and name, tombstones, and nothing acknowledged is lost."""

import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from interfiles.errors import StorageFailed, UnknownFile
from interfiles.storage.catalogue import MAX_PAGE_ENDS, Catalogue
from interfiles.wire.codec import encode
from interfiles.wire.master_messages import FileInfo, Resolved


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    opened = Catalogue(tmp_path / "catalogue", new_fleet_id="f1ee7", now=0)
    yield opened
    opened.close()


def info(file_id: str, name: str = "weights", *, uploaded_at: int = 1_000, replicas: int = 3) -> FileInfo:
    """An entry whose id begins with these hex digits."""
    return FileInfo(
        file_id=bytes.fromhex(file_id.ljust(64, "0")),
        name=name,
        is_directory=True,
        entries=231,
        size=18_400_000_000,
        piece_size=4 << 20,
        pieces=4_387,
        uploaded_at=uploaded_at,
        uploaded_by="render-01",
        replicas_wanted=replicas,
        expires_at=0,
    )


def publish(catalogue: Catalogue, *entries: FileInfo) -> None:
    for entry in entries:
        catalogue.publish(entry, b"manifest of " + entry.file_id, keep_replicas=False)


class TestFiles:
    def test_a_file_is_kept_with_its_manifest(self, catalogue: Catalogue) -> None:
        entry = info("9c41")
        publish(catalogue, entry)
        assert catalogue.file(entry.file_id) == entry
        assert catalogue.manifest(entry.file_id) == b"manifest of " + entry.file_id
        assert catalogue.manifest_size(entry.file_id) == 12 + 32
        assert encode(Resolved(1, catalogue.file(entry.file_id)))

    def test_a_file_published_again_keeps_its_first_upload(self, catalogue: Catalogue) -> None:
        publish(catalogue, info("9c41"))
        again = info("9c41", uploaded_at=2_000, replicas=5)
        assert catalogue.publish(again, b"m", keep_replicas=True) == info("9c41")
        assert catalogue.publish(again, b"m", keep_replicas=False) == info("9c41", replicas=5)

    def test_what_is_not_there_is_unknown(self, catalogue: Catalogue) -> None:
        for ask in (catalogue.file, catalogue.manifest, catalogue.manifest_size):
            with pytest.raises(UnknownFile, match="no file of this fleet has the id 9c4100000000; see `interfiles ls`"):
                ask(info("9c41").file_id)

    def test_files_are_listed_by_name_page_by_page(self, catalogue: Catalogue) -> None:
        publish(catalogue, *(info(f"{number:04x}", f"file-{number % 7}") for number in range(20)))
        pages = [catalogue.files(start, 6) for start in range(0, 25, 6)]
        listed = [entry for page, _ in pages for entry in page]
        assert [(len(page), more) for page, more in pages] == [(6, True), (6, True), (6, True), (2, False), (0, False)]
        assert [entry.name for entry in listed] == sorted(entry.name for entry in listed)
        assert len({entry.file_id for entry in listed}) == 20

    def test_a_page_is_of_what_is_there_now_wherever_the_one_before_it_ended(self, catalogue: Catalogue) -> None:
        entries = [info(f"{number:04x}", f"file-{number}") for number in range(9)]
        publish(catalogue, *entries[1:])
        assert catalogue.files(0, 3) == (entries[1:4], True)
        assert catalogue.files(3, 3) == (entries[4:7], True)
        publish(catalogue, entries[0])
        assert catalogue.files(3, 3) == (entries[3:6], True)
        catalogue.remove(entries[1].file_id, delete=False, now=5, is_held=False)
        assert catalogue.files(3, 9) == (entries[4:], False)

    def test_of_very_many_listings_few_page_ends_are_remembered(self, catalogue: Catalogue) -> None:
        entries = [info(f"{number:04x}", f"file-{number:04}") for number in range(MAX_PAGE_ENDS + 3)]
        publish(catalogue, *entries)
        pages = [catalogue.files(start, 1)[0][0] for start in [*range(len(entries)), *range(len(entries))]]
        assert pages == [*entries, *entries]
        assert len(catalogue._page_ends) == MAX_PAGE_ENDS


class TestFind:
    @pytest.mark.parametrize("query", ["9c41e07b2d55", "9c41", "9C41E", "weights", "9c41e07b2d55".ljust(64, "0")])
    def test_by_id_prefix_and_name(self, catalogue: Catalogue, query: str) -> None:
        publish(catalogue, info("9c41e07b2d55"), info("9c52", "model"))
        assert catalogue.find(query) == info("9c41e07b2d55")

    @pytest.mark.parametrize("query", ["Weights", "weight", "%", "weights'", "9c42", "9c41f", "", "f" * 65])
    def test_what_fits_nothing(self, catalogue: Catalogue, query: str) -> None:
        publish(catalogue, info("9c41e07b2d55"))
        with pytest.raises(UnknownFile, match=r"^no file goes by '.*' in this fleet; see `interfiles ls`$"):
            catalogue.find(query)

    def test_a_prefix_that_is_too_short_is_told_so(self, catalogue: Catalogue) -> None:
        publish(catalogue, info("9c41e07b2d55"))
        with pytest.raises(UnknownFile, match="no file goes by '9c4'; an id takes its first 4 digits or more"):
            catalogue.find("9c4")

    def test_a_prefix_of_several_names_how_many_and_some(self, catalogue: Catalogue) -> None:
        publish(catalogue, *(info(f"9c41{number:x}", f"file-{number}", uploaded_at=number) for number in range(8)))
        with pytest.raises(UnknownFile) as caught:
            catalogue.find("9c41")
        assert str(caught.value).startswith(
            "8 files go by '9c41': 9c4170000000 (file-7, 18.4 GB), 9c4160000000 (file-6, 18.4 GB), "
        )
        assert str(caught.value).endswith(" and 3 more; name one by its id")

    def test_a_name_of_several_is_ambiguous_and_so_is_one_that_is_anothers_prefix(self, catalogue: Catalogue) -> None:
        publish(catalogue, info("1111"), info("2222"), info("beef"), info("3333", "beef"))
        with pytest.raises(UnknownFile, match=r"3 files go by 'weights': .*; name one by its id"):
            catalogue.find("weights")
        with pytest.raises(UnknownFile, match="2 files go by 'beef'"):
            catalogue.find("beef")

    def test_a_file_named_like_its_own_id_is_one(self, catalogue: Catalogue) -> None:
        publish(catalogue, info("beef", "beef"))
        assert catalogue.find("beef") == info("beef", "beef")

    def test_names_are_escaped_in_sentences(self, catalogue: Catalogue) -> None:
        publish(catalogue, info("1111", "a\x1b[2J"), info("1112", "a\x1b[2J"))
        for query in ("1111\x1b", "a\x1b[2J"):
            with pytest.raises(UnknownFile) as caught:
                catalogue.find(query)
            assert str(caught.value).isprintable()


class TestRemoval:
    def test_an_id_is_that_of_its_file_whatever_others_are_called(self, catalogue: Catalogue) -> None:
        entry = info("abcd")
        decoy = info("1234", entry.file_id.hex())
        for one in (entry, decoy):
            catalogue.publish(one, b"manifest", keep_replicas=False)
        assert catalogue.find(entry.file_id.hex()) == entry
        assert catalogue.find(entry.file_id.hex().upper()) == entry
        catalogue.remove(entry.file_id, delete=False, now=5, is_held=False)
        assert catalogue.find(entry.file_id.hex()) == decoy

    def test_a_removed_file_leaves_a_tombstone(self, catalogue: Catalogue) -> None:
        entry, other = info("9c41"), info("1111", "model")
        publish(catalogue, entry, other)
        catalogue.remove(entry.file_id, delete=False, now=5, is_held=False)
        with pytest.raises(UnknownFile):
            catalogue.manifest(entry.file_id)
        assert catalogue.files(0, 9) == ([other], False)
        assert catalogue.removed([other.file_id, entry.file_id]) == {entry.file_id: False}

    def test_removing_again_may_only_add_the_wish_to_delete(self, catalogue: Catalogue) -> None:
        entry = info("9c41")
        publish(catalogue, entry)
        for delete, kept in ((False, False), (True, True), (False, True)):
            catalogue.remove(entry.file_id, delete=delete, now=5, is_held=False)
            assert catalogue.removed([entry.file_id]) == {entry.file_id: kept}

    def test_publishing_it_again_clears_the_tombstone(self, catalogue: Catalogue) -> None:
        entry = info("9c41")
        publish(catalogue, entry)
        catalogue.remove(entry.file_id, delete=True, now=5, is_held=False)
        publish(catalogue, entry)
        assert catalogue.removed([entry.file_id]) == {}
        assert catalogue.manifest(entry.file_id)

    def test_only_what_has_expired_is_removed_as_such(self, catalogue: Catalogue) -> None:
        over, prolonged, lasting = (
            replace(info(digits), expires_at=at) for digits, at in (("aa", 9), ("bb", 9), ("cc", 0))
        )
        for one in (over, prolonged, lasting, replace(prolonged, expires_at=11)):
            catalogue.publish(one, b"manifest", keep_replicas=True)
        assert catalogue.remove_expired(over.file_id, now=8.9) is None
        assert catalogue.remove_expired(over.file_id, now=9.0) == "weights"
        assert catalogue.remove_expired(over.file_id, now=9.0) is None
        for one in (prolonged, lasting):
            assert catalogue.remove_expired(one.file_id, now=10.0) is None
        assert catalogue.removed([one.file_id for one in (over, prolonged, lasting)]) == {over.file_id: False}

    def test_a_file_that_was_never_published_can_be_removed_where_it_is_held(self, catalogue: Catalogue) -> None:
        file_id = info("9c41").file_id
        with pytest.raises(UnknownFile):
            catalogue.remove(file_id, delete=False, now=5, is_held=False)
        assert catalogue.removed([file_id]) == {}
        catalogue.remove(file_id, delete=False, now=5, is_held=True)
        assert catalogue.removed([file_id]) == {file_id: False}


def test_the_fleet_stays_the_same_after_a_restart(tmp_path: Path) -> None:
    for new_fleet_id in ("f1ee7", "another"):
        opened = Catalogue(tmp_path / "catalogue", new_fleet_id=new_fleet_id, now=0)
        assert opened.fleet_id == "f1ee7"
        opened.close()


WRITER = """
import sys
from pathlib import Path
from interfiles.storage.catalogue import MAX_PAGE_ENDS, Catalogue
from tests.storage.test_catalogue import info, publish
catalogue = Catalogue(Path(sys.argv[1]), new_fleet_id="f1ee7", now=0)
for number in range(int(sys.argv[2]), 1 << 16):
    publish(catalogue, info(f"{number:04x}", f"file-{number}"))
    if number % 3 == 0:
        catalogue.remove(info(f"{number:04x}").file_id, delete=True, now=1, is_held=False)
    print(number, flush=True)
"""


def test_an_empty_one_beside_the_keys_of_a_fleet_begins_no_other_fleet(tmp_path: Path) -> None:
    (tmp_path / "ca").mkdir()
    Catalogue(tmp_path / "catalogue", new_fleet_id="f1ee7", now=0).close()
    (tmp_path / "catalogue").write_bytes(b"")
    (tmp_path / "ca" / "key").touch()
    for _ in range(2):
        with pytest.raises(StorageFailed, match="ca holds the keys of a fleet; put a backup in its place, or move"):
            Catalogue(tmp_path / "catalogue", new_fleet_id="07he2", now=0)
    (tmp_path / "ca" / "key").unlink()
    anew = Catalogue(tmp_path / "catalogue", new_fleet_id="07he2", now=0)
    assert anew.fleet_id == "07he2"
    anew.close()


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    rng, acknowledged = random.Random(4), -1
    for _ in range(4):
        command = [sys.executable, "-c", WRITER, str(tmp_path / "catalogue"), str(acknowledged + 1)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            for _ in range(rng.randrange(1, 40)):  # it goes on writing meanwhile
                acknowledged = int(writer.stdout.readline())
            writer.send_signal(signal.SIGKILL)
            for line in writer.stdout:
                acknowledged = int(line) if line.endswith("\n") else acknowledged
        opened = Catalogue(tmp_path / "catalogue", new_fleet_id="other", now=0)
        assert opened.fleet_id == "f1ee7"
        for number in range(acknowledged + 1):
            entry = info(f"{number:04x}", f"file-{number}")
            if number % 3 == 0:
                assert opened.removed([entry.file_id]) == {entry.file_id: True}
            else:
                assert opened.find(f"{number:04x}") == entry
                assert opened.manifest(entry.file_id) == b"manifest of " + entry.file_id
        opened.close()
