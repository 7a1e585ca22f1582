"""The client daemon, wired together: every part gets what it needs here, and nowhere else."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import structlog
import trio

from daemons.client import joining
from daemons.client.allowance import Allowance
from daemons.client.announcements import Announcements
from daemons.client.announcer import Errand
from daemons.client.control_server import ControlServer
from daemons.client.copies import Copier
from daemons.client.disks import Disks, WatchedExecutor
from daemons.client.downloads import Downloader
from daemons.client.fleet_network import FleetNetwork
from daemons.client.hooks import Hooks, Runner
from daemons.client.library import Library
from daemons.client.master_link import MasterLink
from daemons.client.membership import Membership, credentials_of
from daemons.client.peer_server import PeerServer
from daemons.client.rate_gate import Limits, RateGate
from daemons.client.replica_requests import ReplicaRequests
from daemons.client.replicas import MAX_INBOX, Replicas, remove_strays
from daemons.client.reporting import Reporter
from daemons.client.scrubber import Scrubber
from daemons.client.sources import Sources
from daemons.client.transfers import Transfers
from daemons.client.uploads import Uploader
from daemons.supervision import contain
from interfiles.errors import AlreadyJoined, InterFilesError, NotJoined
from interfiles.identity.token import JoinToken
from interfiles.manifest import FileId
from interfiles.storage.executor import Executor
from interfiles.storage.jobs import JobStore
from interfiles.storage.open_files import OpenFiles
from interfiles.storage.records import Identity
from interfiles.transport.base import Address, Listener, Network, Transport
from interfiles.transport.listeners import serve
from interfiles.transport.reach import Reach
from interfiles.wire.master_messages import Forget

MAX_PEER_CONNECTIONS: Final = 512
MAX_CONTROL_CONNECTIONS: Final = 64

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfig:
    """What a person decides about a client daemon.

    `token`: to join with now, an error on a host that has joined; `spare_token`: the text of one to join with if that
    is still to do, for a service that is started with the same environment each time; by then it may be anything.
    `quota`: bytes for own copies and replicas, None: no limit but the disk; `keep_free`: bytes of the disk that
    replicas leave to others, None: a share of it. `zone`: where the host is, "": in none, None: as it was.
    `socket_group`: the group (its number) whose members may command the daemon too. `limit_up`, `limit_down`: bytes of
    content a second to and from all peers, None: as quickly as can be. `on_complete`: the words of a command to run for
    each finished download. `scrub_every_s`: within how many seconds each copy is hashed again, None: never.
    """

    state: Path
    socket: Path
    listen: Address
    advertise: Address | None = None
    name: str
    zone: str | None = None
    quota: int | None = None
    keep_free: int | None = None
    token: JoinToken | None = None
    spare_token: str = ""
    socket_group: int | None = None
    limit_up: int | None = None
    limit_down: int | None = None
    on_complete: tuple[str, ...] | None = None
    scrub_every_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """The world outside: replaced as a whole by tests in virtual time.

    `database` runs one function at a time, for the job store; `disk` several. `make_member_disk` makes an executor for
    another user that the daemon works for; None: all share `disk`. `hook_runner` runs the command of `on_complete`.
    """

    network: Network
    listen_control: Callable[[Path], Awaitable[Listener]]
    database: Executor
    disk: Executor
    rng: random.Random
    wall_clock: Callable[[], float]
    make_member_disk: Callable[[], Executor] | None = None
    hook_runner: Runner | None = None


@dataclass(frozen=True, slots=True)
class Serving:
    """What a started daemon can say of itself."""

    identity: Identity
    address: Address
    joined_now: bool


async def run(
    config: ClientConfig, environment: Environment, *, task_status: trio.TaskStatus[Serving] = trio.TASK_STATUS_IGNORED
) -> None:
    """Run a client daemon in its state directory, which the caller has locked, until cancelled.

    Raises:
      AddressInUse, NotPermitted: it cannot listen.
      NotJoined, AlreadyJoined, InvalidToken, UntrustedPeer: it has no identity and no way to one, or one too many.
      Refused: its database is damaged or of another version.

    Cancellation:
      Closes every connection; what is verified but not yet recorded is hashed again at the next start.
    """
    jobs = await environment.database.run(JobStore, config.state / "client.db")
    try:
        listener = await environment.network.listen(config.listen)
        try:
            control = await environment.listen_control(config.socket)
            try:
                identity, joined_now = await _identify(config, environment, jobs)
                await _serve(config, environment, jobs, identity, listener, control, joined_now, task_status)
            finally:
                control.close()
                config.socket.unlink(missing_ok=True)
        finally:
            listener.close()
    finally:
        jobs.close()


async def _identify(config: ClientConfig, environment: Environment, jobs: JobStore) -> tuple[Identity, bool]:
    known = await environment.database.run(jobs.load_identity)
    if known is not None:
        if config.token is None:
            return await _moved(known, config.zone, environment, jobs), False
        if not known.removed and not await joining.is_removed(environment.network, known, config.token):
            raise AlreadyJoined(
                f"this host has joined fleet {known.fleet[:4]} as {known.name} already; start it without a token, "
                "or join another fleet with another --state"
            )
    token = config.token or (JoinToken.decode(config.spare_token) if config.spare_token else None)
    if token is None:
        raise NotJoined(
            "this host belongs to no fleet yet; join one with --join TOKEN (on the master's host: interfiles token)"
        )
    made = await joining.join(
        environment.network,
        token,
        name=config.name,
        zone=config.zone or "",
        rng=environment.rng,
        wall_clock=environment.wall_clock,
    )
    await environment.database.run(jobs.save_newcomer, made)
    return made, True


async def _moved(known: Identity, zone: str | None, environment: Environment, jobs: JobStore) -> Identity:
    """The same host, in another zone if one is named, or in none if that is."""
    if zone in (None, known.zone):
        return known
    moved = replace(known, zone=zone)
    await environment.database.run(jobs.save_identity, moved)
    return moved


async def _serve(
    config: ClientConfig,
    environment: Environment,
    jobs: JobStore,
    identity: Identity,
    listener: Listener,
    control: Listener,
    joined_now: bool,
    task_status: trio.TaskStatus[Serving],
) -> None:
    disk, rng = WatchedExecutor(environment.disk), environment.rng
    reach = Reach([Address.parse(master) for master in identity.masters])
    network = FleetNetwork(
        environment.network,
        credentials_of(identity),
        reach,
        wall_clock=environment.wall_clock,
        revoked=await environment.database.run(jobs.load_revoked),
    )
    membership = Membership(identity, network, jobs, environment.database, rng=rng, wall_clock=environment.wall_clock)
    copies, replicas_place, leftovers = (config.state / name for name in ("copies", "replicas", "leftovers"))
    disks = Disks(disk, environment.make_member_disk or (lambda: disk))
    library = Library(jobs, environment.database, disk, OpenFiles(), disks=disks)
    allowance = Allowance(
        *(library, disk),
        state=config.state,
        place=replicas_place,
        leftovers=leftovers,
        quota=config.quota,
        keep_free=config.keep_free,
    )
    limits = Limits(up=RateGate(config.limit_up), down=RateGate(config.limit_down))
    hooks = Hooks(environment.hook_runner, identity)
    scrubber = Scrubber(
        *(library, jobs, environment.database),
        every_s=config.scrub_every_s,
        wall_clock=environment.wall_clock,
        is_disk_busy=lambda: disk.running > 0,
    )
    transfers = Transfers(library, network, rng, limits.down, zone=identity.zone, on_complete=hooks.completed)
    to_replicas, inbox = trio.open_memory_channel[Errand](MAX_INBOX)

    def take_in(errand: Errand) -> None:
        with suppress(trio.WouldBlock):  # an order goes unanswered and is given again; what is left over is asked for
            to_replicas.send_nowait(errand)

    def forget(file_id: FileId, *, delete: bool) -> None:
        transfers.forget(file_id, delete=delete)
        take_in(Forget(file_id, delete))  # what is left over of it goes, too

    link = MasterLink(
        network,
        membership,
        reach,
        Announcements(library, allowance),
        forget,
        take_in,
        listen_port=listener.address.port,
        advertise=str(config.advertise) if config.advertise else "",
        rng=rng,
    )
    uploader = Uploader(
        library,
        link,
        disk,
        identity,
        copies=copies,
        allowance=allowance,
        wall_clock=environment.wall_clock,
    )
    sources = Sources(library, link, disk)
    replicas = Replicas(
        *(library, transfers, sources, allowance, link.tell, jobs, environment.database, disk, inbox),
        place=replicas_place,
        leftovers=leftovers,
        wall_clock=environment.wall_clock,
    )
    copier = Copier(library, jobs, environment.database)
    downloader = Downloader(library, transfers, copier, allowance)
    address = str(config.advertise or listener.address)
    reporter = Reporter(
        *(library, copier, link, identity, limits, allowance),
        address=address,
        state=config.state,
        scrub=scrubber.report,
    )
    server = ControlServer(
        *(library, link, transfers, uploader, downloader, copier, sources, reporter, limits, replicas),
        ReplicaRequests(library, link, sources),
        group=config.socket_group,
    )
    peers = PeerServer(network, library.find, disk, limits.up)

    async def handle_control(transport: Transport) -> None:
        await contain("a command", lambda: server.handle(transport), expected=(InterFilesError,), log=log)

    await library.load()
    await copier.load()
    await replicas.load()
    if joined_now:
        await replicas.start_anew()
    await scrubber.load()
    for own in (copies, replicas_place):
        await disk.run(remove_strays, own, library.owned_roots())
    serve_peers = partial(serve, max_connections=MAX_PEER_CONNECTIONS)
    serve_callers = partial(serve, max_connections=MAX_CONTROL_CONNECTIONS)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(library.run)
            nursery.start_soon(transfers.run)
            nursery.start_soon(copier.run)
            nursery.start_soon(downloader.run)
            nursery.start_soon(replicas.run)
            nursery.start_soon(link.run)
            nursery.start_soon(hooks.run)
            nursery.start_soon(scrubber.run)
            nursery.start_soon(peers.run)
            nursery.start_soon(serve_peers, listener, peers.handle)
            nursery.start_soon(serve_callers, control, handle_control)
            task_status.started(Serving(identity, listener.address, joined_now))
    finally:
        library.close()
