"""Names, addresses, lines and time: what the tests of the client daemon have in common."""

from collections.abc import Callable
from typing import TypeVar, TypeVarTuple, Unpack

import trio
from blake3 import blake3

from interfiles.manifest import Manifest
from interfiles.storage.executor import InlineExecutor
from interfiles.tracker_file import TrackerFile
from interfiles.transport.base import Address
from interfiles.transport.memory_links import Link

T = TypeVar("T")
Args = TypeVarTuple("Args")

DAEMON_IP, MASTER_IP, CALLER_IP = "10.0.0.1", "10.0.0.254", "10.0.0.101"
DAEMON, MASTER, CONTROL = Address(DAEMON_IP, 4851), Address(MASTER_IP, 4850), Address(DAEMON_IP, 1)
FLEET = "f1" * 16
EPOCH = 1_700_000_000.0


def id_of(name: str) -> str:
    """The host id of a host of this name."""
    return blake3(name.encode()).hexdigest()[:32]


def tracker_of(manifest: Manifest) -> bytes:
    return TrackerFile(manifest, (str(MASTER),), "uploader", int(EPOCH), FLEET).encode()


def link(rate: float = 2e6, latency_s: float = 0.0005) -> Link:
    """A line of `rate` bytes a second each way."""
    return Link(uplink_bytes_per_s=rate, downlink_bytes_per_s=rate, latency_s=latency_s)


async def until(condition: Callable[[], object], *, within_s: float = 60.0, every_s: float = 0.01) -> None:
    """Wait in virtual time until the condition, a plain or an async function, holds."""
    with trio.fail_after(within_s):
        while True:
            value = condition()
            if (await value) if hasattr(value, "__await__") else value:
                return
            await trio.sleep(every_s)


class SlowExecutor(InlineExecutor):
    """Takes a while over everything, so that much comes between; `seconds` says how long each time."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds

    async def run(self, function: Callable[[Unpack[Args]], T], *args: *Args) -> T:
        await trio.sleep(self._seconds())
        return await super().run(function, *args)
