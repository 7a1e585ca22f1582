"""A content that is being fetched: the `.part` beside its destination."""

import os
import stat
import threading
from collections.abc import Collection
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Final

from blake3 import blake3

from interfiles.errors import ContentChanged, InterFilesError, StorageFailed, printable
from interfiles.manifest import Manifest, short_id
from interfiles.manifest_paths import MAX_NAME_BYTES
from interfiles.piece_set import PieceSet
from interfiles.storage import Stopped
from interfiles.storage.acting import Owner, acting_as
from interfiles.storage.failures import failure, translated
from interfiles.storage.finishing import finish
from interfiles.storage.hashing import Cancelled, PieceReader, Progress
from interfiles.storage.open_files import OpenFiles
from interfiles.storage.part_layout import Layout, directories, in_the_way, lay_out
from interfiles.storage.piece_store import PieceStore
from interfiles.storage.places import Place, open_place
from interfiles.storage.scan import Stamp
from interfiles.storage.syncing import forget_cached, sync_paths
from interfiles.storage.tree import Tree, remove_below

_SUFFIX: Final = ".part"
_MOST_CHECKED: Final = 64  # files, at each sync


def part_path(directory: Path, manifest: Manifest) -> Path:
    """Where the part of a download into `directory` lies: `NAME.<first 12 digits of the id>.part`, NAME cut to fit."""
    tail = f".{short_id(manifest.file_id)}{_SUFFIX}"
    # Cut at a character: a cut one is dropped whole.
    name = manifest.name.encode()[: MAX_NAME_BYTES - len(tail)].decode(errors="ignore")
    return directory / f"{name}{tail}"


