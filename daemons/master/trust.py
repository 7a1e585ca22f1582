"""The fleet's CAs and all that is signed with them: the master's own certificate, those of hosts, and who is let in.

The newest CA signs. After a rotation both it and the one before are trusted, until no host needs the older one any
more: each chain carries the cross certificate by which a host that knows only the older CA verifies it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, ParamSpec, TypeVar

import structlog
import trio

from interfiles.errors import (
    CertificateExpired,
    CertificateRefused,
    NoSpace,
    NotAdmitted,
    NotPermitted,
    Refused,
    StorageFailed,
)
from interfiles.identity import authority, contexts
from interfiles.identity.authority import LEAF_LIFE_S, Authority, is_signed_by_any
from interfiles.identity.contexts import Credentials
from interfiles.identity.subject import Certified, Subject
from interfiles.storage.authorities import StoredAuthority
from interfiles.storage.catalogue import Catalogue
from interfiles.storage.executor import Executor
from interfiles.transport.base import Transport
from interfiles.transport.tls import TlsTransport, secure
from interfiles.wire.handshake_messages import Role

CHECK_EVERY_S: Final = 3600.0
_MOST_AUTHORITIES: Final = 2

P = ParamSpec("P")
T = TypeVar("T")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate that was just signed. `chain` as in `Credentials`; `authority`: digest of the CA that signed it."""

    chain: str
    authority: bytes
    certified_until: float


