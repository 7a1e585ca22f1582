"""Manifests: one encoding, one id, exact arithmetic, and a bound on what a hostile one can cost."""

from typing import Any

import msgpack
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from interfiles.errors import InvalidManifest
from interfiles.geometry import MAX_CONTENT_BYTES, MAX_PIECE_BYTES, MAX_PIECES, MIB, MIN_PIECE_BYTES
from interfiles.manifest import (
    MAX_MANIFEST_BYTES,
    DirectoryEntry,
    FileEntry,
    FileId,
    Manifest,
    SymlinkEntry,
    short_id,
)
from interfiles.manifest_paths import MAX_ENTRIES
from tests.trees import directory, lines_executed, manifests, many_files, peak_bytes, single_file, some_hashes

SMALL = directory(
    DirectoryEntry("empty"),
    FileEntry("bin/run", 5, True),
    FileEntry("文件", MIN_PIECE_BYTES, False),
    SymlinkEntry("bin/latest", "../文件"),
    name="weights",
)
FIELDS: list[Any] = msgpack.unpackb(SMALL.encode())
FIELD_NAMES = ("version", "name", "is_directory", "piece_size", "entries", "hashes")


def packed(**changes: Any) -> bytes:
    """The small manifest's encoding with some fields replaced: `packed(hashes=b"")`."""
    fields = dict(zip(FIELD_NAMES, FIELDS, strict=True)) | changes
    return bytes(msgpack.packb(list(fields.values())))


def packed_entries(*entries: list[Any]) -> bytes:
    """A directory with these entries and no content."""
    return packed(entries=list(entries), hashes=b"")


def reason(data: bytes) -> str:
    """Why the bytes are refused."""
    with pytest.raises(InvalidManifest) as caught:
        Manifest.decode(data)
    return str(caught.value)


@given(manifests())
def test_round_trip(manifest: Manifest) -> None:
    decoded = Manifest.decode(manifest.encode())
    assert decoded == manifest
    assert decoded.entries == manifest.entries
    assert decoded.file_id == blake3(manifest.encode()).digest()
    assert (decoded.name, decoded.is_directory, decoded.size) == (manifest.name, manifest.is_directory, manifest.size)
    assert (decoded.piece_size, decoded.hashes) == (manifest.piece_size, manifest.hashes)


def test_the_id_of_the_same_content_is_the_same_in_every_version() -> None:
    assert SMALL.file_id.hex() == "bb6cddf58a26da8c63dd8c2748870ee714bddb98ca19ec872c266c0882128c9f"
    assert short_id(SMALL.file_id) == SMALL.file_id.hex()[:12]
    assert short_id(FileId(bytes(range(32)))) == "000102030405"


def test_equal_means_the_same_id() -> None:
    same = Manifest.decode(SMALL.encode())
    other = directory(name="weights")
    assert same == SMALL
    assert hash(same) == hash(SMALL)
    assert other != SMALL
    assert SMALL.file_id != SMALL


def test_what_a_manifest_says() -> None:
    assert SMALL.size == 5 + MIN_PIECE_BYTES
    assert SMALL.piece_count == 2
    assert SMALL.geometry.piece_size == MIN_PIECE_BYTES
    assert [SMALL.piece_hash(piece) for piece in SMALL.geometry.pieces()] == [SMALL.hashes[:32], SMALL.hashes[32:]]
    assert [(file.entry.path, file.offset) for file in SMALL.files] == [("bin/run", 0), ("文件", 5)]


def test_empty_contents_have_no_pieces() -> None:
    for manifest in (single_file("a", 0), directory(), directory(FileEntry("a", 0, True), DirectoryEntry("b"))):
        assert Manifest.decode(manifest.encode()).piece_count == 0
        assert manifest.spans(0, 0) == []
        assert not manifest.zero_pieces()


def test_ten_terabytes() -> None:
    manifest = single_file("huge", 10**13)
    assert Manifest.decode(manifest.encode()) == manifest
    assert manifest.piece_count == 596_047
    assert manifest.spans(10**13 - 1, 1) == [(0, 10**13 - 1, 1)]


