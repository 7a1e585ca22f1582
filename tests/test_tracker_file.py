"""Tracker files: what goes in comes out, and any other bytes are refused in one sentence."""

import struct
from typing import Any

import msgpack
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from interfiles.errors import InvalidManifest, InvalidTrackerFile
from interfiles.geometry import MIB
from interfiles.manifest import DirectoryEntry, FileEntry
from interfiles.tracker_file import LAST_SECOND, MAX_TRACKER_BYTES, TrackerFile
from tests.trees import directory, manifests, peak_bytes, single_file

MASTERS = ("10.0.0.5:4850", "[fd00::5]:4850", "master.example:1")
SMALL = TrackerFile(single_file("weights", 300_000), MASTERS, "render-01", 1_795_000_000, "7f3a")
ENCODED = SMALL.encode()
HEAD_BYTES = 14
CHECKSUM_BYTES = 32
AGAIN = "; get it again from where it came"

labels = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
tracker_files = st.builds(
    TrackerFile,
    manifests(),
    st.lists(st.sampled_from(MASTERS), max_size=16).map(tuple),
    labels,
    st.integers(0, LAST_SECOND),
    labels,
)


def sealed(body: bytes, *, version: int = 1) -> bytes:
    """A tracker file with a right checksum around any body."""
    content = ENCODED[:8] + struct.pack(">HI", version, len(body)) + body
    return content + blake3(content).digest()


def sealed_fields(**changes: Any) -> bytes:
    """The small tracker file with some fields replaced, and a right checksum."""
    fields = {
        "manifest": SMALL.manifest.encode(),
        "masters": list(MASTERS),
        "uploaded_by": "render-01",
        "uploaded_at": 1_795_000_000,
        "fleet": "7f3a",
    }
    return sealed(bytes(msgpack.packb(list((fields | changes).values()))))


def reason(data: bytes) -> str:
    """Why the bytes are refused, without the name of the file."""
    with pytest.raises(InvalidTrackerFile) as caught:
        TrackerFile.decode(data, name="a.tracker")
    return str(caught.value).removeprefix("a.tracker ")


@given(tracker_files)
def test_round_trip(tracker_file: TrackerFile) -> None:
    assert TrackerFile.decode(tracker_file.encode()) == tracker_file


def test_the_helpers_make_what_encode_makes() -> None:
    assert sealed_fields() == ENCODED
    assert TrackerFile.decode(ENCODED) == SMALL


def test_the_bytes_are_the_same_in_every_version() -> None:
    assert blake3(ENCODED).hexdigest() == "f58061a2f92db16bd948666ff8f30ec06bf85f7c7d2f2dd286bd7a9077f14b02"


def test_every_single_byte_corruption_is_found() -> None:
    for at, original in enumerate(ENCODED):
        for value in {0, 1, original ^ 1, original ^ 0x80, original ^ 0xFF, (original + 1) % 256, 255} - {original}:
            changed = ENCODED[:at] + bytes([value]) + ENCODED[at + 1 :]
            with pytest.raises(InvalidTrackerFile):
                TrackerFile.decode(changed)


@given(tracker_files, st.data())
def test_a_corrupted_byte_of_any_tracker_file_is_found(tracker_file: TrackerFile, data: st.DataObject) -> None:
    changed = bytearray(tracker_file.encode())
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(InvalidTrackerFile):
        TrackerFile.decode(bytes(changed))


def test_every_truncation_is_found() -> None:
    assert reason(b"") == "is empty" + AGAIN
    for length in range(1, len(ENCODED)):
        expected = (
            f"it ends after {length} bytes" if length < HEAD_BYTES else f"{length} of {len(ENCODED)} bytes are there"
        )
        assert reason(ENCODED[:length]) == f"is truncated: {expected}{AGAIN}"