class Trust:
    """Owner of the CAs and of the TLS context for hosts' connections.

    `is_member` says whether a host id is of the fleet; `changed` is called when the trusted CAs have
    changed, with whether that is to hold for open connections too.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        database: Executor,
        *,
        wall_clock: Callable[[], float],
        is_member: Callable[[str], bool],
        changed: Callable[[bool], None],
    ) -> None:
        self._catalogue = catalogue
        self._database = database
        self._wall_clock = wall_clock
        self._is_member = is_member
        self._changed = changed
        self._known: list[StoredAuthority] = []
        self._certified_at = 0.0
        self._unneeded_since = math.inf  # the older CA, by the clock of the event loop
        self._changing = trio.Lock()  # of the CAs: each change is several steps

    async def load(self) -> None:
        """Read the CAs, or make the first, and certify this master.

        Raises:
          StorageFailed: a CA's key is not there.
        """
        self._known = await self._stored(self._catalogue.authorities.load)
        if not self._known:
            made = Authority.make(self._catalogue.fleet_id, now=self._wall_clock())
            await self._add(StoredAuthority(made, "", self._wall_clock()))
        self._certify_itself()

    async def run(self) -> None:
        """Let an older CA go once nobody needs it, until cancelled: where no renewal or removal has done so."""
        while True:
            await trio.sleep(CHECK_EVERY_S)
            await self.retire_if_unneeded()

    # What others are told

    @property
    def certificates(self) -> list[str]:
        """The certificates of the trusted CAs, the newest first."""
        return [known.authority.certificate for known in self._known]

    @property
    def digest(self) -> bytes:
        """That of the newest CA's certificate, for join tokens."""
        return authority.digest(self._newest.authority.certificate)

    @property
    def known(self) -> list[StoredAuthority]:
        """The trusted CAs, the newest first."""
        return list(self._known)

    # Connections

    async def accept(self, transport: Transport) -> TlsTransport:
        """Make TLS of a connection of a host, or of one that is none yet.

        Raises:
          TransportError: as `secure`.
        """
        # looked at here, not by a timer: a clock that was wrong when the master started jumps
        if not 0 <= self._wall_clock() - self._certified_at < LEAF_LIFE_S / 2:
            self._certify_itself()
        return await secure(transport, self._context, accepted=True)

    def admit(self, certified: Certified | None) -> Role:
        """What the other end of a connection has proved to be.

        Raises:
          NotAdmitted: it was removed, or its certificate is not a host's.
          CertificateNotYetValid: by this master's clock.
        """
        if certified is None:
            return "stranger"
        if certified.subject.role != "host":
            raise NotAdmitted("only hosts connect to a master, and this certificate is not a host's")
        if not self._is_member(certified.subject.host_id):
            raise removed()
        try:
            certified.check_time(self._wall_clock())
        except CertificateExpired:
            return "lapsed"
        return "host"

    def check_signer(self, certificate: str) -> None:
        """Check that a trusted CA has signed a certificate (PEM) which was verified when its connection was made.

        Raises:
          CertificateRefused: it was one that has retired meanwhile.
        """
        if not is_signed_by_any(certificate, self.certificates):
            raise CertificateRefused("the CA that has signed its certificate is trusted no more")

    # Certificates

    def issue(self, request: bytes, host_id: str) -> Issued:
        """Sign a certificate for the key of a signing request, for this host whatever the request says.

        Raises:
          RemoteProtocolError: the request is not one, or does not prove that its sender has the key.
        """
        now, newest = self._wall_clock(), self._newest
        subject = Subject(self._catalogue.fleet_id, "host", host_id)
        leaf = newest.authority.issue(authority.read_request(request), subject, now=now)
        return Issued(leaf + newest.cross_certificate, self.digest, now + LEAF_LIFE_S)

    def _certify_itself(self) -> None:
        key, now, newest = authority.new_key(), self._wall_clock(), self._newest
        subject = Subject(self._catalogue.fleet_id, "master")
        leaf = newest.authority.issue(authority.public_key_of(key), subject, now=now)
        credentials = Credentials(leaf + newest.cross_certificate, key, self.certificates)
        self._context = contexts.accepting(credentials, strangers=True)
        self._certified_at = now

    # Rotation

    async def rotate(self) -> None:
        """Make a new CA, which signs from now on; the one before stays trusted for a while.

        Raises:
          Refused: the rotation before is not over yet.
        """
        async with self._changing:
            if len(self._known) >= _MOST_AUTHORITIES:
                raise Refused(
                    "the CA was rotated before, and hosts still need the older one (see `interfiles ca`); "
                    "wait for them, or end it with `interfiles ca retire`"
                )
            now, older = self._wall_clock(), self._newest.authority
            made = Authority.make(self._catalogue.fleet_id, now=now)
            await self._add(StoredAuthority(made, older.cross_sign(made, now=now), now))
            log.info("rotated the CA", certificate=self.digest.hex()[:16])
            self._certify_itself()
            self._changed(False)

    async def retire_if_unneeded(self) -> None:
        """Let the older CA go once no host has needed it for `CHECK_EVERY_S`; where the disk fails, another time.

        Not as soon as the last host has renewed: an answer that was lost, or not kept before a crash, leaves a host
        with its older certificate, by which it must come in to ask again. Nor as soon as a host is removed: while its
        CA is trusted it can be told so in words.
        """
        async with self._changing:
            try:
                if len(self._known) < _MOST_AUTHORITIES:
                    return
                if await self._stored(self._catalogue.members.not_certified_by, self.digest):
                    self._unneeded_since = math.inf
                    return
                self._unneeded_since = min(self._unneeded_since, trio.current_time())
                if trio.current_time() - self._unneeded_since >= CHECK_EVERY_S:
                    await self._retire(at_once=False)
            except (NoSpace, NotPermitted, StorageFailed) as e:
                log.warning("cannot retire the older CA yet", reason=str(e))

    async def retire(self) -> None:
        """Trust the newest CA only: a host whose certificate another one has signed must join anew.

        Raises:
          Refused: there is no other.
        """
        async with self._changing:
            if len(self._known) < _MOST_AUTHORITIES:
                raise Refused("there is only one CA, which is in use; `interfiles ca rotate` makes another")
            await self._retire(at_once=True)

    async def _retire(self, *, at_once: bool) -> None:
        tokens, now = self._catalogue.tokens, self._wall_clock()
        await self._stored(tokens.revoke_made_before, self._newest.made_at, now=now)
        for known in self._known[1:]:
            await self._stored(self._catalogue.authorities.remove, known.authority)
        self._known = self._known[:1]
        log.info("retired the older CA", certificate=self.digest.hex()[:16])
        self._certify_itself()
        self._changed(at_once)

    # Inside

    @property
    def _newest(self) -> StoredAuthority:
        return self._known[0]

    async def _add(self, made: StoredAuthority) -> None:
        await self._stored(self._catalogue.authorities.add, made)
        self._known.insert(0, made)
        self._unneeded_since = math.inf

    async def _stored(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._database.run(partial(function, *args, **kwargs))


def removed() -> NotAdmitted:
    """What a host is told that is not of the fleet any more."""
    return NotAdmitted(
        "this host is not of this fleet, or was removed from it; join it anew with a token from `interfiles token` "
        "on the master's host"
    )
