"""Hosts and files as a planner sees them, from a few words: `hosts("a:r1 b:r2=gone")`, `file("a=own b=arriving")`."""

from collections.abc import Iterable
from dataclasses import replace
from typing import cast

from hypothesis import strategies as st

from interfiles.placement.places import Places
from interfiles.placement.replicas import plan
from interfiles.placement.standing import Action, Copy, FileView, HostView, Order, Policy, Release
from interfiles.wire.master_messages import HostState

GIB = 1 << 30
STATES: tuple[HostState, ...] = ("live", "suspect", "gone", "draining")
COPIES: tuple[Copy, ...] = ("own", "ordered", "arriving", "coming", "stuck")


def hosts(words: str, **changes: dict[str, object]) -> dict[str, HostView]:
    """`NAME:ZONE=STATE`, both optional, with room for 100 GiB; `changes`: other fields by name of the host."""
    made = {}
    for word in words.split():
        place, _, state = word.partition("=")
        name, _, zone = place.partition(":")
        made[name] = HostView(name, zone, cast("HostState", state or "live"), 100 * GIB)
    for name, fields in changes.items():
        made[name] = replace(made[name], **fields)  # type: ignore[arg-type]
    return made


def file(copies: str = "", *, wanted: int = 3, size: int = GIB, name: str = "f", **fields: object) -> FileView:
    """`HOST=COPY ...`; the id is `name`, padded."""
    held = {host: cast("Copy", copy) for host, _, copy in (word.partition("=") for word in copies.split())}
    return FileView(name.encode().ljust(32, b"."), size, wanted, held, **fields)  # type: ignore[arg-type]


def planned(files: Iterable[FileView], views: dict[str, HostView], policy: Policy, now: float) -> list[Action]:
    """The plan for a fleet that nobody has looked at before."""
    return plan(files, Places(views, policy.max_arriving_per_host), policy, now)


def ordered(actions: list[Action]) -> list[tuple[str, str]]:
    """Which files are ordered where."""
    return [(one.file_id.decode().rstrip("."), one.host_id) for one in actions if isinstance(one, Order)]


def released(actions: list[Action]) -> list[tuple[str, str]]:
    """Which files are given up where."""
    return [(one.file_id.decode().rstrip("."), one.host_id) for one in actions if isinstance(one, Release)]


NAMES = [f"host-{number}" for number in range(8)]


@st.composite
def some_hosts(draw: st.DrawFn, *, states: tuple[HostState, ...] = STATES) -> dict[str, HostView]:
    """Up to eight hosts in up to three zones."""
    return {
        name: HostView(
            name,
            draw(st.sampled_from(["", "r1", "r2"])),
            draw(st.sampled_from(states)),
            draw(st.integers(0, 8)) * GIB,
            draw(st.integers(0, 3)),
            draw(st.sampled_from([float("-inf"), 50.0, 150.0])),
        )
        for name in draw(st.lists(st.sampled_from(NAMES), unique=True))
    }


@st.composite
def some_files(draw: st.DrawFn, most: int = 6) -> list[FileView]:
    """Files with copies anywhere, also on hosts that nobody knows."""
    return [
        FileView(
            bytes([number]) * 32,
            draw(st.integers(0, 4)) * GIB,
            draw(st.integers(1, 5)),
            draw(st.dictionaries(st.sampled_from(NAMES), st.sampled_from(COPIES), max_size=6)),
            draw(st.sampled_from([None, -1000.0, 90.0])),
            draw(st.dictionaries(st.sampled_from(NAMES), st.sampled_from([50.0, 150.0]), max_size=2)),
        )
        for number in range(draw(st.integers(0, most)))
    ]
