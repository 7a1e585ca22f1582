"""What members of the socket's group hand over: the content of an upload, and the right to write into a directory.

Nothing here opens a path with the daemon's rights. What comes is the caller's choice, so it is compared with what was
asked for, and what later has to be opened by its path is told again by device and inode.
"""

from __future__ import annotations

import os
import secrets
import stat
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from daemons.client.callers import DESCRIBE_TIMEOUT_S
from daemons.client.cancellable import run_cancellable
from interfiles.errors import NotPermitted, RemoteProtocolError, printable
from interfiles.geometry import choose_piece_size
from interfiles.manifest import Manifest
from interfiles.storage.failures import failure
from interfiles.storage.handed import status_of
from interfiles.storage.hashing import draft_manifest
from interfiles.storage.places import Place, open_place
from interfiles.storage.scan import Scan
from interfiles.storage.system import is_fuse
from interfiles.wire import control_messages as c

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemons.client.callers import Call
    from daemons.client.disks import Disks
    from daemons.client.hashing_progress import HashingProgress
    from interfiles.storage.acting import Owner
    from interfiles.storage.executor import Executor
    from interfiles.storage.handed import HandedContent


async def describe(call: Call, threads: Executor) -> tuple[Scan, Manifest]:
    """Ask what the caller wants to upload: a scan without stamps, and its manifest without hashes.

    Raises:
      InvalidManifest: a name or symlink in it is not fit to be sent.
      RemoteProtocolError: it is described at no absolute path.
    """
    async with call.ask(c.DescribeTree(), c.TreeDescription, timeout_s=DESCRIBE_TIMEOUT_S) as answer:
        assert isinstance(answer.message, c.TreeDescription)
        root, payload = Path(os.fsdecode(answer.message.root)), answer.payload
    if not root.is_absolute() or ".." in root.parts or not root.name or "\0" in str(root):
        raise RemoteProtocolError(f"the content is described at {printable(str(root))}, which is no path to it")
    return await threads.run(_read_description, root, payload)


def _read_description(root: Path, payload: bytes) -> tuple[Scan, Manifest]:
    described = Manifest.decode(payload)
    found = Scan(root, described.name, described.is_directory, described.entries, (), described.size)
    return found, draft_manifest(found, choose_piece_size(found.size))


async def receive(call: Call, content: HandedContent, threads: Executor, progress: HashingProgress) -> None:
    """Ask for the files of a content, some at a time, and let each batch be hashed or copied.

    Raises:
      RemoteProtocolError, ContentChanged: they are not what was described.
      NotPermitted, NoSpace, StorageFailed: a disk refuses.
    """
    while content.files_left:
        first = len(content.stamps)
        question = c.HandFiles(first, min(content.files_left, c.MAX_HANDED_FILES))
        async with call.ask(question, c.HandedFiles, descriptors=question.count) as answer:
            if answer.message != c.HandedFiles(question.first, question.count):
                raise RemoteProtocolError("other files were handed over than those that were asked for")
            content.take(answer.descriptors)
            while not await run_cancellable(
                threads, lambda cancelled: content.advance(progress=progress.add, cancelled=cancelled)
            ):
                pass
    await threads.run(content.finish)


async def receive_place(call: Call, directory: Path, disks: Disks) -> tuple[Owner, Place]:
    """Have the caller show that it may write into the directory; return for whom, and which directory that is.

    Raises:
      NotPermitted: it may not, or the daemon finds another directory at that path.
      RemoteProtocolError: what it handed over is neither a directory nor a new file.
    """
    owner, mark = call.caller.owner, secrets.token_hex(16)
    assert owner is not None
    async with call.ask(c.HandPlace(mark), c.HandedPlace, descriptors=2) as answer:
        assert isinstance(answer.message, c.HandedPlace)
        owner = replace(owner, umask=answer.message.umask)
        place = await disks.of(owner).run(_checked, answer.descriptors, c.mark_name(mark), directory, owner)
    return owner, place


def _checked(descriptors: Sequence[int], name: str, path: Path, owner: Owner) -> Place:
    directory, file = descriptors
    shown = printable(str(path))
    if not stat.S_ISDIR(status_of(directory).st_mode):
        raise RemoteProtocolError(f"the descriptor of {shown} is of no directory")
    made = status_of(file, writable=True)
    if not stat.S_ISREG(made.st_mode):
        raise RemoteProtocolError(f"the descriptor of the new file in {shown} is of no regular file")
    try:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        found = None
    except OSError as e:
        raise failure(e, path, "written") from e
    # The name was never used before, so it was this caller who made it, now, and in this very directory.
    if found is None or not os.path.samestat(found, made) or made.st_uid != owner.uid or made.st_nlink != 1:
        raise NotPermitted(f"it was not shown that you may write to {shown}; name another directory with -o")
    if is_fuse(directory):
        raise NotPermitted(f"{shown} is on a file system that a program of a user's answers for; name another with -o")
    place = Place.of(os.fstat(directory))
    _check_path(path, place)
    return place


def _check_path(path: Path, place: Place) -> None:
    """What is written later is found by its path, with the caller's rights or the daemon's own."""
    shown = printable(str(path))
    try:
        descriptor = open_place(path, place)
    except NotPermitted as e:
        raise NotPermitted(
            f"the daemon finds another directory at {shown} than you do, or none; name it by another path with -o"
        ) from e
    except OSError as e:
        raise failure(e, path, "written") from e
    try:
        if not os.access(".", os.W_OK | os.X_OK, dir_fd=descriptor):
            raise NotPermitted(f"the daemon's user may not write to {shown}; name another directory with -o")
    finally:
        os.close(descriptor)
