"""What only real sockets do: TCP's options and failures, and IPv6."""

import errno
import os
import socket
from pathlib import Path

import pytest
import trio
import trio.testing

from interfiles.errors import AddressInUse, ConnectFailed, NotPermitted, StorageFailed
from interfiles.transport import plain
from interfiles.transport.base import Address
from interfiles.transport.plain import SocketTransport, TcpNetwork
from tests.transport.setups import Tcp, connected

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


def test_the_stall_time_is_the_same_in_memory() -> None:
    from interfiles.transport import memory, memory_pipe

    assert memory_pipe.STALL_TIMEOUT_S == plain.STALL_TIMEOUT_S
    assert (memory.CONNECT_TIMEOUT_S, memory.LISTEN_BACKLOG) == (plain.CONNECT_TIMEOUT_S, plain.LISTEN_BACKLOG)
