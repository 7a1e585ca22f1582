"""Imports point one way, and the sans-IO packages stay free of IO, time and chance (docs/architecture.md)."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[1]

# From the ground up: a module imports from its own floor and those below.
FLOORS: Final = (
    ("errors", "geometry", "piece_set", "priority", "units", "usage"),
    ("flat_msgpack", "manifest_paths", "manifest", "tracker_file"),
    ("wire", "swarm", "placement"),
    ("storage", "transport", "identity", "locations"),
    ("administration", "control", "control_socket", "handing", "source", "tracker_place", "__init__"),
    ("cli", "daemons"),
)
FLOOR_OF: Final = {unit: number for number, units in enumerate(FLOORS) for unit in units}

# Below storage and transport, time and chance are arguments, and bytes come and go as values.
SANS_IO: Final = frozenset(unit for floor in FLOORS[:3] for unit in floor)
IO_MODULES: Final = frozenset(
    {"asyncio", "multiprocessing", "os", "random", "select", "selectors", "shutil", "signal", "socket", "ssl"}
    | {"subprocess", "tempfile", "threading", "time", "trio"}
)


def unit_of(dotted: str) -> str:
    """The unit that a dotted name in this project belongs to: `interfiles.wire.codec` to `wire`."""
    first, _, rest = dotted.partition(".")
    if first == "daemons":
        return first
    second = rest.partition(".")[0]
    return second if second in FLOOR_OF else "__init__"


@dataclass(frozen=True)
class Import:
    """One imported name, absolute and dotted; `for_types`: it stands under TYPE_CHECKING, so nothing is loaded."""

    line: int
    name: str
    for_types: bool


def imports_in(source: str, module: str, *, is_package: bool) -> Iterator[Import]:
    """Every import in `source`, at any depth."""
    tree = ast.parse(source)
    typing_blocks = [node for node in ast.walk(tree) if isinstance(node, ast.If) and is_type_checking(node.test)]
    for_types = {id(inner) for block in typing_blocks for statement in block.body for inner in ast.walk(statement)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(node.lineno, alias.name, id(node) in for_types)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")
                parents = parents[: len(parents) - node.level + is_package]
                base = ".".join([*parents, base] if base else parents)
            for alias in node.names:
                yield Import(node.lineno, f"{base}.{alias.name}", id(node) in for_types)


def is_type_checking(test: ast.expr) -> bool:
    return ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def violations(path: str, source: str) -> list[str]:
    """What the module at `path` (relative to the project) imports against the rules."""
    parts = Path(path).with_suffix("").parts
    is_package = parts[-1] == "__init__"
    module = ".".join(parts[:-1] if is_package else parts)
    unit = unit_of(module)
    if unit == "__init__" and module != "interfiles":
        return [f"{path} stands on no floor: add it to FLOORS"]
    found = []
    for imported in imports_in(source, module, is_package=is_package):
        complaint = complaint_about(imported, unit)
        if complaint is not None:
            found.append(f"{path}:{imported.line} imports {imported.name}: {complaint}")
    return found


def complaint_about(imported: Import, unit: str) -> str | None:
    """Why a module of `unit` may not import this, or None."""
    top = imported.name.partition(".")[0]
    if top in ("interfiles", "daemons"):
        target = unit_of(imported.name)
        if target == "daemons" != unit:
            return "nothing imports daemons"
        if FLOOR_OF[target] > FLOOR_OF[unit]:
            return f"{target} stands above {unit}"
    if top == "tests":
        return "the tests stand outside"
    # The type of an argument may be named: `rng: Random` takes chance from outside, as it should.
    if unit in SANS_IO and top in IO_MODULES and not imported.for_types:
        return f"{unit} is sans-IO"
    return None


def modules() -> list[Path]:
    return [path for package in ("interfiles", "daemons") for path in sorted((ROOT / package).rglob("*.py"))]


def test_every_import_keeps_the_rules() -> None:
    found = [
        violation
        for path in modules()
        for violation in violations(str(path.relative_to(ROOT)), path.read_text(encoding="utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("path", "source", "complaint"),
    [
        ("interfiles/geometry.py", "from interfiles import manifest", "manifest stands above geometry"),
        ("interfiles/wire/codec.py", "from interfiles.transport.base import Stream", "transport stands above wire"),
        ("interfiles/wire/codec.py", "import interfiles.storage.hashing", "storage stands above wire"),
        ("interfiles/wire/codec.py", "from interfiles import connect", "__init__ stands above wire"),
        ("interfiles/wire/codec.py", "from ..transport import base", "transport stands above wire"),
        ("interfiles/wire/__init__.py", "from .. import transport", "transport stands above wire"),
        ("interfiles/storage/catalogue.py", "from interfiles import control", "control stands above storage"),
        ("interfiles/control.py", "from interfiles.cli import render", "cli stands above control"),
        ("interfiles/cli/app.py", "from daemons.client import app", "nothing imports daemons"),
        ("interfiles/cli/app.py", "def f():\n    import daemons", "app.py:2 imports daemons: nothing imports daemons"),
        ("interfiles/cli/app.py", "from tests.sim import fleet", "the tests stand outside"),
        ("interfiles/swarm/picker.py", "import random", "swarm is sans-IO"),
        ("interfiles/swarm/picker.py", "from random import Random", "swarm is sans-IO"),
        ("interfiles/placement/planner.py", "import os.path", "placement is sans-IO"),
        ("interfiles/wire/codec.py", "def f():\n    from time import monotonic", "codec.py:2 imports time.monotonic"),
        ("interfiles/errors.py", "if TYPE_CHECKING:\n    pass\nelse:\n    import trio", "errors is sans-IO"),
        (
            "interfiles/wire/codec.py",
            "if TYPE_CHECKING:\n    from interfiles import control",
            "control stands above wire",
        ),
        ("interfiles/tracker_file.py", "import struct, socket", "tracker_file is sans-IO"),
        ("interfiles/helpers.py", "", "stands on no floor"),
    ],
)
def test_a_violation_is_found(path: str, source: str, complaint: str) -> None:
    (found,) = violations(path, source)
    assert complaint in found


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("interfiles/__init__.py", "from interfiles.control import connect"),
        ("interfiles/wire/__init__.py", "from .codec import decode"),
        ("interfiles/wire/session.py", "import struct\nfrom interfiles import errors\nfrom .codec import decode"),
        ("interfiles/tracker_file.py", "from interfiles.manifest import Manifest"),
        ("interfiles/swarm/picker.py", "if TYPE_CHECKING:\n    from random import Random"),
        ("interfiles/storage/hashing.py", "import os, time, threading"),
        ("interfiles/cli/app.py", "import interfiles\nfrom interfiles import connect, errors"),
        ("daemons/master/app.py", "import random\nfrom daemons import supervision\nfrom interfiles import wire"),
    ],
)
def test_what_the_rules_allow_is_allowed(path: str, source: str) -> None:
    assert violations(path, source) == []
