"""`interfiles client`: the command line of the client daemon."""

from __future__ import annotations

import grp
import os
import platform
import random
import re
import sys
import time
from pathlib import Path
from typing import Annotated, Final

import trio
import typer

from daemons.client.app import ClientConfig, Environment, Serving, run
from daemons.client.disks import MEMBER_THREADS
from daemons.client.hook_process import ProcessRunner, parse_hook
from daemons.client.scrubber import MIN_SCRUB_EVERY_S
from daemons.command_line import run_command
from daemons.logs import configure_logging, stderr_is_journal
from daemons.notify import Notifier
from daemons.state_lock import StateLock
from daemons.supervision import exit_with_sentence, raise_file_limit, run_daemon, spare_collector
from interfiles import locations
from interfiles.errors import PathNotFound, UsageError, printable
from interfiles.identity.token import MAX_TOKEN_CHARACTERS, JoinToken
from interfiles.storage.acting import Owner, acting_as
from interfiles.storage.executor import ThreadExecutor
from interfiles.swarm.rate_limit import parse_limit
from interfiles.transport.base import Address, Listener
from interfiles.transport.plain import TcpNetwork
from interfiles.transport.unix import listen_unix
from interfiles.units import parse_duration, parse_size
from interfiles.wire.fields import HOST_NAME_PATTERN, ZONE_PATTERN

DEFAULT_PORT: Final = 4851
MASTER_CATALOGUE: Final = "catalogue.sqlite"
DRAIN_S: Final = 10.0
DISK_THREADS: Final = 8
TOKEN_VARIABLE: Final = "INTERFILES_TOKEN"
CREDENTIALS_VARIABLE: Final = "CREDENTIALS_DIRECTORY"  # systemd.exec(5), LoadCredential=
TOKEN_CREDENTIAL: Final = "interfiles.token"
NOBODY: Final = 65534
LAST_GROUP: Final = 2**32 - 2

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def client(
    join: Annotated[str | None, typer.Option(metavar="TOKEN", help="Join a fleet, on this host's first start.")] = None,
    token_file: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Read the token from a file (- for standard input): ps does not show it."),
    ] = None,
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where peers connect; port 0 means any free one.")
    ] = f"0.0.0.0:{DEFAULT_PORT}",
    advertise: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Where peers reach this host, if not where the master sees it."),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="What must survive a restart.", show_default=False, readable=False),
    ] = None,
    socket: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Where commands reach this daemon.", readable=False)
    ] = None,
    socket_group: Annotated[
        str | None,
        typer.Option(metavar="GROUP", help="A group whose members may command this daemon too, each with own rights."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="This host's name in the fleet; by default its host name.")] = None,
    zone: Annotated[
        str | None, typer.Option(help="Where the host is: a rack, a room, an office; '' for none. It is remembered.")
    ] = None,
    quota: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Room for own copies (--copy) and replicas together, such as 500GB."),
    ] = None,
    keep_free: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Bytes of the disk that replicas leave to others [default: 5 % of it, at most 10 GiB].",
        ),
    ] = None,
    limit_up: Annotated[
        str | None,
        typer.Option(metavar="RATE", help="Send no more content than this, such as 10MB/s or 80Mbit/s, to all peers."),
    ] = None,
    limit_down: Annotated[
        str | None, typer.Option(metavar="RATE", help="Fetch no more content than this from all peers.")
    ] = None,
    on_complete: Annotated[
        str | None,
        typer.Option(
            metavar="CMD", help="Run this for each download that is complete; no shell; facts in INTERFILES_*."
        ),
    ] = None,
    scrub_every: Annotated[
        str, typer.Option(metavar="T|never", help="Hash every copy on this host again within this time.")
    ] = "30d",
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
) -> None:
    """Store, serve and fetch files on this host, until stopped.

    \b
    Examples:
      interfiles client --join IF1-GEZDGNBVGY3TQOJQ-...
      interfiles client
      interfiles client --limit-up 80Mbit/s
      interfiles client --on-complete '/usr/local/bin/announce --quietly'
      interfiles client --quota 500GB --keep-free 50GB
      interfiles client --state /data/if --socket /data/if/sock --listen 0.0.0.0:4861
    """
    with exit_with_sentence():
        configure_logging(level="debug" if verbose else "info", to_journal=stderr_is_journal(os.environ))
        where = state.absolute() if state is not None else locations.state_directory("client")
        config = ClientConfig(
            state=where,
            socket=socket.absolute() if socket is not None else locations.client_socket(where),
            listen=Address.parse(listen, default_port=DEFAULT_PORT),
            advertise=Address.parse(advertise, default_port=DEFAULT_PORT) if advertise else None,
            name=_host_name(name),
            zone=_checked(zone, ZONE_PATTERN, "zone") if zone is not None else None,
            quota=parse_size(quota) if quota is not None else None,
            keep_free=parse_size(keep_free) if keep_free is not None else None,
            token=_token(join, token_file),
            spare_token=_spare_token(),
            socket_group=_group(socket_group) if socket_group is not None else None,
            limit_up=parse_limit(limit_up) if limit_up is not None else None,
            limit_down=parse_limit(limit_down) if limit_down is not None else None,
            on_complete=parse_hook(on_complete) if on_complete is not None else None,
            scrub_every_s=_scrub_every(scrub_every),
        )
        raise_file_limit()
        with StateLock(where, not_with=MASTER_CATALOGUE):
            spare_collector()
            trio.run(_main, config)


