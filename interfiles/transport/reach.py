"""Which addresses are dialled when somebody else has named them: the master's word is tried, never trusted.

A master, or a host that lies about its address, must not make this host knock at services that only it can reach.
"""

import ipaddress
from collections.abc import Iterable

from interfiles.errors import ConnectFailed
from interfiles.transport.base import Address

_IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class Reach:
    """Knows where this host and its master are, as far as that is known.

    Loopback is dialled only by who has a master at loopback: all of that fleet is on one machine.
    """

    def __init__(self, masters: Iterable[Address]) -> None:
        self._masters = frozenset(masters)
        self._own: frozenset[Address] = frozenset()
        self._is_one_machine = any(_is_loopback(address.host) for address in self._masters)

    def locate(self, *, own: Address, master: Address | None) -> None:
        """This host is known at `own`; its master answers at `master`, the IP address that was connected to."""
        self._own = frozenset({own})
        if master is not None:
            self._masters |= {master}
            self._is_one_machine = _is_loopback(master.host)

    def check(self, host: str, port: int) -> None:
        """Check an IP address before it is connected to.

        Raises:
          ConnectFailed: no other host of the fleet can be there.
        """
        try:
            ip = ipaddress.ip_address(host)
        except ValueError as e:
            raise ConnectFailed(f"{host!r} is no IP address") from e
        if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        if (reason := self._refusal(ip, Address(str(ip), port))) is not None:
            raise ConnectFailed(f"{Address(host, port)} is not dialled: {reason}")

    def _refusal(self, ip: _IpAddress, address: Address) -> str | None:
        if address in self._own:
            return "it is this host's own address"
        if address in self._masters:
            return "it is the master's address"
        if ip.is_loopback:
            return None if self._is_one_machine else "a loopback address leads to this host itself"
        if ip.is_link_local:
            return "it is a link-local address"
        if ip.is_multicast or ip.is_unspecified or ip.is_reserved:
            return "no host can have such an address"
        return None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
