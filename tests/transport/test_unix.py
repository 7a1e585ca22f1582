"""Unix sockets: where they lie, who is at their other end, and descriptors that travel on them, wanted or not."""

import errno
import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from interfiles.errors import AddressInUse, NotPermitted, UsageError
from interfiles.transport import unix
from interfiles.transport.plain import SocketTransport
from interfiles.transport.unix import (
    caller_uid,
    credentials,
    dial_unix,
    listen_unix,
)
from tests.transport.setups import Unix, connected, receive_exactly

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user, or give to any group")


def open_descriptors() -> int:
    """How many are open, once what is to be closed is."""
    for thread in threading.enumerate():
        if thread.name == "closing":
            thread.join(10)
    return len(os.listdir("/proc/self/fd"))


class TestPlace:
    async def test_only_this_user_may_connect(self, tmp_path: Path) -> None:
        path = tmp_path / "run" / "interfiles" / "client.sock"
        old_mask = os.umask(0)
        try:
            listener = listen_unix(path)
            assert os.umask(0) == 0, "the mask of the process is as it was"
        finally:
            os.umask(old_mask)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        listener.close()

    async def test_the_kernel_says_who_calls(self, tmp_path: Path) -> None:
        for end in await connected(Unix(tmp_path)):
            assert isinstance(end, SocketTransport)
            assert end.remote is None
            assert caller_uid(end) == os.getuid()
            end.close()

    async def test_a_stale_socket_is_replaced(self, tmp_path: Path) -> None:
        path = tmp_path / "client.sock"
        listen_unix(path).close()
        assert path.exists()
        with pytest.raises(ConnectionRefusedError):
            await dial_unix(path)
        listener = listen_unix(path)
        (await dial_unix(path)).close()
        listener.close()

    async def test_a_live_socket_is_left_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "client.sock"
        listener = listen_unix(path)
        with pytest.raises(AddressInUse, match=r"a daemon answers on socket .* already; stop it"):
            listen_unix(path)
        (await listener.accept()).close()  # the probe of the second one
        dialled, accepted = await dial_unix(path), await listener.accept()
        await dialled.send_all(b"x")
        assert await receive_exactly(accepted, 1) == b"x"
        for end in (dialled, accepted, listener):
            end.close()

    @pytest.mark.parametrize("kind", ["file", "directory", "fifo", "symlink", "dangling symlink"])
    async def test_what_is_no_socket_is_kept(self, tmp_path: Path, kind: str) -> None:
        path = tmp_path / "client.sock"
        target = tmp_path / "target"
        match kind:
            case "file":
                path.write_bytes(b"precious")
            case "directory":
                path.mkdir()
            case "fifo":
                os.mkfifo(path)
            case "symlink":
                target.write_bytes(b"precious")
                path.symlink_to(target)
            case _:
                path.symlink_to(target)
        before = path.lstat()
        with pytest.raises(AddressInUse, match="is in the way and is no socket"):
            listen_unix(path)
        assert path.lstat() == before

    async def test_a_datagram_socket_in_the_way_is_kept(self, tmp_path: Path) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.bind(str(tmp_path / "client.sock"))
            with pytest.raises(AddressInUse, match="cannot be used"):
                listen_unix(tmp_path / "client.sock")
        assert (tmp_path / "client.sock").is_socket()

    @pytest.mark.parametrize("length", [107, 108, 5000])
    async def test_the_longest_path_works_and_longer_ones_are_refused_in_words(
        self, tmp_path: Path, length: int
    ) -> None:
        directory = tmp_path / "d"
        path = directory / ("s" * (length - len(str(directory)) - 1))
        assert len(str(path)) == length
        if length <= 107:
            listen_unix(path).close()
            return
        with pytest.raises(AddressInUse, match="is over 107 bytes; choose a shorter one with --socket"):
            listen_unix(path)
        assert not directory.exists()

    async def test_a_directory_that_others_can_write_is_refused(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o777)
        with pytest.raises(NotPermitted, match="is in the hands of other users"):
            listen_unix(tmp_path / "client.sock")
        assert list(tmp_path.iterdir()) == []

    async def test_a_directory_of_another_user_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        uid = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
        with pytest.raises(NotPermitted, match="is in the hands of other users"):
            listen_unix(tmp_path / "client.sock")

    async def test_a_directory_that_cannot_be_made_is_told_in_words(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(AddressInUse, match=r"cannot be used: (Not a directory|File exists)"):
            listen_unix(tmp_path / "file" / "client.sock")

    @pytest.mark.parametrize("number", [errno.EACCES, errno.ENOSPC, errno.EROFS])
    async def test_a_bind_that_fails_leaves_no_socket_open(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
    ) -> None:
        made: list[socket.socket] = []

        def fail(self: socket.socket, where: object) -> None:
            made.append(self)
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(socket.socket, "bind", fail)
        with pytest.raises((AddressInUse, NotPermitted), match=r"client\.sock"):
            listen_unix(tmp_path / "client.sock")
        assert [sock.fileno() for sock in made] == [-1]


class TestGroup:
    async def test_without_a_group_nobody_else_may_come_near(self, tmp_path: Path) -> None:
        path = tmp_path / "run" / "client.sock"
        listen_unix(path).close()
        assert (mode(path), mode(path.parent)) == (0o600, 0o700)

    async def test_a_group_may_pass_the_directory_and_connect_and_no_more(self, tmp_path: Path) -> None:
        path, group = tmp_path / "run" / "client.sock", os.getegid()
        old_mask = os.umask(0)
        try:
            listen_unix(path, group=group).close()
        finally:
            os.umask(old_mask)
        assert (mode(path), mode(path.parent)) == (0o660, 0o710)
        assert (path.stat().st_gid, path.parent.stat().st_gid) == (group, group)
        assert (path.stat().st_uid, path.parent.stat().st_uid) == (os.geteuid(), os.geteuid())

    @needs_root
    @pytest.mark.root
    async def test_any_group_is_roots_to_give(self, tmp_path: Path) -> None:
        path = tmp_path / "run" / "client.sock"
        listen_unix(path, group=4243).close()
        assert (path.stat().st_gid, path.parent.stat().st_gid) == (4243, 4243)

    async def test_a_group_that_is_not_this_users_to_give_is_told(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(path: Path, uid: int, gid: int, *, follow_symlinks: bool) -> None:
            raise PermissionError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "chown", refuse)
        before = open_descriptors()
        with pytest.raises(NotPermitted, match="to group 4243; add the user to that group, or run the daemon as root"):
            listen_unix(tmp_path / "run" / "client.sock", group=4243)
        assert open_descriptors() == before

    async def test_a_stale_socket_is_replaced_and_opened_to_the_group(self, tmp_path: Path) -> None:
        path = tmp_path / "run" / "client.sock"
        listen_unix(path).close()
        listen_unix(path, group=os.getegid()).close()
        assert (mode(path), mode(path.parent)) == (0o660, 0o710)
        listen_unix(path).close()
        assert mode(path) == 0o600

    async def test_a_directory_that_holds_other_things_is_not_opened(self, tmp_path: Path) -> None:
        directory = tmp_path / "state"
        directory.mkdir(mode=0o700)
        (directory / "client.db").touch()
        with pytest.raises(UsageError, match="closed to the socket's group and holds other things"):
            listen_unix(directory / "client.sock", group=os.getegid())
        assert mode(directory) == 0o700
        assert os.listdir(directory) == ["client.db"]

    async def test_a_directory_that_everybody_may_pass_is_left_as_it_is(self, tmp_path: Path) -> None:
        directory = tmp_path / "run"
        directory.mkdir(mode=0o755)
        (directory / "other").touch()
        listen_unix(directory / "client.sock", group=os.getegid()).close()
        assert mode(directory) == 0o755

    async def test_a_squatted_path_is_refused_with_a_group_too(self, tmp_path: Path) -> None:
        listener = listen_unix(tmp_path / "run" / "client.sock", group=os.getegid())
        with pytest.raises(AddressInUse, match="a daemon answers"):
            listen_unix(tmp_path / "run" / "client.sock", group=os.getegid())
        listener.close()
        (tmp_path / "open").mkdir()
        (tmp_path / "open").chmod(0o777)
        with pytest.raises(NotPermitted, match="in the hands of other users"):
            listen_unix(tmp_path / "open" / "client.sock", group=os.getegid())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


class TestCredentials:
    async def test_the_kernel_names_user_and_groups(self, tmp_path: Path) -> None:
        ends = await connected(Unix(tmp_path))
        for end in ends:
            assert isinstance(end, SocketTransport)
            found = credentials(end)
            assert (found.uid, found.gid, found.groups) == (os.geteuid(), os.getegid(), tuple(os.getgroups()))
            end.close()

    @needs_root
    @pytest.mark.root
    @pytest.mark.parametrize(("count", "is_told"), [(0, True), (3, True), (256, True), (257, False)])
    async def test_supplementary_groups_of_another_user_are_told(
        self, tmp_path: Path, count: int, is_told: bool
    ) -> None:
        path = tmp_path / "run" / "client.sock"
        listener = listen_unix(path)
        groups = list(range(3000, 3000 + count))
        script = (
            "import os, socket, sys; s = socket.socket(socket.AF_UNIX); os.chdir(sys.argv[1]);"
            f"os.setgroups({groups}); os.setegid(4243); s.connect('client.sock'); sys.stdin.read()"
        )
        with subprocess.Popen(  # noqa: ASYNC220 - it starts and then waits
            [sys.executable, "-c", script, str(path.parent)], stdin=subprocess.PIPE
        ):
            accepted = await listener.accept()
            if is_told:
                assert credentials(accepted) == unix.Credentials(0, 4243, tuple(groups))
            else:
                with pytest.raises(NotPermitted, match="more than 256 groups"):
                    credentials(accepted)
        accepted.close()
        listener.close()
