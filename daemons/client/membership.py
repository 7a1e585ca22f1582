"""This host's place in its fleet: its certificate, kept fresh, and what the master says of others'.

What is told is in force at once, and stored right away, so a restart without the master trusts and refuses the same.
What cannot be stored, as the disk is full, is in force all the same, and the master says it again after a restart.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import structlog

from daemons.client.best_effort import BestEffort
from interfiles.errors import RemoteProtocolError, StorageFailed, UntrustedPeer
from interfiles.identity import contexts
from interfiles.identity.authority import is_issued_by, new_key, read_certificate, request_for
from interfiles.identity.contexts import Credentials
from interfiles.identity.subject import Subject

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

    from daemons.client.fleet_network import FleetNetwork
    from interfiles.storage.executor import Executor
    from interfiles.storage.jobs import JobStore
    from interfiles.storage.records import Identity
    from interfiles.wire.master_messages import Renewed, Revoked

# At a random point of its certificate's life, so that hosts which joined together do not all renew together.
RENEWED_FROM: Final = 0.5
RENEWED_TO: Final = 0.8
ROTATION_SPREAD_S: Final = 60.0  # all hosts renew within so long after the CA was rotated

log = structlog.get_logger()


def credentials_of(identity: Identity) -> Credentials:
    """How a host proves to be it, and whom it believes."""
    return Credentials(identity.chain, identity.key, identity.authorities)


def check_minted(chain: str, key: str, authorities: Sequence[str]) -> Subject:
    """Check what a master has signed, before it takes the place of anything; return whose it is.

    Raises:
      RemoteProtocolError: it is no certificate, not for this key, or none of these CAs has signed it.
    """
    try:
        subject = read_certificate(chain).subject
        contexts.dialling(Credentials(chain, key, authorities))  # as a check that TLS takes them
        if not any(is_issued_by(chain, authority) for authority in authorities):
            raise UntrustedPeer("none of the fleet's CAs has signed it")
    except (StorageFailed, UntrustedPeer) as e:
        raise RemoteProtocolError(f"the master sent a certificate that is not good: {e}") from e
    return subject


class Membership:
    """Owner of this host's identity; it alone changes the credentials of `network`.

    `identity` and what `network` has as revoked are what `jobs` has.
    """

    def __init__(
        self,
        identity: Identity,
        network: FleetNetwork,
        jobs: JobStore,
        database: Executor,
        *,
        rng: Random,
        wall_clock: Callable[[], float],
    ) -> None:
        self.identity = identity
        self._network = network
        self._jobs = jobs
        self._best_effort = BestEffort(database)
        self._stored = (identity, network.revoked)
        self._rng = rng
        self._wall_clock = wall_clock
        self._next_key: str | None = None
        self._renew_at = self._choose_renewal()

    @property
    def renewal_due_in_s(self) -> float:
        """How long until the certificate should be renewed; zero or less: now."""
        return self._renew_at - self._wall_clock()

    @property
    def is_stored(self) -> bool:
        """Whether all that is in force is on the disk."""
        return self._stored == (self.identity, self._network.revoked)

    def renewal_request(self) -> bytes:
        """The signing request for a new key, which is used once the certificate for it has come."""
        self._next_key = new_key()
        return request_for(self._next_key)

    async def on_renewed(self, answer: Renewed) -> None:
        """The master has signed the last `renewal_request`.

        Raises:
          RemoteProtocolError: what it has sent is no certificate of this host; the old one stays.
        """
        assert self._next_key is not None
        made = replace(self.identity, key=self._next_key, chain=answer.chain, authorities=tuple(answer.authorities))
        subject = check_minted(made.chain, made.key, made.authorities)
        if subject != self._network.certified.subject:
            raise RemoteProtocolError(f"the master sent a certificate that is not good: it is {subject}'s")
        await self._change(made)
        log.info("certificate renewed", good_until=int(self._network.certified.not_after))

    async def on_authorities(self, certificates: Sequence[str], *, at_once: bool) -> None:
        """The fleet trusts these CAs, and no others; `at_once`: not for connections that are open either.

        Raises:
          RemoteProtocolError: they are malformed; those known before stay.
        """
        if tuple(certificates) != self.identity.authorities:
            await self._change(replace(self.identity, authorities=tuple(certificates)), at_once=at_once)
            log.info("the fleet's CAs have changed", count=len(certificates))

    async def on_revoked(self, message: Revoked) -> None:
        """Hosts are not of the fleet any more."""
        self._network.revoke(message.hosts, replace=message.replace)
        await self.store()

    async def on_admitted(self, *, removed: str) -> None:
        """Whether the master knows this host: `removed` is empty if so, else what it said."""
        if removed != self.identity.removed:
            self.identity = replace(self.identity, removed=removed)
        await self.store()

    async def store(self) -> None:
        """Store what is in force and not stored; where that cannot be done now, it goes on from memory.

        The old certificate stays on the disk then, and is good for another renewal after a restart.
        """
        identity, revoked = self.identity, self._network.revoked
        known, refused = self._stored
        if identity != known and await self._best_effort.store("identity", lambda: self._jobs.save_identity(identity)):
            self._stored = identity, self._stored[1]
        if revoked != refused:
            fresh, replaced = (revoked, True) if refused - revoked else (revoked - refused, False)
            if await self._best_effort.store("revoked", lambda: self._jobs.save_revoked(fresh, replace=replaced)):
                self._stored = self._stored[0], revoked

    async def _change(self, made: Identity, *, at_once: bool = False) -> None:
        try:
            contexts.dialling(credentials_of(made))  # as a check that TLS takes them
        except StorageFailed as e:
            raise RemoteProtocolError(f"the master sent a certificate that is not good: {e}") from e
        self._network.install(credentials_of(made), at_once=at_once)
        self.identity = made
        self._renew_at = self._choose_renewal()
        await self.store()

    def _choose_renewal(self) -> float:
        certified = self._network.certified
        life_s = certified.not_after - certified.not_before
        due = certified.not_before + life_s * self._rng.uniform(RENEWED_FROM, RENEWED_TO)
        if not is_issued_by(self.identity.chain, self.identity.authorities[0]):
            due = min(due, self._wall_clock() + self._rng.uniform(0.0, ROTATION_SPREAD_S))
        return due
