"""The master, put together: its parts, what each gets, and in which order they start and stop."""

from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Final

import structlog
import trio

from daemons.master.admin import MAX_CALLERS, Admin
from daemons.master.enrolment import Enrolment
from daemons.master.fleet import Fleet, Sources
from daemons.master.hosts import Hosts
from daemons.master.requests import Requests
from daemons.state_lock import StateLock
from daemons.supervision import Backoff, supervise
from interfiles.errors import printable
from interfiles.locations import admin_socket
from interfiles.placement.registry import Registry
from interfiles.storage.catalogue import Catalogue
from interfiles.storage.executor import Executor
from interfiles.transport.base import Address, Listener, Network
from interfiles.transport.listeners import serve
from interfiles.transport.unix import listen_unix
from interfiles.units import HOUR, format_count, format_duration

DEFAULT_LISTEN: Final = Address("0.0.0.0", 4850)
DEFAULT_REPLICAS: Final = 3
DEFAULT_GRACE_S: Final = 120.0
SHORTEST_GRACE_S: Final = 3.0
RETRY_FLOOR_S: Final = 2.0  # before the master goes on with what a bug has ended, doubled up to the cap
RETRY_CAP_S: Final = 60.0
CATALOGUE_NAME: Final = "catalogue.sqlite"
CLIENT_DATABASE: Final = "client.db"

_LONGEST_HEARTBEAT_S: Final = 10.0
_HEARTBEATS_IN_GRACE: Final = 6  # so that a silent host is suspect first, then cut off, and gone last
_FLEET_ID_BYTES: Final = 16
_SALT_BYTES: Final = 16
_FIRST_TOKEN_TTL_S: Final = float(HOUR)
_DECODING_THREADS: Final = 2
_SHOWN_FLEET_DIGITS: Final = 4

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class MasterConfig:
    """What a person decides about a master.

    `advertise`: what join tokens carry; None: the listening address, or, when that is every interface, the outward one.
    Its port 0 stands for the listening port. `grace_s`: how long a silent host is only suspect.
    """

    state: Path
    listen: Address = DEFAULT_LISTEN
    advertise: Address | None = None
    replicas: int = DEFAULT_REPLICAS
    grace_s: float = DEFAULT_GRACE_S
    max_connections: int = 4096

    @property
    def heartbeat_s(self) -> float:
        """The interval in which hosts report."""
        return min(_LONGEST_HEARTBEAT_S, self.grace_s / _HEARTBEATS_IN_GRACE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """The world outside: replaced as a whole by tests in virtual time.

    `executor` makes one that runs so many functions at once. `rng` chooses peers; `secret` returns that many
    unguessable bytes. `wall_clock`: Unix seconds. `outward_host`: this host's address as others see it. `say` shows a
    line to whoever started the master.
    """

    network: Network
    executor: Callable[[int], Executor]
    rng: Random
    secret: Callable[[int], bytes]
    wall_clock: Callable[[], float]
    outward_host: Callable[[], str]
    say: Callable[[str], None]


async def run(
    config: MasterConfig, environment: Environment, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Run a master until cancelled; started once hosts and administrators are served.

    Raises:
      StateInUse, NotPermitted, StorageFailed: its state directory cannot be used.
      AddressInUse, NotPermitted: it cannot listen.
      Refused, StorageFailed: its catalogue is damaged, of another program or of a newer version, or the CA's key is
        not there.

    Cancellation:
      Closes every connection; what was acknowledged is durable already.
    """
    database = environment.executor(1)
    with ExitStack() as stack:
        stack.enter_context(StateLock(config.state, not_with=CLIENT_DATABASE))
        path, new_fleet_id = config.state / CATALOGUE_NAME, environment.secret(_FLEET_ID_BYTES).hex()
        opening = partial(Catalogue, path, new_fleet_id=new_fleet_id, now=environment.wall_clock())
        catalogue = stack.enter_context(closing(await database.run(opening)))
        listener = stack.enter_context(closing(await environment.network.listen(config.listen)))
        socket = admin_socket(config.state)
        admin_listener = stack.enter_context(closing(listen_unix(socket, option="--state")))
        stack.callback(socket.unlink, missing_ok=True)
        advertised = _advertised(config, environment, listener)
        fleet = Fleet(
            catalogue,
            database,
            Registry(heartbeat_s=config.heartbeat_s, grace_s=config.grace_s),
            Sources(environment.wall_clock, environment.secret),
            salt=environment.rng.randbytes(_SALT_BYTES),
            masters=(str(advertised),),
            replicas=config.replicas,
        )
        log.info("serving", listen=str(listener.address), advertise=str(advertised), fleet=fleet.fleet_id)
        enrolment = Enrolment(fleet)
        await _introduce(fleet, enrolment, advertised, config.state, environment.say)
        hosts = Hosts(fleet, enrolment, Requests(fleet, environment.executor(_DECODING_THREADS)))
        admin = Admin(fleet, enrolment)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fleet.keep_last_seen)
            for name, work in fleet.works().items():
                backoff = Backoff(environment.rng, floor_s=RETRY_FLOOR_S, cap_s=RETRY_CAP_S)
                nursery.start_soon(partial(supervise, name, work, expected=(), backoff=backoff, log=log))
            nursery.start_soon(lambda: serve(listener, hosts.handle, max_connections=config.max_connections))
            nursery.start_soon(lambda: serve(admin_listener, admin.handle, max_connections=MAX_CALLERS))
            task_status.started()


async def _introduce(
    fleet: Fleet, enrolment: Enrolment, advertised: Address, state: Path, say: Callable[[str], None]
) -> None:
    """Load the fleet, and say where it is and, while it is empty, how to join it."""
    hosts = await fleet.load()
    shown = fleet.fleet_id[:_SHOWN_FLEET_DIGITS]
    say(f"Master of fleet {shown} is listening on {advertised} (state in {_with_tilde(state)}).")
    if hosts:
        belong = format_count(hosts, "host belongs", "hosts belong")
        say(f"{belong} to it; join another with a token from `interfiles token`.")
        return
    report = await enrolment.make_token(ttl_s=_FIRST_TOKEN_TTL_S, uses=None, name="")
    say(f"Join a host with this line (good for {format_duration(_FIRST_TOKEN_TTL_S)}):")
    say(f"  interfiles client --join {report.token}")


def _with_tilde(path: Path) -> str:
    try:
        return printable(f"~/{path.relative_to(Path.home())}")
    except (RuntimeError, ValueError):  # no home, or elsewhere
        return printable(str(path))


def _advertised(config: MasterConfig, environment: Environment, listener: Listener) -> Address:
    chosen, bound = config.advertise, listener.address
    if chosen is not None:
        return Address(chosen.host, chosen.port or bound.port)
    everywhere = bound.host in ("0.0.0.0", "::")
    return Address(environment.outward_host() if everywhere else bound.host, bound.port)