async def _main(config: ClientConfig) -> None:
    async def listen_control(path: Path) -> Listener:
        return listen_unix(path, group=config.socket_group)

    environment = Environment(
        network=TcpNetwork(),
        listen_control=listen_control,
        database=ThreadExecutor(1),
        disk=ThreadExecutor(DISK_THREADS),
        rng=random.SystemRandom(),
        wall_clock=time.time,
        make_member_disk=lambda: ThreadExecutor(MEMBER_THREADS),
        hook_runner=ProcessRunner(config.on_complete, socket=config.socket) if config.on_complete else None,
    )

    async def main(*, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            serving: Serving = await nursery.start(run, config, environment)
            _tell(config, serving)
            task_status.started()

    await run_daemon(main, drain_timeout_s=DRAIN_S, notifier=Notifier.from_environment(os.environ))


def _tell(config: ClientConfig, serving: Serving) -> None:
    who = serving.identity
    began = f"Joined fleet {who.fleet[:4]} as" if serving.joined_now else f"Fleet {who.fleet[:4]}, host"
    typer.echo(
        f"{began} {who.name}. Serving on {_where(config, serving)}; commands by {printable(str(config.socket))}.",
        err=True,
    )


def _where(config: ClientConfig, serving: Serving) -> str:
    if config.advertise is None and serving.address.host in ("0.0.0.0", "::"):
        return f"port {serving.address.port}"
    return str(config.advertise or serving.address)


def _token(join: str | None, token_file: str | None) -> JoinToken | None:
    if join is not None and token_file is not None:
        raise UsageError("give the token by --join or by --token-file, not by both")
    if token_file is not None:
        return JoinToken.decode(_read_token(token_file))
    if join is not None:
        typer.echo("interfiles: `ps` shows a token given by --join; --token-file would hide it.", err=True)
        return JoinToken.decode(join)
    return None


def _spare_token() -> str:
    """What to join with if that is still to do: the variable, or what systemd keeps for this service."""
    if chosen := os.environ.get(TOKEN_VARIABLE, ""):
        return chosen
    credentials = os.environ.get(CREDENTIALS_VARIABLE)
    credential = Path(credentials, TOKEN_CREDENTIAL) if credentials else None
    return _read_token(str(credential)) if credential is not None and credential.exists() else ""


def _read_token(name: str) -> str:
    try:
        if name == "-":
            return sys.stdin.buffer.read(MAX_TOKEN_CHARACTERS).decode(errors="replace")
        with open(name, encoding="utf-8", errors="replace") as file:
            return file.read(MAX_TOKEN_CHARACTERS)
    except OSError as e:
        raise PathNotFound(f"token file {printable(name)} cannot be read: {e.strerror or e}") from e


def _group(given: str) -> int:
    """The number of a group, once it is known that the daemon can do as its members could."""
    try:
        number = int(given) if re.fullmatch("[0-9]{1,10}", given) else grp.getgrnam(given).gr_gid
        if number > LAST_GROUP:
            raise KeyError(given)
    except (KeyError, ValueError) as e:
        raise UsageError(f"there is no group {printable(given)} on this host; name one with --socket-group") from e
    with acting_as(Owner(NOBODY, NOBODY)):
        return number


def _scrub_every(text: str) -> float | None:
    if text == "never":
        return None
    seconds = parse_duration(text)
    if seconds < MIN_SCRUB_EVERY_S:
        raise UsageError(f"--scrub-every {printable(text)} is too short; at least {MIN_SCRUB_EVERY_S:g}s, or never")
    return seconds


def _host_name(name: str | None) -> str:
    if name is not None:
        return _checked(name, HOST_NAME_PATTERN, "name")
    made = re.sub(r"[^A-Za-z0-9._-]", "-", platform.node()).lstrip("._-")[:63]
    return made or "host"


def _checked(text: str, pattern: str, what: str) -> str:
    if re.fullmatch(pattern, text) is None:
        raise UsageError(f"{what} '{printable(text)}' may have letters, digits, '.', '_' and '-' only, at most 63")
    return text


def main() -> None:
    """Console script `interfiles-client`."""
    run_command(app, "interfiles client")


if __name__ == "__main__":
    main()
