"""How long a whole fleet takes to come back to its master.

    python -m benchmarks.reconnect [--hosts 1000] [--dials 1000] [--profile FILE]

A real master process gets a state directory with so many hosts. They connect from this process, each by its own
certificate, all at once unless `--dials` says how many. Then the master is killed and
started again, and they come back as client daemons do: with full jitter, and by mutual TLS each time. A host is back
once its first heartbeat is heard. Prints one line of JSON, and ends with 1 if the second time took longer than the
target.
"""

import argparse
import json
import random
import secrets
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import trio

from daemons.client.master_link import BACKOFF_CAP_S, BACKOFF_FLOOR_S
from daemons.master.app import CATALOGUE_NAME
from daemons.supervision import Backoff, raise_file_limit
from interfiles.errors import InterFilesError
from interfiles.identity import authority, contexts
from interfiles.identity.authority import LEAF_LIFE_S, Authority
from interfiles.identity.contexts import Credentials
from interfiles.identity.subject import Subject
from interfiles.storage.authorities import StoredAuthority
from interfiles.storage.catalogue import Catalogue
from interfiles.storage.members import Host
from interfiles.storage.tokens import Token
from interfiles.transport.base import Address
from interfiles.transport.message_stream import MessageStream, greet
from interfiles.transport.plain import TcpNetwork
from interfiles.transport.tls import secure
from interfiles.wire.codec import Message
from interfiles.wire.master_messages import Heard, Heartbeat, Register, Registered
from tests.e2e.processes import free_port

TARGET_S: Final = 10.0
GIVEN_UP_S: Final = 120.0
HEARTBEAT_S: Final = 10.0
_READY: Final = b"ready\n"


@dataclass(frozen=True)
class Seeded:
    """A state directory of a master, and the credentials of its hosts by their names."""

    state: Path
    hosts: dict[str, Credentials]


def seed(directory: Path, count: int) -> Seeded:
    """Make a fleet of so many hosts, as if they had joined."""
    state, now, fleet_id = directory / "master", time.time(), secrets.token_hex(16)
    state.mkdir(mode=0o700)
    hosts: dict[str, Credentials] = {}
    with closing(Catalogue(state / CATALOGUE_NAME, new_fleet_id=fleet_id, now=now)) as catalogue:
        ca = Authority.make(fleet_id, now=now)
        catalogue.authorities.add(StoredAuthority(ca, "", now))
        token = Token(secrets.token_bytes(8), secrets.token_bytes(32), "", now, now + 60, None)
        catalogue.tokens.add(token)
        for number in range(count):
            host_id, key = secrets.token_hex(16), authority.new_key()
            leaf = ca.issue(authority.public_key_of(key), Subject(fleet_id, "host", host_id), now=now)
            signed_by, until = authority.digest(ca.certificate), now + LEAF_LIFE_S
            newcomer = Host(host_id, f"host-{number:04}", False, "", signed_by, until, now, "", now)
            secret = token.secret_hash
            catalogue.members.enrol(token.token_id, secret, newcomer, tokens=catalogue.tokens, came_from="127.0.0.1")
            hosts[newcomer.name] = Credentials(leaf, key, [ca.certificate])
    return Seeded(state, hosts)


