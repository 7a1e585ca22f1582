"""Which addresses are dialled when somebody else has named them; and that no other is connected to."""

import ipaddress
import random
import socket
from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from interfiles.errors import ConnectFailed
from interfiles.transport.base import Address
from interfiles.transport.memory import MemoryNetwork
from interfiles.transport.plain import TcpNetwork
from interfiles.transport.reach import Reach

MASTER, OWN = Address("10.0.0.254", 4850), Address("10.0.0.7", 4851)


def located(*, master: Address = MASTER, own: Address = OWN) -> Reach:
    reach = Reach([master])
    reach.locate(own=own, master=master)
    return reach


def is_let(reach: Reach, host: str, port: int = 4851) -> bool:
    try:
        reach.check(host, port)
    except ConnectFailed as e:
        return not str(e).isprintable()
    return True


class TestRemoteMaster:
    @pytest.mark.parametrize(
        "host", ["10.0.0.8", "192.168.1.1", "100.64.0.1", "8.8.8.8", "2001:db8::5", "fd00::5", "::ffff:10.0.0.8"]
    )
    def test_hosts_are_dialled(self, host: str) -> None:
        assert is_let(located(), host)

    @pytest.mark.parametrize(
        "host",
        [
            *("127.0.0.1", "127.0.1.1", "127.255.255.254", "::1", "::ffff:127.0.0.1", "::127.0.0.1"),
            *("169.254.169.254", "169.254.0.1", "fe80::1", "fe80::1%eth0", "::ffff:169.254.169.254"),
            *("224.0.0.1", "239.255.255.250", "ff02::1", "0.0.0.0", "::", "::ffff:0.0.0.0", "255.255.255.255"),
            *("240.0.0.1", "64:ff9b::7f00:1", "0:0:0:0:0:0:0:1", "::1%lo"),
        ],
    )
    def test_loopback_link_local_and_what_is_no_host_are_not(self, host: str) -> None:
        assert not is_let(located(), host)
        assert not is_let(located(), host, port=80)

    @pytest.mark.parametrize("host", ["10.0.0.254", "::ffff:10.0.0.254", "::ffff:a00:fe"])
    def test_the_master_is_not_but_another_service_of_its_host_may_be_a_client(self, host: str) -> None:
        assert not is_let(located(), host, MASTER.port)
        assert is_let(located(), host, 4851)

    @pytest.mark.parametrize("host", ["10.0.0.7", "::ffff:10.0.0.7"])
    def test_this_host_itself_is_not(self, host: str) -> None:
        assert not is_let(located(), host, OWN.port)
        assert is_let(located(), host, OWN.port + 1)

    def test_the_reason_is_told(self) -> None:
        for host, port, reason in [
            ("127.0.0.1", 80, "127.0.0.1:80 is not dialled: a loopback address leads to this host itself"),
            ("169.254.169.254", 80, "it is a link-local address"),
            ("::1", 1, r"\[::1\]:1 is not dialled"),
            ("10.0.0.254", 4850, "it is the master's address"),
            ("10.0.0.7", 4851, "it is this host's own address"),
            ("224.0.0.1", 1, "no host can have such an address"),
        ]:
            with pytest.raises(ConnectFailed, match=reason):
                located().check(host, port)

    @pytest.mark.parametrize("text", ["localhost", "", "127.1", "0x7f000001", "2130706433", "127.0.0.1 ", "\x1b[2J"])
    def test_what_is_no_ip_address_is_not_dialled(self, text: str) -> None:
        with pytest.raises(ConnectFailed, match="is no IP address"):
            located().check(text, 1)

    @given(st.one_of(st.ip_addresses(network="127.0.0.0/8"), st.ip_addresses(network="169.254.0.0/16")))
    def test_no_way_to_write_an_address_gets_past(self, ip: ipaddress.IPv4Address) -> None:
        number = int(ip)
        mapped = ipaddress.IPv6Address((0xFFFF << 32) | number)
        for host in (str(ip), str(mapped), mapped.exploded, f"::ffff:{number >> 16:x}:{number & 0xFFFF:x}"):
            assert not is_let(located(), host)


class TestOneMachine:
    @pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
    def test_with_a_master_at_loopback_all_hosts_are_there(self, host: str) -> None:
        reach = Reach([Address(host, 4850)])
        assert is_let(reach, "127.0.0.1", 4852)
        assert is_let(reach, "::1", 4852)
        assert not is_let(reach, "169.254.169.254")

    def test_the_master_and_this_host_are_not_dialled_there_either(self) -> None:
        reach = located(master=Address("127.0.0.1", 4850), own=Address("127.0.0.1", 4851))
        assert not is_let(reach, "127.0.0.1", 4850)
        assert not is_let(reach, "127.0.0.1", 4851)
        assert is_let(reach, "127.0.0.1", 4852)

    def test_where_the_master_was_found_counts_and_not_what_it_is_called(self) -> None:
        """A name of the master's that leads to loopback today may have led elsewhere when the host joined."""
        reach = Reach([Address("localhost", 4850)])
        reach.locate(own=OWN, master=MASTER)
        assert not is_let(reach, "127.0.0.1")
        reach.locate(own=OWN, master=Address("127.0.0.1", 4850))
        assert is_let(reach, "127.0.0.1")

    def test_a_master_that_is_nowhere_changes_nothing(self) -> None:
        reach = Reach([Address("master.example.org", 4850)])
        reach.locate(own=OWN, master=None)
        assert not is_let(reach, "127.0.0.1")


