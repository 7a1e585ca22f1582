"""Now and then the master has hosts show that they hold what they announce: one random piece of one random file."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

import structlog
import trio

from interfiles.errors import NoSpace, StorageFailed, printable
from interfiles.placement.challenges import MAX_ASKED, judge
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
        hosts = sorted(self._connections)
        files = self._registry.files_of(self._rng.choice(hosts)) if hosts else []
        if not files:
            return
        file_id = self._rng.choice(files)
        holders = [host for host, held in self._registry.held(file_id).items() if held.state == "complete"]
        holders = [host for host in holders if host in self._connections]
        found = await self._stored(self._catalogue.wanted, [file_id])
        if not found or not found[0].pieces or len(holders) < 2:
            return  # alone, a host's answer can be compared with nothing
        asked = self._rng.sample(sorted(holders), min(len(holders), MAX_ASKED))
        piece = self._rng.randrange(found[0].pieces)
        proofs = await self._ask(asked, file_id, piece)
        verdict = judge({host: proof.digest if proof is not None else b"" for host, proof in proofs.items()})
        if verdict.is_open:
            log.warning("hosts differ on a piece", file=found[0].name, id=file_id[:6], piece=piece)
        for host in sorted(verdict.failed):
            proof = proofs[host]
            why = printable(proof.text) if proof is not None and proof.text else "others have another piece there"
            why = why if proof is not None else f"no answer within {ANSWER_S:.0f} s"
            self._reconciler.doubt(host, file_id, f"it could not show piece {piece:,}: {why}")

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