class Master:
    """The master process."""

    def __init__(self, state: Path, profile: str | None) -> None:
        self.address = Address("127.0.0.1", free_port())
        self._state = state
        self._profile = ["-m", "cProfile", "-o", profile] if profile else []
        self._log = open(state.with_suffix(".log"), "ab")  # noqa: SIM115 - for as long as the process lives

    def start(self) -> None:
        """Start it, and wait until it serves."""
        command = [sys.executable, *self._profile, "-m", "daemons.master"]
        command += ["--listen", str(self.address), "--state", str(self._state)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._log)
        assert self._process.stdout is not None
        if self._process.stdout.readline() != _READY:
            raise SystemExit(f"the master did not start: {self._state.with_suffix('.log').read_text()}")

    def stop(self, *, at_once: bool) -> None:
        """End it; `at_once`: as a power cut would."""
        if at_once and not self._profile:
            self._process.kill()
        else:
            self._process.terminate()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    @property
    def cpu_s(self) -> float:
        """What it has used of the processors since its start."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def rss_kib(self) -> int:
        """The memory that it has now."""
        return int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]) * 4096 >> 10

    @property
    def rss_mib(self) -> int:
        """The same."""
        return self.rss_kib >> 10


@dataclass
class Hosts:
    """All hosts of the fleet, in this process; `back`: how many the master has heard since `begin`."""

    seeded: Seeded
    address: Address
    dials: trio.CapacityLimiter
    failed_dials: int = 0
    back: int = 0
    all_back: trio.Event = field(default_factory=trio.Event)

    def begin(self) -> None:
        """Count anew."""
        self.back, self.failed_dials, self.all_back = 0, 0, trio.Event()

    async def run(self) -> None:
        """Be there, again and again, until cancelled."""
        async with trio.open_nursery() as nursery:
            for name, credentials in self.seeded.hosts.items():
                nursery.start_soon(self._be, name, credentials)

    async def _be(self, name: str, credentials: Credentials) -> None:
        context, rng = contexts.dialling(credentials), random.Random(name)
        backoff = Backoff(rng, floor_s=BACKOFF_FLOOR_S, cap_s=BACKOFF_CAP_S)
        while True:
            try:
                async with self.dials:
                    transport = await secure(await TcpNetwork().dial(self.address), context, accepted=False)
                    stream, _ = await greet(transport, "fleet", "master")
                    await stream.send(Register(name, "", "", 4851))
                    await self._hear(stream, Registered)
                await self._beat(stream, backoff)
            except InterFilesError:
                self.failed_dials += 1
            await trio.sleep(backoff.next())

    async def _beat(self, stream: MessageStream[Message], backoff: Backoff) -> None:
        """Heartbeats, the first at once, until the connection ends."""
        sequence = 0
        try:
            while True:
                sequence += 1
                await stream.send(Heartbeat(sequence, 0, 1 << 40, sequence == 1, []))
                await self._hear(stream, Heard)
                if sequence == 1:
                    backoff.reset()
                    self.back += 1
                    if self.back == len(self.seeded.hosts):
                        self.all_back.set()
                with trio.move_on_after(HEARTBEAT_S):
                    await stream.receive()  # nothing comes but the end
        finally:
            stream.close()

    async def _hear(self, stream: MessageStream[Message], kind: type[Message]) -> None:
        while not isinstance(await stream.receive(), kind):
            pass  # the master tells who is trusted and who was removed


async def measure(seeded: Seeded, dials: int, profile: str | None) -> dict[str, float]:
    """Connect all hosts, restart the master under them, and return what both took."""
    master = Master(seeded.state, profile)
    hosts = Hosts(seeded, master.address, trio.CapacityLimiter(dials))
    found: dict[str, float] = {"hosts": len(seeded.hosts), "dials": dials}
    async with trio.open_nursery() as nursery:
        for what in ("first", "reconnect"):
            await trio.to_thread.run_sync(master.start)
            began = trio.current_time()
            if what == "first":
                nursery.start_soon(hosts.run)
            with trio.move_on_after(GIVEN_UP_S):
                await hosts.all_back.wait()
            found |= {
                f"{what}_s": round(trio.current_time() - began, 2),
                f"{what}_failed_dials": hosts.failed_dials,
                f"{what}_missing": len(seeded.hosts) - hosts.back,
                f"{what}_master_cpu_s": master.cpu_s,
                f"{what}_master_rss_mib": master.rss_mib,
            }
            hosts.begin()
            await trio.to_thread.run_sync(lambda: master.stop(at_once=True))
        nursery.cancel_scope.cancel()
    return found


def main() -> int:
    """Run it, and return the exit code."""
    parser = argparse.ArgumentParser(description="How long a whole fleet takes to come back to its master.")
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--dials", type=int, default=1000, help="at once")
    parser.add_argument("--profile", metavar="FILE", help="run the master under cProfile; the second start counts")
    asked = parser.parse_args()
    raise_file_limit()
    with tempfile.TemporaryDirectory(prefix="interfiles-benchmark-") as directory:
        seeded = seed(Path(directory), asked.hosts)
        found = trio.run(measure, seeded, asked.dials, asked.profile)
    is_good = found["reconnect_missing"] == 0 and found["reconnect_s"] < TARGET_S
    print(json.dumps(found | {"target_s": TARGET_S, "ok": is_good}))
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