def test_every_byte_changed_behind_a_right_checksum_is_refused_or_another_tracker_file() -> None:
    body = ENCODED[HEAD_BYTES:-CHECKSUM_BYTES]
    for at in range(len(body)):
        for flip in (0x01, 0x10, 0x80, 0xFF):
            changed = sealed(body[:at] + bytes([body[at] ^ flip]) + body[at + 1 :])
            try:
                assert TrackerFile.decode(changed) != SMALL
            except InvalidTrackerFile as e:
                assert str(e).startswith("the tracker file is damaged: ")  # noqa: PT017


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(data: bytes) -> None:
    for candidate in (data, ENCODED[:8] + data, ENCODED[:HEAD_BYTES] + data, sealed(data)):
        with pytest.raises(InvalidTrackerFile):
            TrackerFile.decode(candidate)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"#!/bin/sh\n", "is not a tracker file; `interfiles upload` makes them"),
        (b"\x89IFILE\n\n" + ENCODED[8:], "is not a tracker file; `interfiles upload` makes them"),
        (ENCODED.replace(b"\r\n", b"\n"), "is not a tracker file; `interfiles upload` makes them"),
        (ENCODED + b"\0\0", f"is damaged: 2 bytes follow its end{AGAIN}"),
        (ENCODED[:40] + b"!" + ENCODED[41:], f"is damaged: its checksum does not match{AGAIN}"),
        (sealed(b"", version=2), "was made by a newer InterFiles: version 2, this one reads 1; update this one"),
        (
            sealed(b"", version=65535),
            "was made by a newer InterFiles: version 65535, this one reads 1; update this one",
        ),
        (sealed(b"", version=0), "is of version 0, this InterFiles reads 1; upload the file again"),
        (sealed(b""), "is damaged: it ends after 0 bytes, where an array should follow"),
        (sealed(b"\x94"), "is damaged: its body has 4 fields, 5 are expected"),
        (sealed(ENCODED[HEAD_BYTES:-CHECKSUM_BYTES] + b"\0"), "is damaged: 1 bytes follow its end"),
        (sealed_fields(manifest="text"), "is damaged: str where bytes belong"),
        (sealed_fields(manifest=b""), "is damaged: manifest is malformed: it ends after 0 bytes, where an array"),
        (sealed_fields(masters="10.0.0.5:4850"), "is damaged: something else where an array should follow"),
        (sealed_fields(masters=["10.0.0.5:4850"] * 17), "is damaged: it names 17 masters, at most 16 are allowed"),
        (sealed_fields(masters=["10.0.0.5"]), "is damaged: a master's address is '10.0.0.5', not HOST:PORT"),
        (sealed_fields(masters=[":4850"]), "is damaged: a master's address is ':4850', not HOST:PORT"),
        (sealed_fields(masters=["\x1b[2J"]), "is damaged: a master's address is '\\x1b[2J', not HOST:PORT"),
        (sealed_fields(masters=["h:0"]), "is damaged: a master's address is 'h:0', not HOST:PORT"),
        (sealed_fields(masters=["h:65536"]), "is damaged: a master's address is 'h:65536', not HOST:PORT"),
        (sealed_fields(masters=["h:" + "1" * 9]), "is damaged: a master's address is 'h:111111111', not HOST:PORT"),
        (sealed_fields(masters=["h:٣"]), "is damaged: a master's address is 'h:٣', not HOST:PORT"),
        (sealed_fields(masters=["h" * 258 + ":4850"]), "is damaged: a master's address has 263 bytes, at most 262 are"),
        (sealed_fields(uploaded_by="é" * 128), "is damaged: its host name has 256 bytes, at most 255 are allowed"),
        (sealed_fields(uploaded_by=None), "is damaged: NoneType where text belongs"),
        (sealed_fields(fleet="f" * 256), "is damaged: its fleet id has 256 bytes, at most 255 are allowed"),
        (sealed_fields(uploaded_at=-1), f"is damaged: its time of upload -1 is outside 0..{LAST_SECOND}"),
        (sealed_fields(uploaded_at=LAST_SECOND + 1), f"is damaged: its time of upload {LAST_SECOND + 1} is outside"),
        (sealed_fields(uploaded_at=float("nan")), "is damaged: float where a whole number belongs"),
        (sealed_fields(uploaded_at=True), "is damaged: bool where a whole number belongs"),
    ],
)
def test_what_is_wrong_is_said(data: bytes, expected: str) -> None:
    assert reason(data).startswith(expected)


def test_the_largest_values_are_allowed() -> None:
    largest = TrackerFile(SMALL.manifest, ("h" * 256 + ":65535",) * 16, "é" * 127, LAST_SECOND, "f" * 255)
    assert TrackerFile.decode(largest.encode()) == largest
    least = TrackerFile(SMALL.manifest, (), "", 0, "")
    assert TrackerFile.decode(least.encode()) == least


def test_what_decode_refuses_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="not HOST:PORT"):
        TrackerFile(SMALL.manifest, ("nowhere",), "a", 0, "f")
    with pytest.raises(ValueError, match="its time of upload -1"):
        TrackerFile(SMALL.manifest, (), "a", -1, "f")


def test_a_hostile_manifest_behind_a_right_checksum_is_refused_with_its_reason() -> None:
    manifest = directory(FileEntry("aa/x", 0, False), DirectoryEntry("b"), name="t").encode()
    with pytest.raises(InvalidTrackerFile) as caught:
        TrackerFile.decode(sealed_fields(manifest=manifest.replace(b"aa/x", b"../x")), name="evil\x1b.tracker")
    assert str(caught.value) == "evil\\x1b.tracker is damaged: path '../x' contains '..'"
    assert isinstance(caught.value.__cause__, InvalidManifest)


def test_a_piece_table_of_the_wrong_length_is_refused_with_the_numbers() -> None:
    manifest = single_file("weights", 4388 << 24)
    fields = msgpack.unpackb(manifest.encode())
    fields[-1] = fields[-1][32:]
    assert reason(sealed_fields(manifest=msgpack.packb(fields))) == (
        "is damaged: piece table has 4,387 hashes, its size calls for 4,388"
    )


def test_a_file_over_the_limit_is_refused_before_it_is_read() -> None:
    data = ENCODED + bytes(MAX_TRACKER_BYTES + 1 - len(ENCODED))
    assert peak_bytes(lambda: reason(data)) < 64 * 1024
    assert reason(data) == "is too large: a tracker file has at most 67,174,400 bytes"
    assert reason(data[:-1]).startswith("is damaged: ")


def test_a_bomb_behind_a_right_checksum_costs_no_more_than_a_few_times_its_length() -> None:
    manifest_bombs = [b"\xdc\xff\xff" * (MIB // 3), b"\x96\x01" + b"\x80" * MIB]
    bombs = [sealed(bomb) for bomb in [*manifest_bombs, b"\x95" * MIB, b"\x95\xc4\x00" + b"\x90" * MIB]]
    for bomb in bombs + [sealed_fields(manifest=bomb) for bomb in manifest_bombs]:
        assert peak_bytes(lambda bomb=bomb: reason(bomb)) < 5 * len(bomb) + 256 * 1024  # type: ignore[misc]
