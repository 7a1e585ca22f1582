"""What only real sockets do: TCP's options and failures, IPv6, Unix sockets and who is at their other end."""

import errno
import os
import socket
import stat
from pathlib import Path

import pytest
import trio
import trio.testing

from interfiles.errors import AddressInUse, ConnectFailed, NotPermitted, StorageFailed
from interfiles.transport import plain
from interfiles.transport.base import Address
from interfiles.transport.plain import SocketTransport, TcpNetwork, caller_uid, dial_unix, listen_unix
from tests.transport.setups import Tcp, Unix, connected, receive_exactly

NETWORK = TcpNetwork()


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")


class TestTcp:
    async def test_sockets_are_set_up_for_bulk_and_for_short_messages(self, tmp_path: Path) -> None:
        for end in await connected(Tcp(tmp_path)):
            assert isinstance(end, SocketTransport)
            assert not end.socket.getblocking()
            assert end.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert end.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == 1 << 20
            assert end.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            end.close()

    @needs_ipv6
    async def test_ipv6_works_like_ipv4(self) -> None:
        listener = await NETWORK.listen(Address("::1", 0))
        dialled, accepted = await NETWORK.dial(listener.address), await listener.accept()
        assert dialled.remote == listener.address
        assert accepted.remote is not None
        assert accepted.remote.host == "::1"
        assert Address.parse(str(listener.address)) == listener.address
        for end in (dialled, accepted, listener):
            end.close()

    @needs_ipv6
    async def test_an_ipv4_host_at_a_socket_for_both_is_called_by_its_ipv4_address(self) -> None:
        listener = await NETWORK.listen(Address("::", 0))
        dialled = await NETWORK.dial(Address("127.0.0.1", listener.address.port))
        accepted = await listener.accept()
        assert accepted.remote is not None
        assert accepted.remote.host == "127.0.0.1"
        for end in (dialled, accepted, listener):
            end.close()

    async def test_a_host_that_does_not_answer_is_given_up(
        self, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
    ) -> None:
        async def silence(host: str, port: int) -> trio.SocketStream:
            return await trio.sleep_forever()

        monkeypatch.setattr(trio, "open_tcp_stream", silence)
        with pytest.raises(ConnectFailed, match=r"^10\.0\.0\.5:4850 does not answer within 10 s$"):
            await NETWORK.dial(Address("10.0.0.5", 4850))
        assert trio.current_time() == 10

    async def test_the_reasons_of_all_addresses_tried_are_told_once_each(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def fail(host: str, port: int) -> trio.SocketStream:
            failures = [OSError(number, f"Error connecting to {host}") for number in (111, 111, 101)]
            raise OSError("all attempts to connect failed") from ExceptionGroup("", failures)

        monkeypatch.setattr(trio, "open_tcp_stream", fail)
        with pytest.raises(ConnectFailed, match=r"to host:1: Connection refused / Network is unreachable$"):
            await NETWORK.dial(Address("host", 1))

    @pytest.mark.parametrize("host", ["a" * 64, "a..b", "ü..b", "ü" * 64])
    async def test_a_name_that_no_resolver_takes_is_a_failure_like_others(self, host: str) -> None:
        with pytest.raises(ConnectFailed, match="cannot connect to"):
            await NETWORK.dial(Address(host, 1))
        with pytest.raises(AddressInUse, match="cannot be used"):
            await NETWORK.listen(Address(host, 1))

    async def test_a_socket_that_linux_connected_to_itself_is_a_refusal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def itself(host: str, port: int) -> trio.SocketStream:
            sock = trio.socket.socket()
            await sock.bind(("127.0.0.1", 0))
            await sock.connect(sock.getsockname())
            return trio.SocketStream(sock)

        monkeypatch.setattr(trio, "open_tcp_stream", itself)
        with pytest.raises(ConnectFailed, match="Connection refused"):
            await NETWORK.dial(Address("127.0.0.1", 40_000))

    async def test_a_port_that_the_system_forbids_is_told_in_words(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def forbid(self: socket.socket, where: object) -> None:
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(socket.socket, "bind", forbid)
        with pytest.raises(NotPermitted, match=r"does not let this user bind address 127\.0\.0\.1:80"):
            await NETWORK.listen(Address("127.0.0.1", 80))

    async def test_a_dialler_that_left_the_queue_is_passed_over(self, monkeypatch: pytest.MonkeyPatch) -> None:
        listener = await NETWORK.listen(Address("127.0.0.1", 0))
        dialled = await NETWORK.dial(listener.address)
        real_accept, failures = socket.socket.accept, [ConnectionAbortedError(errno.ECONNABORTED, "gone")]

        def accept(self: socket.socket) -> tuple[socket.socket, object]:
            if failures:
                raise failures.pop()
            return real_accept(self)

        monkeypatch.setattr(socket.socket, "accept", accept)
        accepted = await listener.accept()
        assert not failures
        for end in (dialled, accepted, listener):
            end.close()


async def test_a_disk_that_cannot_read_is_not_blamed_on_the_peer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(out: int, file: int, offset: int, count: int) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    ends = await connected(Tcp(tmp_path))
    monkeypatch.setattr(os, "sendfile", fail)
    with pytest.raises(StorageFailed, match="Input/output error"):
        await ends[0].send_file(0, 0, 10)
    for end in ends:
        end.close()


class TestUnixSocket:
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


def test_the_stall_time_is_the_same_in_memory() -> None:
    from interfiles.transport import memory, memory_pipe

    assert memory_pipe.STALL_TIMEOUT_S == plain.STALL_TIMEOUT_S
    assert (memory.CONNECT_TIMEOUT_S, memory.LISTEN_BACKLOG) == (plain.CONNECT_TIMEOUT_S, plain.LISTEN_BACKLOG)