class Resolver(trio.abc.HostnameResolver):
    """Says that a name has these addresses, whatever it is; counts how often it is asked."""

    def __init__(self, *hosts: str) -> None:
        self.hosts = hosts
        self.asked = 0

    async def getaddrinfo(self, host, port, family=0, type=0, proto=0, flags=0):  # type: ignore[no-untyped-def]
        self.asked += 1
        return [
            (socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, int(port)))
            for ip in self.hosts
        ]

    async def getnameinfo(self, sockaddr, flags):  # type: ignore[no-untyped-def]
        raise NotImplementedError


@pytest.fixture
async def resolver() -> AsyncIterator[Resolver]:
    made = Resolver()
    trio.socket.set_custom_hostname_resolver(made)
    yield made
    trio.socket.set_custom_hostname_resolver(None)


class TestDialling:
    async def test_a_name_that_leads_to_loopback_is_not_connected_to(self, resolver: Resolver) -> None:
        resolver.hosts = ("127.0.0.1",)
        listener = await TcpNetwork().listen(Address("127.0.0.1", 0))
        with pytest.raises(ConnectFailed, match="a loopback address leads to this host itself"):
            await TcpNetwork().dial(Address("innocent.example.org", listener.address.port), check=located().check)
        with trio.move_on_after(0.05):
            await listener.accept()
            pytest.fail("it was connected to")
        listener.close()

    async def test_what_was_checked_is_what_is_connected_to(self, resolver: Resolver) -> None:
        """A name that means another address the second time it is asked for gains nothing."""
        resolver.hosts = ("127.0.0.1",)
        listener, checked = await TcpNetwork().listen(Address("127.0.0.1", 0)), []

        def check(host: str, port: int) -> None:
            checked.append((host, port))
            resolver.hosts = ("192.0.2.1",)

        dialled = await TcpNetwork().dial(Address("host.example.org", listener.address.port), check=check)
        assert checked == [("127.0.0.1", listener.address.port)]
        assert dialled.remote == listener.address
        for end in (dialled, listener):
            end.close()

    async def test_a_name_with_several_addresses_is_tried_at_each_that_is_let(self, resolver: Resolver) -> None:
        """A host that listens at one of its addresses only was not reached by its name."""
        resolver.hosts = ("169.254.1.1", "::1", "127.0.0.3", "127.0.0.1")
        listener = await TcpNetwork().listen(Address("127.0.0.1", 0))
        reach = Reach([Address("127.0.0.1", 1)])
        dialled = await TcpNetwork().dial(Address("host.example.org", listener.address.port), check=reach.check)
        assert dialled.remote == listener.address
        for end in (dialled, listener):
            end.close()

    async def test_where_nobody_answers_the_system_says_why(self, resolver: Resolver) -> None:
        resolver.hosts = ("127.0.0.1", "169.254.1.1")
        listener = await TcpNetwork().listen(Address("127.0.0.1", 0))
        listener.close()
        reach = Reach([Address("127.0.0.1", 1)])
        with pytest.raises(ConnectFailed, match=r"^cannot connect to host:\d+: Connection refused$"):
            await TcpNetwork().dial(Address("host", listener.address.port), check=reach.check)

    async def test_a_name_that_means_nothing_is_told(self, resolver: Resolver) -> None:
        with pytest.raises(ConnectFailed, match="cannot connect to host:1: "):
            await TcpNetwork().dial(Address("host", 1), check=located().check)

    async def test_addresses_that_do_not_answer_share_the_time(
        self, resolver: Resolver, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
    ) -> None:
        async def silence(host: str, port: int) -> trio.SocketStream:
            return await trio.sleep_forever()

        monkeypatch.setattr(trio, "open_tcp_stream", silence)
        resolver.hosts = ("10.0.0.1", "10.0.0.2", "10.0.0.3")
        with pytest.raises(ConnectFailed):
            await TcpNetwork().dial(Address("host", 1), check=located().check)
        assert trio.current_time() == pytest.approx(10)

    async def test_the_network_in_memory_checks_too(self) -> None:
        network = MemoryNetwork(random.Random(1))
        listener = await network.host("10.0.0.254").listen(MASTER)
        with pytest.raises(ConnectFailed, match="it is the master's address"):
            await network.host("10.0.0.7").dial(MASTER, check=located().check)
        (await network.host("10.0.0.7").dial(MASTER)).close()
        listener.close()