def test_the_largest_content_and_one_byte_more() -> None:
    files = [FileEntry(name, MAX_CONTENT_BYTES // 2, False) for name in "ab"]
    table = bytes(32 * MAX_PIECES)
    assert Manifest.build("t", True, files, MAX_PIECE_BYTES, table).piece_count == MAX_PIECES
    with pytest.raises(InvalidManifest, match="its files have 17,592,186,044,417 bytes together, at most 17,592,186,0"):
        Manifest.build("t", True, [*files, FileEntry("c", 1, False)], MAX_PIECE_BYTES, table)


@given(st.lists(st.integers(0, 4), max_size=8), st.data())
def test_spans_are_those_of_a_byte_by_byte_count(sizes: list[int], data: st.DataObject) -> None:
    manifest = directory(*[FileEntry(f"{n}", size, False) for n, size in enumerate(sizes)])
    places = [(index, at) for index, size in enumerate(sizes) for at in range(size)]
    offset = data.draw(st.integers(0, len(places)))
    length = data.draw(st.integers(0, len(places) - offset))
    spans = manifest.spans(offset, length)
    assert [(index, at + n) for index, at, taken in spans for n in range(taken)] == places[offset : offset + length]
    assert len(spans) == len({index for index, _, _ in spans})


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (0, -1), (0, SMALL.size + 1), (SMALL.size, 1), (2**70, 0)])
def test_a_range_outside_the_content_has_no_spans(offset: int, length: int) -> None:
    with pytest.raises(ValueError, match=f"are outside a content of {SMALL.size} bytes"):
        SMALL.spans(offset, length)