class PartStore(PieceStore):
    """Writes and serves a part.

    `held`: pieces that were there when it was opened, for certain. `doubtful`: those that may be there, which `check`
    tells. No other piece is there.

    The owner closes it when no call is under way in a thread; blocks that are lent at that moment stay readable.
    """

    def __init__(
        self,
        part: Path,
        manifest: Manifest,
        layout: Layout,
        durable: PieceSet,
        files: OpenFiles,
        owner: Owner | None = None,
        place: Place | None = None,
    ) -> None:
        """For `create` and `open`."""
        super().__init__(Tree(part, manifest, layout.anchor), files, os.O_RDWR, owner)
        self._place: Final = place
        self.held: Final = PieceSet(
            manifest.piece_count, durable.bits & layout.intact.bits | manifest.zero_pieces().bits & layout.blank.bits
        )
        self.doubtful: Final = PieceSet(
            manifest.piece_count, self.held.complement().bits & layout.blank.complement().bits
        )
        self._anchor: Final = layout.anchor
        self._lock: Final = threading.Lock()
        # Relative to the anchor, what a loss of power could undo; at first the structure, that of an earlier run too.
        self._unsynced: set[bytes] = self._structure()
        self._written: set[int] = set()  # files, since then
        # While a directory's files are found below its anchor whatever it is called, a file's new name tells nothing.
        self._kept_open: Final = None if manifest.is_directory else self._borrow(0)

    @classmethod
    def create(cls, part: Path, manifest: Manifest, files: OpenFiles) -> "PartStore":
        """Reserve the space and make the files of a new part.

        Raises:
          NoSpace: checked before anything is made, and nothing is left.
          NotPermitted: the directory may not be written to.
          PathNotFound: the directory does not exist.
          DestinationExists: something is there already.
          StorageFailed: the file system fails.
        """
        return cls._opened(part, manifest, PieceSet(manifest.piece_count), files, is_new=True)

    @classmethod
    def open(
        cls,
        part: Path,
        manifest: Manifest,
        durable: PieceSet,
        files: OpenFiles,
        owner: Owner | None = None,
        place: Place | None = None,
    ) -> "PartStore":
        """Go on with a part, of which the pieces `durable` were recorded; whatever is missing is made.

        `place`: the directory that it must be in; `owner`: as whom files are opened later. The caller acts as them.

        Raises:
          DestinationExists: what is there is not a part of ours.
          NoSpace, NotPermitted, PathNotFound, StorageFailed: as `create`.
        """
        return cls._opened(part, manifest, durable, files, owner, place, is_new=False)

    @classmethod
    def _opened(
        cls,
        part: Path,
        manifest: Manifest,
        durable: PieceSet,
        files: OpenFiles,
        owner: Owner | None = None,
        place: Place | None = None,
        *,
        is_new: bool,
    ) -> "PartStore":
        layout = lay_out(part, manifest, is_new=is_new, place=place)
        try:
            return cls(part, manifest, layout, durable, files, owner, place)
        except BaseException:
            os.close(layout.anchor)
            raise

    def write(self, offset: int, data: memoryview) -> None:
        """Write to a range of the content (bytes). Quick unless the range is scattered (`is_scattered`).

        Raises:
          NoSpace: the disk is full; a part may have been written.
          NotPermitted, StorageFailed: the file system refuses; a part may have been written.
        """
        with closing(self._files_of(self.manifest.spans(offset, len(data)))) as opened:
            for index, descriptor, start, count in opened:
                self._write_fully(index, descriptor, start, data[:count])
                with self._lock:  # only now: a sync that began before this may not have seen the bytes
                    self._unsynced.add(self._tree.below_anchor(self.manifest.files[index].entry.path))
                    self._written.add(index)
                data = data[count:]

    def sync(self) -> None:
        """Make every write that ended before the call durable; others may write meanwhile.

        Raises:
          NoSpace, NotPermitted, StorageFailed: the disk did not take it, or somebody cut a file short. What was written
            since the last `sync` that ended well must be checked, and what does not match be written again.
        """
        with self._lock:
            written, self._written = self._written, set()
        self._check_sizes(written)
        with self._lock:
            unsynced, self._unsynced = self._unsynced, set()
        try:
            sync_paths(self._anchor, unsynced)
        except OSError as e:
            forget_cached(self._anchor, unsynced)
            with self._lock:
                self._unsynced |= unsynced
            raise failure(e, self._tree.root, "written") from e

    def _check_sizes(self, written: Collection[int]) -> None:
        """Notice that somebody cuts files short, of those that are few: what was verified in them is gone."""
        for index in islice(written, _MOST_CHECKED):
            file = self._borrow(index)
            try:
                if os.fstat(file.descriptor).st_size != self.manifest.files[index].entry.size:
                    raise self._cut_short(index)
            finally:
                self._files.give_back(file)

    def reuse(
        self, root: Path, pieces: PieceSet, *, owner: Owner | None = None, progress: Progress, cancelled: Cancelled
    ) -> PieceSet:
        """Copy those of `pieces` that the file or directory at `root` holds at the same place, and return them.

        Each is hashed on its way, so what is returned is verified. `owner`: with whose rights `root` is read.

        Raises:
          NotPermitted: `root` may not be read, or the part not be written to.
          NoSpace, StorageFailed: as `write`.
          Stopped: `cancelled` answered yes.
        """
        geometry = self.manifest.geometry
        copied = PieceSet(self.manifest.piece_count)
        with PieceReader(Tree(root, self.manifest)) as reader:
            for piece in pieces:
                if cancelled():
                    raise Stopped
                try:
                    with acting_as(owner):
                        data = reader.read(piece)
                except (ContentChanged, StorageFailed):
                    data = bytearray()  # it is not there
                if blake3(data).digest() == self.manifest.piece_hash(piece):
                    self.write(geometry.piece_offset(piece), memoryview(data))
                    copied.add(piece)
                progress(geometry.piece_length(piece))
        return copied

    def finish(self, destination: Path, *, overwrite: bool) -> tuple[Stamp, ...]:
        """Give the complete part its modes, symlinks and name (`finishing.finish`), and return its files' stamps.

        Blocks can be read as before; a `SeedStore` at `destination` takes over.
        """
        mask = self.owner.umask if self.owner is not None else None
        return finish(self._tree.root, destination, self.manifest, overwrite=overwrite, place=self._place, mask=mask)

    def discard(self) -> None:
        """Close it, and remove the part.

        Raises:
          NotPermitted, StorageFailed: something in it cannot be removed.
        """
        self.close()
        discard_part(self._tree.root, self._place)

    def close(self) -> None:
        if not self.is_closed:
            if self._kept_open is not None:
                self._files.give_back(self._kept_open)
            os.close(self._anchor)
        super().close()

    def _structure(self) -> set[bytes]:
        """What must be durable beside the files written to: every directory, and the one that the part is in."""
        if not self.manifest.is_directory:
            return {b"."}
        return {b"..", b".", *(path.encode() for path in directories(self.manifest))}

    def _write_fully(self, index: int, descriptor: int, offset: int, data: memoryview) -> None:
        while data:
            try:
                count = os.pwrite(descriptor, data, offset)
            except OSError as e:
                raise failure(e, self._tree.path(index), "written") from e
            offset, data = offset + count, data[count:]

    def _check_unchanged(self, index: int, descriptor: int) -> None:
        """A part has no stamps: its pieces were verified as they came."""

    def _gone(self, index: int) -> InterFilesError:
        shown = printable(str(self._tree.path(index)))
        return StorageFailed(f"{shown} is gone; pause and resume the download to make it again")

    def _cut_short(self, index: int) -> InterFilesError:
        shown = printable(str(self._tree.path(index)))
        return StorageFailed(f"{shown} was cut short; pause and resume the download to mend it")


def check_left_over(part: Path, manifest: Manifest) -> None:
    """Look at what has the name of a part that no record names; what a crash has left there may be gone on with.

    Raises:
      DestinationExists: it is none of ours: a file of another size than a part ever has.
      StorageFailed: the file system fails.
    """
    try:
        found = os.lstat(part)
    except FileNotFoundError:
        return
    except OSError as e:
        raise failure(e, part, "read") from e
    if not manifest.is_directory and stat.S_ISREG(found.st_mode) and found.st_size not in (0, manifest.size):
        raise in_the_way(part)


def discard_part(part: Path, place: Place | None = None) -> None:
    """Remove a part that is not open, if it is there.

    Raises:
      NotPermitted, StorageFailed: something in it cannot be removed.
    """
    try:
        parent = open_place(part.parent, place)
    except FileNotFoundError:
        return
    except OSError as e:
        raise failure(e, part, "removed") from e
    try:
        with translated(part, "removed"):
            remove_below(parent, os.fsencode(part.name))
    finally:
        os.close(parent)
