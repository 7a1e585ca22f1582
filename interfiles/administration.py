"""The Python API of the master: what its administrator asks of it, on its own host."""

import os
from pathlib import Path

from interfiles import locations
from interfiles.control_socket import ControlSocket
from interfiles.wire import control_messages as messages
from interfiles.wire.admin_reports import (
    AuthorityListReport,
    AuthorityReport,
    EventListReport,
    HostDrainReport,
    HostRemovedReport,
    ListedTokenReport,
    TokenListReport,
    TokenReport,
    TokenRevokedReport,
)


class Admin:
    """The master on this host, by the Unix socket in its state directory; None: the default one.

    Raises, from every method beside what it names:
      DaemonUnreachable: the master does not answer.
      NotPermitted: the socket or the master is another user's.
    """

    def __init__(self, state: str | os.PathLike[str] | None = None) -> None:
        directory = locations.state_directory("master") if state is None else Path(state)
        self._socket = ControlSocket(locations.admin_socket(directory), "admin")

    async def make_token(self, *, ttl_s: float, uses: int | None = None, name: str = "") -> TokenReport:
        """Make a join token, good for `ttl_s` seconds and `uses` joins (None: any number).

        `name`: what the one host that it is then good for is called.
        """
        return await self._socket.ask(messages.MakeToken(ttl_s, uses, name), TokenReport)

    async def tokens(self) -> list[ListedTokenReport]:
        """The tokens that are not long over, the newest first, and who joined by each."""
        return (await self._socket.ask(messages.ListTokens(), TokenListReport)).tokens

    async def revoke_token(self, token: str) -> TokenRevokedReport:
        """Let nobody else in by a token: its id, or the start of it. Hosts that joined by it stay.

        Raises:
          UnknownToken: no token goes by this, or several do.
        """
        return await self._socket.ask(messages.RevokeToken(token), TokenRevokedReport)

    async def authorities(self) -> list[AuthorityReport]:
        """The CAs that the fleet trusts, the newest first."""
        return (await self._socket.ask(messages.ListAuthorities(), AuthorityListReport)).authorities

    async def rotate_authority(self) -> list[AuthorityReport]:
        """Make a new CA, by which all hosts renew their certificates; the one before is trusted until they have.

        Raises:
          Refused: the rotation before is not over.
        """
        return (await self._socket.ask(messages.RotateAuthority(), AuthorityListReport)).authorities

    async def retire_authority(self) -> list[AuthorityReport]:
        """Trust the newest CA only, at once: hosts that have not renewed by it must join anew.

        Raises:
          Refused: there is no other.
        """
        return (await self._socket.ask(messages.RetireAuthority(), AuthorityListReport)).authorities

    async def remove_host(self, host: str) -> HostRemovedReport:
        """Take a host, by name or id, out of the fleet.

        Raises:
          UnknownHost: no host goes by this.
        """
        return await self._socket.ask(messages.RemoveHost(host), HostRemovedReport)

    async def drain_host(self, host: str, *, only_look: bool = False) -> HostDrainReport:
        """Give a host, by name or id, no more copies, and have those that it has made on others; return how far it is.

        That takes its time: with `only_look`, which changes nothing, find out how far it is later.

        Raises:
          UnknownHost: no host goes by this.
        """
        return await self._socket.ask(messages.DrainHost(host, only_look), HostDrainReport)

    async def undrain_host(self, host: str) -> HostDrainReport:
        """Let a host, by name or id, be given copies as any other again.

        Raises:
          UnknownHost: no host goes by this.
        """
        return await self._socket.ask(messages.UndrainHost(host), HostDrainReport)

    async def events(self, *, log: str = "", after: int = 0, last: int = 0, wait_s: float = 0.0) -> EventListReport:
        """A page of what has happened in the fleet, the oldest first, after number `after` of the master's log `log`.

        `log` and `after` are those of the page before. For the first page, and where the master has another log since
        its restart, the page begins with the newest `last`. `wait_s`: while there are none, wait so long for one; 30 s
        at most.

        Raises:
          Refused: too many wait for events already.
        """
        return await self._socket.ask(messages.ListEvents(log, after, last, wait_s), EventListReport)
