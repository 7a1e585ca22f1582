"""A catalogue of as many files as a large fleet has, made in seconds: in one transaction, and past `Catalogue.publish`,
which makes each file durable by itself."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import apsw
import msgspec
from blake3 import blake3

from interfiles.wire.master_messages import FileInfo

_MANIFEST: Final = bytes(100)  # nobody decodes it
_CACHE_KIB: Final = 512 << 10  # ids come in no order: what they are filed under should be in memory
_UPLOADED_AT: Final = 1_760_000_000


def file(number: int) -> FileInfo:
    """The file of this number. Ids are in no order; names are in that of the numbers."""
    return FileInfo(
        file_id=blake3(number.to_bytes(8, "big")).digest(),
        name=f"file-{number:08}",
        is_directory=False,
        entries=1,
        size=4 << 20,
        piece_size=1 << 20,
        pieces=4,
        uploaded_at=_UPLOADED_AT + number,
        uploaded_by="host-0000",
        replicas_wanted=3,
        expires_at=0,
    )


def fill(path: Path, count: int) -> None:
    """Put the first `count` files into the catalogue at `path`, which no master has open."""
    with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)) as database:
        database.pragma("cache_size", -_CACHE_KIB)
        with database:
            database.executemany("INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", _rows(count))
            database.executemany("INSERT INTO manifests VALUES (?, ?)", ((row[0], _MANIFEST) for row in _rows(count)))


def _rows(count: int) -> Iterator[tuple[Any, ...]]:
    return (msgspec.structs.astuple(file(number)) for number in range(count))
