"""The network as a member host uses it: every connection is TLS between two members that are known to each other.

Owner of this host's certificate and of what it knows about others': the CAs it trusts, the hosts that were removed, and
the connections that are to be cut when one is.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING
from weakref import WeakSet

import structlog

from interfiles.errors import NotAdmitted, UntrustedPeer
from interfiles.identity import contexts
from interfiles.identity.authority import is_signed_by_any, read_certificate
from interfiles.identity.subject import Certified, Subject
from interfiles.transport.tls import TlsTransport, secure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from interfiles.identity.contexts import Credentials
    from interfiles.transport.base import Address, Network, Transport
    from interfiles.transport.reach import Reach
    from interfiles.wire.handshake_messages import Role

log = structlog.get_logger()


class FleetNetwork:
    """Dials and accepts members of the fleet.

    `wall_clock`: Unix seconds. `revoked`: ids of hosts that are not of the fleet any more. `reach`: which addresses are
    dialled at all.
    """

    def __init__(
        self,
        network: Network,
        credentials: Credentials,
        reach: Reach,
        *,
        wall_clock: Callable[[], float],
        revoked: Iterable[str],
    ) -> None:
        self._network = network
        self._reach = reach
        self._wall_clock = wall_clock
        self._revoked = frozenset(revoked)
        self._connections: defaultdict[str, WeakSet[TlsTransport]] = defaultdict(WeakSet)
        self._retired: list[str] = []  # CAs, since this daemon started: for connections that are older
        self.credentials = credentials
        self.install(credentials)

    def install(self, credentials: Credentials, *, at_once: bool = False) -> None:
        """Use other credentials for connections made from now on.

        Those that are open go on; with `at_once` not those with hosts that a CA certified which is trusted no more.

        Raises:
          StorageFailed, UntrustedPeer: they are damaged; nothing has changed then.
        """
        accepting, dialling = contexts.accepting(credentials), contexts.dialling(credentials)
        self.certified = read_certificate(credentials.chain)
        self._accepting, self._dialling = accepting, dialling
        before, self.credentials = self.credentials, credentials
        self._retired += set(before.authorities) - set(credentials.authorities)
        if at_once:
            self._cut_retired()

    @property
    def host_id(self) -> str:
        """This host's own."""
        return self.certified.subject.host_id

    @property
    def revoked(self) -> frozenset[str]:
        """Ids of the hosts that are refused."""
        return self._revoked

    async def dial_master(self, address: Address) -> TlsTransport:
        """Connect to the fleet's master.

        Raises:
          ConnectFailed, HandshakeFailed, PeerGone, PeerSilent: it is not there.
          UntrustedPeer, CertificateExpired, CertificateNotYetValid: what answers is not the master, or cannot prove it.
        """
        return await self._dial(address, Subject(self.certified.subject.fleet, "master"), None)

    async def dial_host(self, address: Address, host_id: str) -> TlsTransport:
        """Connect to a host of the fleet at an address that somebody else told.

        Raises:
          ConnectFailed: nobody answers, or this is no address where a host could be.
          HandshakeFailed, PeerGone, PeerSilent: it does not take part.
          UntrustedPeer, CertificateExpired, CertificateNotYetValid: what answers is not that host, or cannot prove it.
          NotAdmitted: it was removed from the fleet.
        """
        return await self._dial(address, Subject(self.certified.subject.fleet, "host", host_id), self._reach.check)

    async def accept(self, transport: Transport) -> TlsTransport:
        """Make TLS of a connection that somebody made to this host; `admit` says who it is.

        Raises:
          HandshakeFailed, PeerGone, PeerSilent: the other end is no member, or does not take part.
        """
        return await secure(transport, self._accepting, accepted=True)

    def admit(self, accepted: TlsTransport) -> Role:
        """What the other end of an accepted connection has proved to be.

        Raises:
          NotAdmitted: it is no host of this fleet any more.
          CertificateExpired, CertificateNotYetValid: by this host's clock.
        """
        certified = accepted.certified
        if certified is None or certified.subject.role != "host":
            raise NotAdmitted("only hosts of the fleet connect to a host")
        self._check(certified)
        self._connections[certified.subject.host_id].add(accepted)
        return "host"

    def revoke(self, host_ids: Iterable[str], *, replace: bool) -> None:
        """Hosts are not of the fleet any more, beside or in place of those known before: cut what connects them."""
        told = frozenset(host_ids)
        self._revoked = told if replace else self._revoked | told
        for host_id in told:
            cut = self._connections.pop(host_id, ())
            for transport in list(cut):
                transport.close()
            if cut:
                log.info("cut a removed host off", host_id=host_id, connections=len(cut))

    def _cut_retired(self) -> None:
        for transport in [transport for known in self._connections.values() for transport in known]:
            certified = transport.certified
            if certified is not None and is_signed_by_any(certified.certificate, self._retired):
                transport.close()
                log.info("cut off a host that a retired CA certified", host_id=certified.subject.host_id)

    async def _dial(
        self, address: Address, expected: Subject, check: Callable[[str, int], None] | None
    ) -> TlsTransport:
        transport = await secure(await self._network.dial(address, check=check), self._dialling, accepted=False)
        try:
            certified = transport.certified
            if certified is None or certified.subject != expected:
                found = certified.subject if certified is not None else "nobody"
                raise UntrustedPeer(f"at {address} answers {found}, not {expected}")
            self._check(certified)
        except BaseException:
            transport.close()
            raise
        if expected.role == "host":
            self._connections[expected.host_id].add(transport)
        return transport

    def _check(self, certified: Certified) -> None:
        if certified.subject.host_id in self._revoked:
            raise NotAdmitted(f"{certified.subject} was removed from the fleet")
        if is_signed_by_any(certified.certificate, self._retired):
            raise UntrustedPeer(f"the CA that certified {certified.subject} has retired in this moment")
        certified.check_time(self._wall_clock())
