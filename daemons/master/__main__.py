"""`interfiles master`: the command line of the master daemon."""

import os
import random
import secrets
import socket
import sys
import time
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import trio
import typer

from daemons.command_line import run_command
from daemons.logs import configure_logging, stderr_is_journal
from daemons.master.app import (
    DEFAULT_LISTEN,
    DEFAULT_REPLICAS,
    SHORTEST_GRACE_S,
    Environment,
    MasterConfig,
    run,
)
from daemons.notify import Notifier
from daemons.supervision import raise_file_limit, run_daemon, spare_collector
from interfiles import locations
from interfiles.errors import UsageError
from interfiles.storage.executor import ThreadExecutor
from interfiles.transport.base import Address
from interfiles.transport.plain import TcpNetwork
from interfiles.units import DAY, format_duration, parse_count, parse_duration
from interfiles.wire.fields import MAX_REPLICAS

DRAIN_S: Final = 10.0
LONGEST_GRACE_S: Final = 30.0 * DAY
_MAX_CONNECTIONS: Final = 10_000
_OTHER_FILES: Final = 64  # beside hosts' connections: the catalogue, the admin socket, the log
# A host that waits for its next heartbeat is some dozens of new objects, of which none is garbage. The collector counts
# those that came beyond those that went, and then looks at all new ones: with thousands of hosts it did so every few
# seconds, for a tenth of a second.
NEW_OBJECTS: Final = 100_000
# Each answer to a host is some system calls, and each may let the thread that reads the catalogue have the interpreter,
# which keeps it for so long: by default 5 ms, ten answers.
SWITCH_S: Final = 0.0005

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def master(
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where hosts connect; port 0 means any free one.")
    ] = str(DEFAULT_LISTEN),
    advertise: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="What join tokens carry, if not this host's outward address."),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="What must survive a restart.", show_default=False, readable=False),
    ] = None,
    replicas: Annotated[
        str, typer.Option(metavar="N", help="Copies wanted of a file whose upload names no number.")
    ] = str(DEFAULT_REPLICAS),
    grace: Annotated[str, typer.Option(metavar="T", help="How long a silent host is only suspect.")] = "2m",
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
) -> None:
    """Keep a fleet's hosts, and its catalogue of files, until stopped.

    \b
    Examples:
      interfiles master
      interfiles master --listen 10.0.0.5:4850 --state /data/master --replicas 2
    """
    configure_logging(level="debug" if verbose else "info", to_journal=stderr_is_journal(os.environ))
    config = MasterConfig(
        state=state.absolute() if state is not None else locations.state_directory("master"),
        listen=Address.parse(listen, default_port=DEFAULT_LISTEN.port),
        advertise=Address.parse(advertise, default_port=0) if advertise else None,
        replicas=parse_count(replicas, "a number of copies for --replicas", MAX_REPLICAS),
        grace_s=_checked_grace(grace),
        max_connections=min(_MAX_CONNECTIONS, raise_file_limit() - _OTHER_FILES),
    )
    spare_collector(new_objects=NEW_OBJECTS, rounds=1)
    sys.setswitchinterval(SWITCH_S)
    trio.run(_main, config)


async def _main(config: MasterConfig) -> None:
    environment = Environment(
        network=TcpNetwork(),
        executor=ThreadExecutor,
        rng=random.SystemRandom(),
        secret=secrets.token_bytes,
        wall_clock=time.time,
        outward_host=outward_host,
        say=partial(typer.echo, err=True),
    )
    notifier = Notifier.from_environment(os.environ)
    await run_daemon(partial(run, config, environment), drain_timeout_s=DRAIN_S, notifier=notifier)


def outward_host() -> str:
    """The address of the interface that routes outward, or loopback where none does. Nothing is sent."""
    for family, somewhere in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((somewhere, 9))
                return str(probe.getsockname()[0])
        except OSError:  # no such protocol here, or no way out by it
            pass
    return "127.0.0.1"


def _checked_grace(text: str) -> float:
    grace_s = parse_duration(text)
    if not SHORTEST_GRACE_S <= grace_s <= LONGEST_GRACE_S:
        raise UsageError(
            f"--grace {text} is outside {format_duration(SHORTEST_GRACE_S)} to {format_duration(LONGEST_GRACE_S)}"
        )
    return grace_s


def main() -> None:
    """Console script `interfiles-master`."""
    run_command(app, "interfiles master")


if __name__ == "__main__":
    main()
