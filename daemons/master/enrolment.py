"""How hosts come into the fleet: join tokens, and what a host gets for one."""

from collections.abc import Sequence
from typing import Final

import structlog
import trio

from daemons.master.fleet import Fleet
from interfiles.errors import UsageError
from interfiles.identity.rate_limit import Rate, RateLimiter
from interfiles.identity.token import SECRET_BYTES, TOKEN_ID_BYTES, JoinToken, hash_secret
from interfiles.storage.members import Host
from interfiles.storage.tokens import Token, TokenUse
from interfiles.wire.admin_reports import (
    ListedTokenReport,
    TokenListReport,
    TokenReport,
    TokenRevokedReport,
    TokenUseReport,
)
from interfiles.wire.master_messages import Enrol, Enrolled

HOST_ID_BYTES: Final = 16
SHORTEST_TOKEN_S: Final = 1.0
# A rack that is switched on joins at once; who guesses 128-bit secrets gets nowhere at any rate, but must not keep the
# disk and the CA busy.
ENROL_EACH: Final = Rate(burst=100, every_s=0.1)
ENROL_OVERALL: Final = Rate(burst=500, every_s=0.02)

log = structlog.get_logger()


class Enrolment:
    """Makes, lists and revokes tokens, and admits the hosts that show one."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._limiter = RateLimiter(each=ENROL_EACH, overall=ENROL_OVERALL)

    async def make_token(self, *, ttl_s: float, uses: int | None, name: str) -> TokenReport:
        """Make a join token. `name`: what the host that joins by it is called; it is good for one host then.

        Raises:
          UsageError: it would be good for too short a time, or for several hosts of one name.
        """
        fleet = self._fleet
        if ttl_s < SHORTEST_TOKEN_S:
            raise UsageError(f"a token good for {ttl_s:g} s is of no use; give it {SHORTEST_TOKEN_S:g} s or more")
        if name and uses not in (None, 1):
            raise UsageError(f"a token for the host {name} is good for that one host; leave --uses out")
        uses = 1 if name else uses
        token_id, secret = fleet.secret(TOKEN_ID_BYTES), fleet.secret(SECRET_BYTES)
        made = JoinToken(fleet.masters, token_id, secret, fleet.trust.digest)
        now = fleet.wall_clock()
        stored = Token(made.token_id, hash_secret(made.secret), name, made_at=now, expires_at=now + ttl_s, uses=uses)
        await fleet.stored(fleet.catalogue.tokens.add, stored)
        log.info("made token", token=made.token_id, name=name, ttl_s=ttl_s, uses=uses or "any")
        return TokenReport(
            token=made.encode(), id=token_id.hex(), expires_at=int(stored.expires_at), uses=uses, name=name
        )

    async def list_tokens(self) -> TokenListReport:
        """Every token that is not long over, and who joined by it."""
        fleet = self._fleet
        rows = []
        for token in await fleet.stored(fleet.catalogue.tokens.all):
            uses = await fleet.stored(fleet.catalogue.tokens.uses, token.token_id)
            rows.append(_listed(token, uses, fleet.wall_clock()))
        return TokenListReport(tokens=rows)

    async def revoke_token(self, query: str) -> TokenRevokedReport:
        """Let nobody else in by a token.

        Raises:
          UnknownToken: there is none of this id.
        """
        fleet = self._fleet
        token = await fleet.stored(fleet.catalogue.tokens.revoke, query, now=fleet.wall_clock())
        log.info("revoked token", token=token.token_id)
        return TokenRevokedReport(id=token.token_id.hex(), used=token.used)

    async def enrol(self, asked: Enrol, address: str) -> Enrolled:
        """Admit a host, connected from this IP address, that shows a token's secret.

        Raises:
          RateLimited: too many try.
          RemoteProtocolError: its signing request is not one.
          InvalidToken: the token is no good.
          Refused: the fleet is full, or the token's host is in it already.
        """
        fleet = self._fleet
        self._limiter.count(address, trio.current_time())
        host_id = fleet.secret(HOST_ID_BYTES).hex()
        issued, now = fleet.trust.issue(asked.signing_request, host_id), fleet.wall_clock()
        newcomer = Host(
            host_id=host_id,
            name=asked.name,
            is_named=False,
            zone=asked.zone,
            authority=issued.authority,
            certified_until=issued.certified_until,
            joined_at=now,
            address="",
            last_seen_at=now,
        )
        host = await fleet.stored(
            fleet.catalogue.members.enrol,
            *(asked.token_id, hash_secret(asked.secret), newcomer),
            tokens=fleet.catalogue.tokens,
            came_from=address,
        )
        fleet.admit(host)
        joined_by = f"from {address} by token {asked.token_id.hex()}"
        fleet.events.add("joined", host=host_id, reason=joined_by, host_id=host_id)
        return Enrolled(host.name, issued.chain, fleet.trust.certificates)


def _listed(token: Token, uses: Sequence[TokenUse], now: float) -> ListedTokenReport:
    return ListedTokenReport(
        id=token.token_id.hex(),
        name=token.name,
        state=token.state(now),
        made_at=int(token.made_at),
        expires_at=int(token.expires_at),
        uses=token.uses,
        used=token.used,
        joined=[
            TokenUseReport(used_at=int(use.used_at), host=use.host_id, name=use.host_name, address=use.address)
            for use in uses
        ],
    )
