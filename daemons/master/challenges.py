"""Now and then the master has hosts show that they hold what they announce: one random piece of one random file.

Who could not is asked for the same piece again, so that a copy which does not count does so until it is mended.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

import structlog
import trio

from interfiles.errors import NoSpace, StorageFailed, printable
from interfiles.placement.challenges import MAX_ASKED, judge
from interfiles.placement.doubts import Doubt
from interfiles.wire import master_messages as m

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from random import Random

    from daemons.master.connection import Connection
    from daemons.master.reconciler import Reconciler
    from interfiles.placement.registry import Registry
    from interfiles.storage.catalogue import Catalogue, Wanted

EACH_HOST_S: Final = 600.0  # about so often every host is challenged,
MIN_PAUSE_S: Final = 1.0  # and none follows another more closely than this,
MAX_PAUSE_S: Final = 60.0  # nor much later
ANSWER_S: Final = 30.0  # for a host to read a piece, of 16 MiB at most, and hash it
_NONCE_BYTES: Final = 32

log = structlog.get_logger()


class Challenges:
    """`stored` runs a method of the catalogue where blocking is allowed; `secret` returns so many unguessable bytes."""

    def __init__(
        self,
        catalogue: Catalogue,
        stored: Callable[..., Awaitable[list[Wanted]]],
        registry: Registry,
        connections: Mapping[str, Connection],
        reconciler: Reconciler,
        *,
        rng: Random,
        secret: Callable[[int], bytes],
    ) -> None:
        self._catalogue = catalogue
        self._stored = stored
        self._registry = registry
        self._connections = connections
        self._reconciler = reconciler
        self._rng = rng
        self._secret = secret
        self._numbers = itertools.count(1)
        self._asked: dict[tuple[str, int], m.Proof | None] = {}
        self._heard = trio.Event()
        self._is_second = True

    async def run(self) -> None:
        """Challenge until cancelled."""
        while True:
            pause_s = EACH_HOST_S / max(len(self._connections), 1)
            await trio.sleep(min(max(pause_s, MIN_PAUSE_S), MAX_PAUSE_S))
            try:
                await self._challenge()
            except (NoSpace, StorageFailed) as e:
                log.warning("cannot challenge", reason=str(e))

    def hear(self, host_id: str, proof: m.Proof) -> None:
        """A host answers; what nobody waits for is passed over."""
        if (host_id, proof.number) in self._asked:
            self._asked[host_id, proof.number] = proof
            self._heard.set()

    async def _challenge(self) -> None:
        chosen = self._choose()
        if chosen is None:
            return
        file_id, host, piece = chosen
        holders = [host for host, held in self._registry.held(file_id).items() if held.state == "complete"]
        holders = sorted(host for host in holders if host in self._connections)
        found = await self._stored(self._catalogue.wanted, [file_id])
        if not found or not found[0].pieces or len(holders) < 2 or host not in holders:
            return  # alone, a host's answer can be compared with nothing
        holders.remove(host)
        asked = [host, *self._rng.sample(holders, min(len(holders), MAX_ASKED - 1))]
        piece = piece if piece is not None else self._rng.randrange(found[0].pieces)
        proofs = await self._ask(asked, file_id, piece)
        verdict = judge({host: proof.digest if proof is not None else b"" for host, proof in proofs.items()})
        if verdict.is_open:
            log.warning("hosts differ on a piece", file=found[0].name, id=file_id[:6], piece=piece)
        for host, proof in sorted(proofs.items()):
            what = Doubt(file_id, host, piece)
            if host in verdict.failed:
                self._reconciler.doubt(what, f"it could not show piece {piece:,}: {_why(proof)}")
            elif not verdict.is_open:
                self._reconciler.shown(what)

    def _choose(self) -> tuple[bytes, str, int | None] | None:
        """A file, a host that holds it, and a piece, or None: any; every second time what was not shown before."""
        self._is_second = not self._is_second
        if self._is_second and (doubt := self._reconciler.to_challenge()) is not None:
            return doubt.file_id, doubt.host_id, doubt.piece
        if not self._connections:
            return None
        host = self._rng.choice(sorted(self._connections))
        held = self._registry.files_of(host)
        return (self._rng.choice(held), host, None) if held else None

    async def _ask(self, hosts: list[str], file_id: bytes, piece: int) -> dict[str, m.Proof | None]:
        """Ask hosts for the same piece with the same nonce; return the answers of those still connected at the end."""
        number, nonce = next(self._numbers), self._secret(_NONCE_BYTES)
        keys = {host: (host, number) for host in hosts if host in self._connections}
        asked = {host: self._connections[host] for host in keys}
        self._asked.update(dict.fromkeys(keys.values()))
        try:
            for connection in asked.values():
                connection.push(m.Challenge(number, file_id, piece, nonce))
            with trio.move_on_after(ANSWER_S):
                while not all(self._asked[key] for key in keys.values()):
                    self._heard = trio.Event()
                    await self._heard.wait()
            return {
                host: self._asked[key]
                for host, key in keys.items()
                if self._asked[key] is not None or self._connections.get(host) is asked[host]
            }
        finally:
            for key in keys.values():
                del self._asked[key]


def _why(proof: m.Proof | None) -> str:
    if proof is None:
        return f"no answer within {ANSWER_S:.0f} s"
    return printable(proof.text) if proof.text else "others have another piece there"