def test_a_lookup_among_more_files_is_no_more_work() -> None:
    work = []
    for count in (1_000, 10_000):
        manifest = many_files(count)
        manifest.spans(0, 1)  # builds the index
        work.append(lines_executed(lambda m=manifest: m.spans(m.size // 2, 1)))  # type: ignore[misc]
    assert work[0] == work[1] < 30


def test_decoding_ten_times_the_entries_is_ten_times_the_work() -> None:
    small, large = (lines_executed(lambda data=many_files(n).encode(): Manifest.decode(data)) for n in (1_000, 10_000))  # type: ignore[misc]
    assert large < 11 * small
    assert large < 100 * 10_000


def test_zero_pieces() -> None:
    zeros, zeros_at_the_end = blake3(bytes(MIN_PIECE_BYTES)).digest(), blake3(bytes(7)).digest()
    data = some_hashes(1)

    def found(*hashes: bytes) -> list[int]:
        size = (len(hashes) - 1) * MIN_PIECE_BYTES + 7
        manifest = Manifest.build("f", False, [FileEntry("f", size, False)], MIN_PIECE_BYTES, b"".join(hashes))
        return list(manifest.zero_pieces())

    assert found(zeros, data, zeros, zeros_at_the_end) == [0, 2, 3]
    assert found(data, zeros_at_the_end, zeros) == []
    assert found(zeros[16:] + zeros[:16], zeros[16:] + zeros[:16], data) == []
    whole = Manifest.build("f", False, [FileEntry("f", MIN_PIECE_BYTES, False)], MIN_PIECE_BYTES, zeros)
    assert whole.zero_pieces().is_full


HOSTILE_FIELDS = [
    (packed(version=2), "manifest is of version 2, this InterFiles reads version 1"),
    (packed(version=True), "manifest is malformed: bool where a whole number belongs"),
    (packed(name=b"weights"), "manifest is malformed: bytes where text belongs"),
    (packed(name="a/b"), "name 'a/b' contains a slash"),
    (packed(name=".."), "name '..' contains '..'"),
    (packed(is_directory=1), "manifest is malformed: int where true or false belongs"),
    (packed(is_directory=False), "single file 'weights' must have itself as its only entry"),
    (packed(piece_size=True), "manifest is malformed: bool where a whole number belongs"),
    (packed(piece_size=float("nan")), "manifest is malformed: float where a whole number belongs"),
    (packed(piece_size=0), "piece size 0 is not a power of two from 256 KiB to 16 MiB"),
    (packed(piece_size=2**63), f"piece size {2**63} is not a power of two from 256 KiB to 16 MiB"),
    (packed(piece_size=MIB), "piece table has 2 hashes, its size calls for 1"),
    (packed(hashes=b""), "piece table has 0 hashes, its size calls for 2"),
    (packed(hashes=bytes(4388 * 32)), "piece table has 4,388 hashes, its size calls for 2"),
    (packed(hashes=bytes(63)), "piece table of 63 bytes is not a whole number of 32-byte hashes"),
    (packed(hashes="x" * 64), "manifest is malformed: str where bytes belong"),
    (packed(hashes=None), "manifest is malformed: NoneType where bytes belong"),
    (packed(entries={}), "manifest is malformed: something else where an array should follow byte 16"),
    (packed_entries(["a", 1, False]), "piece table has 0 hashes, its size calls for 1"),
    (packed_entries(["a", -1, False]), "file 'a' has a size of -1 bytes"),
    (packed_entries(["a", True, False]), "manifest is malformed: bool where a whole number belongs"),
    (packed_entries(["a", 0, 0]), "manifest is malformed: int where true or false belongs"),
    (packed_entries(["a", 0.0, False]), "manifest is malformed: float where a whole number belongs"),
    (packed_entries(["a", 2**64 - 1, False]), f"its files have {2**64 - 1:,} bytes together, at most"),
    (packed_entries(["a", msgpack.ExtType(1, b""), False]), "manifest is malformed: ExtType where a whole number"),
    (packed_entries([]), "manifest is malformed: an entry of 0 fields, 1 to 3 are expected"),
    (packed_entries(["a", 0, False, 0]), "manifest is malformed: an entry of 4 fields, 1 to 3 are expected"),
    (packed_entries([["a"]]), "manifest is malformed: something else where text should follow"),
    (packed_entries([{}]), "manifest is malformed: dict where text belongs"),
    (packed_entries(["b"], ["a"]), "entry 'a' follows 'b', so they do not ascend"),
    (packed_entries(["a"], ["a"]), "entry 'a' follows 'a', so they do not ascend"),
    (bytes(msgpack.packb(FIELDS[:5])), "manifest is malformed: 5 fields, 6 are expected"),
    (bytes(msgpack.packb([*FIELDS, 0])), "manifest is malformed: 7 fields, 6 are expected"),
    (SMALL.encode() + b"\x00\x00", "manifest is malformed: 2 bytes follow its end"),
    (b"", "manifest is malformed: it ends after 0 bytes, where an array should follow"),
    (b"\x01", "manifest is malformed: something else where an array should follow"),
    (b"\xc1", "manifest is malformed: something else where an array should follow"),
    (SMALL.encode().replace(b"weights", b"weight\xff"), "manifest is malformed: text that is not UTF-8"),
    (SMALL.encode().replace(b"weights", b"wei\xed\xa0\x80s"), "manifest is malformed: text that is not UTF-8"),
]


@pytest.mark.parametrize(("data", "expected"), HOSTILE_FIELDS, ids=[expected[:60] for _, expected in HOSTILE_FIELDS])
def test_hostile_fields(data: bytes, expected: str) -> None:
    assert reason(data).startswith(expected)


@pytest.mark.parametrize(
    ("shortest", "longer"),
    [
        (b"\x96\x01", b"\x96\xcc\x01"),
        (b"\x96\x01", b"\xdc\x00\x06\x01"),
        (b"\xa7weights", b"\xd9\x07weights"),
        (b"\xa7weights", b"\xda\x00\x07weights"),
        (b"\x05\xc3", b"\xd3\x00\x00\x00\x00\x00\x00\x00\x05\xc3"),
        (b"\xc4\x40", b"\xc5\x00\x40"),
    ],
)
def test_the_same_in_more_bytes_is_not_canonical(shortest: bytes, longer: bytes) -> None:
    assert SMALL.encode().count(shortest) == 1
    assert reason(SMALL.encode().replace(shortest, longer)) == "manifest is not in its canonical encoding"


@pytest.mark.parametrize("length", range(len(SMALL.encode())))
def test_a_truncated_manifest_is_refused(length: int) -> None:
    assert reason(SMALL.encode()[:length]).startswith(f"manifest is malformed: it ends after {length} bytes")


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_canonical(data: bytes) -> None:
    for candidate in (data, SMALL.encode()[:2] + data, SMALL.encode()[:16] + data):
        with pytest.raises(InvalidManifest):
            Manifest.decode(candidate)


@given(manifests(), st.data())
def test_one_changed_byte_makes_another_manifest_or_none(manifest: Manifest, data: st.DataObject) -> None:
    encoded = bytearray(manifest.encode())
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        decoded = Manifest.decode(bytes(encoded))
    except InvalidManifest:
        return
    assert decoded.encode() == encoded
    assert decoded.file_id != manifest.file_id


def filled(unit: bytes) -> bytes:
    """The unit over and over, for 1 MiB."""
    return unit * (MIB // len(unit))


BOMBS = {
    "nested array16": filled(b"\xdc\xff\xff"),
    "nested array32": filled(b"\xdd\xff\xff\xff\xff"),
    "nested fixarray": filled(b"\x96"),
    "nested map32": filled(b"\xdf\xff\xff\xff\xff"),
    "empty maps for fields": b"\x96\x01" + filled(b"\x80"),
    "nested arrays for a name": b"\x96\x01" + filled(b"\xdc\xff\xff"),
    "empty maps in a version": b"\x96\xdd\x00\x0f\xff\xff" + filled(b"\x80"),
    "4 billion entries": packed_entries()[:-3] + b"\xdd\xff\xff\xff\xff" + filled(b"\x91\xa1a"),
    "a million entries promised": packed_entries()[:-3] + b"\xdd\x00\x0f\x42\x40",
    "an entry of 4 billion fields": packed_entries(["a"])[:-5] + b"\xdd\xff\xff\xff\xff" + filled(b"\xc0"),
    "empty maps in an entry": packed_entries(["a"])[:-5] + b"\x91" + filled(b"\x80"),
    "a string of 4 GB": b"\x96\x01\xdb\xff\xff\xff\xff" + bytes(MIB),
    "a piece table of 4 GB": packed(hashes=b"")[:-2] + b"\xc6\xff\xff\xff\xff" + bytes(MIB),
    "an extension of 4 GB": b"\x96\x01\xc9\xff\xff\xff\xff\x01" + bytes(MIB),
    "a name of 1 MB": packed(name="n" * MIB),
    "a path of 1 MB": packed_entries(["a/" * (MIB // 2)]),
    "a piece table of 1 MB": packed(hashes=bytes(MIB)),
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS.keys())
def test_a_bomb_costs_no_more_than_a_few_times_its_length(bomb: bytes) -> None:
    assert peak_bytes(lambda: reason(bomb)) < 4 * len(bomb) + 256 * 1024


@pytest.mark.parametrize("unit", [b"\x91\xa0", b"\x92\xa0\xa0", b"\x93\xa0\x00\xc2"], ids=["directory", "link", "file"])
def test_the_smallest_entries_cost_what_their_objects_do(unit: bytes) -> None:
    count = MIB // len(unit)
    bomb = packed_entries()[:-3] + b"\xdd" + count.to_bytes(4, "big") + unit * count + b"\xc4\x00"
    assert peak_bytes(lambda: reason(bomb)) < 50 * len(bomb)


def test_ten_thousand_entries_cost_a_small_multiple_of_their_encoding() -> None:
    encoded = many_files(10_000).encode()
    assert peak_bytes(lambda: Manifest.decode(encoded)) < 20 * len(encoded)


def test_a_manifest_over_the_limit_is_refused_before_it_is_read() -> None:
    data = bytes(MAX_MANIFEST_BYTES + 1)
    assert peak_bytes(lambda: reason(data)) < 64 * 1024
    assert reason(data) == "manifest takes 67,108,865 bytes, at most 67,108,864 are allowed"
    assert reason(data[:-1]).startswith("manifest is malformed")


def test_the_largest_manifest_and_one_byte_more() -> None:
    long = "/".join(["d" * 250] * 15)
    entries = [DirectoryEntry(f"{long}/{n:05}") for n in range(17_781)]

    def with_last_path_of(length: int) -> Manifest:
        path = "".join("/" if n % 200 == 100 else "e" for n in range(length))
        return Manifest.build("t", True, [*entries, DirectoryEntry(path)], MIB, b"")

    missing = MAX_MANIFEST_BYTES - len(with_last_path_of(256).encode())
    assert len(with_last_path_of(256 + missing).encode()) == MAX_MANIFEST_BYTES
    with pytest.raises(InvalidManifest, match="manifest takes 67,108,865 bytes, at most 67,108,864 are allowed"):
        with_last_path_of(256 + missing + 1)


def test_the_number_of_entries_is_limited_before_any_is_read() -> None:
    def listed(count: int) -> str:
        return reason(packed_entries()[:-3] + b"\xdd" + count.to_bytes(4, "big"))

    assert listed(MAX_ENTRIES).startswith("manifest is malformed: it ends after")
    assert listed(MAX_ENTRIES + 1) == "manifest lists 1,000,001 entries, at most 1,000,000 are allowed"
    with pytest.raises(InvalidManifest, match="do not ascend"):
        Manifest.build("t", True, [DirectoryEntry("a")] * MAX_ENTRIES, MIB, b"")
    with pytest.raises(InvalidManifest, match="manifest lists 1,000,001 entries, at most 1,000,000 are allowed"):
        Manifest.build("t", True, [DirectoryEntry("a")] * (MAX_ENTRIES + 1), MIB, b"")
