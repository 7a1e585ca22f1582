"""What the master answers to its administrator: reports as those of `reports`."""

from typing import Literal

from interfiles.wire.reports import Report


class TokenReport(Report, frozen=True, kw_only=True):
    """A join token. `expires_at`: seconds since 1970, UTC; `uses` nil: any number.

    `id`: what it is listed and revoked by; `name`: of the one host that it is for, empty for any.
    """

    token: str
    id: str
    expires_at: int
    uses: int | None
    name: str


class TokenUseReport(Report, frozen=True, kw_only=True):
    """A host that joined by a token. `used_at`: seconds since 1970, UTC; `address`: its IP address then."""

    used_at: int
    host: str
    name: str
    address: str


class ListedTokenReport(Report, frozen=True, kw_only=True):
    """A token that was made; never its secret. Times: seconds since 1970, UTC. `uses` nil: good for any number.

    `state`: whether it would let another host in, or why not. `used`: how many hosts have joined by it; `joined` names
    the latest of them.
    """

    id: str
    name: str
    state: Literal["good", "expired", "used up", "revoked"]
    made_at: int
    expires_at: int
    uses: int | None
    used: int
    joined: list[TokenUseReport]


class TokenListReport(Report, frozen=True, kw_only=True):
    """The tokens, the newest first."""

    tokens: list[ListedTokenReport]


class TokenRevokedReport(Report, frozen=True, kw_only=True):
    """The token that lets nobody in any more, and how many hosts had joined by it."""

    id: str
    used: int


class AuthorityReport(Report, frozen=True, kw_only=True):
    """A CA that the fleet trusts. `digest`: SHA-256 of its certificate; `made_at`: seconds since 1970, UTC.

    `signs`: it is the newest, which signs. `hosts`: names of the hosts, or the first of them, whose certificate it has
    signed, and `host_count` how many there are.
    """

    digest: str
    made_at: int
    signs: bool
    host_count: int
    hosts: list[str]


class AuthorityListReport(Report, frozen=True, kw_only=True):
    """The CAs that the fleet trusts, the newest first."""

    authorities: list[AuthorityReport]


class HostRemovedReport(Report, frozen=True, kw_only=True):
    """The host that is no longer of the fleet: its id and name."""

    host: str
    name: str


class HostDrainReport(Report, frozen=True, kw_only=True):
    """A host, and whether it drains. `state` as in `HostReport`.

    `to_move`: how many files that it holds are still to be copied to others, None: it is not known yet; at 0 it can be
    switched off. `left_bytes`: of these, that have not come anywhere yet. `why_not`: why some of them cannot be copied
    now, empty: there is no such reason. `short`: files that have fewer copies than wanted then, as no other host could
    hold one.
    """

    host: str
    name: str
    state: str
    draining: bool
    to_move: int | None
    left_bytes: int = 0
    why_not: str = ""
    short: int = 0


class EventReport(Report, frozen=True, kw_only=True):
    """Something that happened in the fleet. `sequence`: its number; they begin anew when the master restarts.

    `at`: seconds since 1970, UTC. `kind`: of a host joined, live, suspect, gone, removed, draining, drained, undrained;
    of a file published, file-removed, expired; of a file on a host ordered, complete, failed, released, corrupt, lost.
    `host` and `file` are ids, empty where it is about none; a name is empty where it is not known any more.
    """

    sequence: int
    at: float
    kind: str
    host: str
    host_name: str
    file: str
    file_name: str
    reason: str


class EventListReport(Report, frozen=True, kw_only=True):
    """A page of the master's event log, the oldest first. `log`: what that log is called; another after a restart.

    `next`: ask for those after this number next; `more`: there are some now. `missed`: how many that were asked for
    were not kept.
    """

    log: str
    events: list[EventReport]
    next: int
    more: bool
    missed: int
