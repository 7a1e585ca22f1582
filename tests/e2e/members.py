"""A daemon of root that a group of other users may command, and these users."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from tests.e2e.content import MIB, make_file
from tests.e2e.fleet import Fleet
from tests.e2e.processes import Daemon, Ran, listening_port
from tests.e2e.proxy import PeerProxy

GROUP = 47_000  # anna and bert are in it, carl is not
ANNA, BERT, CARL, SERVICE = 47_001, 47_002, 47_003, 47_004


@dataclass
class Users:
    """A fleet whose client `shared` runs as root, and its users: each has a home that nobody else can look into."""

    fleet: Fleet
    shared: Daemon
    source: Daemon
    homes: dict[int, Path]
    proxy: PeerProxy
    content: Path = Path()

    def ask(self, uid: int, *arguments: str, json: bool = False, cwd: Path | None = None) -> Ran:
        process = self.begin(uid, *arguments, *(["--json"] if json else []), cwd=cwd)
        return self.fleet.finish_cli(process)

    def begin(self, uid: int, *arguments: str, cwd: Path | None = None) -> subprocess.Popen[str]:
        groups = [GROUP] if uid in (ANNA, BERT) else []
        return self.fleet.begin_cli(self.shared, *arguments, cwd=cwd or self.homes[uid], uid=uid, groups=groups)

    def publish(self, name: str, size: int = 16 * MIB) -> Path:
        """Let another host upload a new file; return it. Everybody may read the tracker file beside it."""
        content = make_file(self.source.home / name, size, seed=len(name))
        self.fleet.ask(self.source, lambda client: client.upload(content, tracker=f"{content}.tracker"))
        Path(f"{content}.tracker").chmod(0o644)
        return content

    def tracker(self, content: Path) -> str:
        return f"{content}.tracker"

    def local(self, content: Path) -> dict[str, object]:
        found = self.fleet.ask(self.shared, lambda client: client.stat(self.tracker(content)))
        return dict(msgspec.to_builtins(found)["local"])


@contextmanager
def shared_daemon(uid: int | None = None) -> Iterator[Users]:
    """Start the fleet. `uid`: the shared daemon is not root's but this user's, who is in the group too."""
    if os.geteuid() != 0:
        pytest.skip("only root can act as other users")
    directory = Path(tempfile.mkdtemp(prefix="interfiles-test-"))
    directory.chmod(0o755)
    homes = {}
    for user in (ANNA, BERT, CARL):
        homes[user] = directory / f"home-{user}"
        homes[user].mkdir(mode=0o700)
        os.chown(homes[user], user, user)
    try:
        with PeerProxy() as proxy, Fleet(directory) as fleet:
            fleet.start_master()
            source = fleet.start_client("source", "--advertise", proxy.address)
            proxy.target_port = listening_port(source)
            shared = fleet.new_client("shared", "--socket-group", str(GROUP), uid=uid)
            shared.socket = directory / "run" / "client.sock"
            if uid is not None:
                shared.groups = (GROUP,)
                shared.socket.parent.mkdir(mode=0o700)
                os.chown(shared.socket.parent, uid, uid)
            fleet.start_new(shared)
            yield Users(fleet, shared, source, homes, proxy)
    finally:
        shutil.rmtree(directory)


def put_together(path: Path, uid: int, *, mode: int = 0o600, text: str = "private") -> Path:
    """Make a file of another user."""
    path.write_text(text * 100)
    os.chown(path, uid, uid)
    path.chmod(mode)
    return path
