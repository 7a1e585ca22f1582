"""A network of hosts on this machine: each a network namespace, on a bridge, with shaped uplink and downlink.

The bridges, and who stands at them, have a namespace of their own (the hub), so nothing is added to the machine's own
network: when the namespaces are removed, everything is. Needs root, `ip` and `tc`.

Counters are those of the bridges' ends of the hosts' links. A packet that the kernel cuts up only later counts its
headers once for up to 64 KiB, so the bytes are within 1 % of the payload; the shaping counts every header.
"""

import ctypes
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self, TypeVar

T = TypeVar("T")

HUB_ADDRESS: Final = "10.99.0.254"
MAX_HOSTS: Final = 250
COMMAND_TIMEOUT_S: Final = 30.0

_SHAPE: Final = "tbf rate {rate}bit burst 256kb latency 200ms"
_CLONE_NEWNET: Final = 0x40000000
_CONGESTION: Final = "net/ipv4/tcp_congestion_control"


@dataclass(frozen=True)
class Link:
    """How a host is connected: bits per second from it and to it, and the number of its bridge."""

    up: int
    down: int
    bridge: int = 0


@dataclass(frozen=True)
class Count:
    """Bytes since the network was made: each host's, in their order, and those between the bridges, both ways."""

    sent: list[int]
    received: list[int]
    crossed: int


def missing() -> str:
    """What this machine lacks for it; empty if nothing."""
    if os.geteuid() != 0:
        return "root, to make network namespaces"
    lacking = [name for name in ("ip", "tc") if shutil.which(name) is None]
    return f"{' and '.join(lacking)} (Debian and Ubuntu: apt install iproute2)" if lacking else ""


def enter(namespace: str) -> list[str]:
    """What stands before a command line so that it runs there, under the same process id."""
    return ["ip", "netns", "exec", namespace]


class Network:
    """Hosts on bridges, numbered as in `links`. As a context manager it makes them, and removes them at the end.

    `between`: bits per second each way between the first bridge and the second; without it there is one bridge.
    `congestion`: TCP's congestion control in all of them; by default the system's.
    """

    def __init__(self, links: Sequence[Link], *, between: int | None = None, congestion: str | None = None) -> None:
        assert len(links) <= MAX_HOSTS
        self._links = links
        self._between = between
        self._congestion = congestion
        self._stack = ExitStack()
        self.hub = f"interfiles-{os.getpid()}-hub"
        self.hosts = [f"interfiles-{os.getpid()}-{number}" for number in range(len(links))]
        self.addresses = [f"10.99.0.{number + 1}" for number in range(len(links))]
        self._counters: IO[str]

    def __enter__(self) -> Self:
        with self._stack:
            self._make(self._stack)
            self._counters = inside(self.hub, Path("/proc/thread-self/net/dev").open)
            self._stack.callback(self._counters.close)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def congestion(self) -> str:
        """TCP's congestion control in the namespaces."""
        return inside(self.hosts[0], Path("/proc/sys", _CONGESTION).read_text).strip()

    def count(self) -> Count:
        """What went over the links up to now."""
        self._counters.seek(0)
        rows = dict(line.split(":") for line in self._counters.read().splitlines()[2:])
        by_name = {name.strip(): list(map(int, numbers.split())) for name, numbers in rows.items()}
        ends = [by_name[f"v{number}"] for number in range(len(self._links))]
        between = by_name.get("x0", [0] * 16)
        return Count([end[0] for end in ends], [end[8] for end in ends], between[0] + between[8])

    def is_open(self, number: int, port: int) -> bool:
        """Whether somebody listens on this port of a host."""
        return inside(self.hub, lambda: _is_open(self.addresses[number], port))

    def _make(self, stack: ExitStack) -> None:
        bridges = [0] if self._between is None else [0, 1]
        self._add(stack, self.hub)
        commands = [f"link add br{number} type bridge" for number in bridges]
        commands += [f"link set br{number} up" for number in bridges]
        commands.append(f"addr add {HUB_ADDRESS}/24 dev br0")
        shapes = []
        if self._between is not None:
            commands += ["link add x0 type veth peer name x1"]
            for number in bridges:
                commands.append(f"link set x{number} master br{number} up")
                shapes.append(f"qdisc add dev x{number} root {_SHAPE.format(rate=self._between)}")
        for number, (host, link) in enumerate(zip(self.hosts, self._links, strict=True)):
            self._add(stack, host)
            commands.append(f"link add v{number} type veth peer name e0 netns {host}")
            commands.append(f"link set v{number} master br{link.bridge} up")
            shapes.append(f"qdisc add dev v{number} root {_SHAPE.format(rate=link.down)}")
        _batch("ip", self.hub, commands)
        _batch("tc", self.hub, shapes)
        for host, address, link in zip(self.hosts, self.addresses, self._links, strict=True):
            _batch("ip", host, [f"addr add {address}/24 dev e0", "link set e0 up"])
            _batch("tc", host, [f"qdisc add dev e0 root {_SHAPE.format(rate=link.up)}"])

    def _add(self, stack: ExitStack, namespace: str) -> None:
        stack.callback(_ip, "netns", "del", namespace)
        _ip("netns", "add", namespace)
        _batch("ip", namespace, ["link set lo up"])
        if self._congestion is not None:
            _choose_congestion(namespace, self._congestion)


def _choose_congestion(namespace: str, chosen: str) -> None:
    try:
        inside(namespace, lambda: Path("/proc/sys", _CONGESTION).write_text(chosen))
    except PermissionError as e:
        # Only the first namespace may have any; the others those of the list, which is the whole machine's.
        allowed = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control").read_text().strip()
        setting = f"sysctl -w net.ipv4.tcp_allowed_congestion_control='{allowed} {chosen}'"
        raise OSError(f"this machine does not allow {chosen} in network namespaces; allow it with {setting}") from e
    except FileNotFoundError as e:
        raise OSError(f"this machine's kernel has no congestion control called {chosen}") from e


def inside(namespace: str, operate: Callable[[], T]) -> T:
    """Call a function in a namespace: in a thread that enters it and then ends. What it opens stays there.

    Raises:
      OSError: there is no such namespace, or what the function raises.
    """
    found: list[T] = []
    failed: list[OSError] = []

    def run() -> None:
        try:
            with open(f"/run/netns/{namespace}") as entrance:
                libc = ctypes.CDLL(None, use_errno=True)
                if libc.setns(entrance.fileno(), _CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")
            found.append(operate())
        except OSError as e:
            failed.append(e)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return found[0]


def _is_open(address: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((address, port)) == 0


def _batch(program: str, namespace: str, commands: Sequence[str]) -> None:
    """Have `ip` or `tc` do all of these in a namespace."""
    if commands:
        _run([program, "-n", namespace, "-batch", "-"], "\n".join(commands) + "\n")


def _ip(*arguments: str) -> None:
    _run(["ip", *arguments])


def _run(command: list[str], given: str = "") -> None:
    """Raises: OSError: it failed, with what it said."""
    ran = subprocess.run(
        command, input=given, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False, process_group=0
    )
    if ran.returncode:
        raise OSError(f"`{' '.join(command)}` failed: {ran.stderr.strip()}")
