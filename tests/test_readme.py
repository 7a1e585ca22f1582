"""README and docs say what is so: commands, options, targets, exit codes, messages, constants and names that exist."""

import ast
import importlib
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
import typer

import interfiles
from daemons.client.__main__ import app as client_app
from daemons.master.__main__ import app as master_app
from interfiles import errors
from interfiles.cli.app import BUG
from interfiles.cli.app import app as cli_app
from interfiles.errors import InterFilesError, from_wire
from interfiles.wire.reports import DownloadReport
from tests.e2e.fleet import Fleet

ROOT: Final = Path(__file__).parents[1]
README: Final = (ROOT / "README.md").read_text(encoding="utf-8")
ARCHITECTURE: Final = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
CODE: Final = ("interfiles", "daemons")

# Of other programs, in lines that the README tells people to type.
FOREIGN_OPTIONS: Final = frozenset({"--now"})

SHORTEST_HALF: Final = 6

BYTE_UNITS: Final = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
TIME_UNITS: Final = {"s": 1.0, "d": 86_400.0}
BOUND_NAME: Final = re.compile(r"(?:^|_)(?:MAX|MIN|LONGEST|SHORTEST)_|_M?S$")


def section(text: str, title: str) -> str:
    """What stands below a heading, up to the next of the same or a higher level."""
    found = re.search(rf"^(##+) {re.escape(title)}\n(.*?)(?=^##?#? |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found is not None, f"no section {title!r}"
    return found[2]


def table(text: str) -> list[list[str]]:
    """The rows of a section's tables, without their headings."""
    rows = [line.strip("|").split(" | ") for line in text.splitlines() if line.startswith("|")]
    rows = [[cell.strip().strip("|").strip() for cell in row] for row in rows]
    ruled = [at for at, row in enumerate(rows) if set("".join(row)) <= set("-|")]
    return [row for at, row in enumerate(rows) if at not in ruled and at + 1 not in ruled]


def code_spans(text: str) -> list[str]:
    """What stands between backticks in running text."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


def typed_lines(text: str) -> list[str]:
    """The commands that a person is told to type: indented lines, without their output."""
    lines = [line.strip().removeprefix("$ ") for line in text.splitlines() if line.startswith("    ")]
    return [line for line in lines if re.match(r"(sudo |make |interfiles )", line)]


# Commands and options


GROUPS: Final = ("hosts", "token", "ca", "replicas")
NO_COMMANDS: Final = frozenset({"", "replicas"})  # they do nothing by themselves


@cache
def options() -> dict[str, frozenset[str]]:
    """The options of every command, `hosts remove` and the daemons among them; of `interfiles` itself under ""."""
    root: Any = typer.main.get_command(cli_app)
    commands = {"": root, **root.commands}
    for group in GROUPS:
        commands |= {f"{group} {name}": command for name, command in root.commands[group].commands.items()}
    commands |= {"master": typer.main.get_command(master_app), "client": typer.main.get_command(client_app)}
    return {
        name: frozenset(option for p in command.params for option in (*p.opts, *p.secondary_opts)) | {"--help"}
        for name, command in commands.items()
    }


def command_in(line: str) -> tuple[str, list[str]]:
    """The command that a line runs, and its options: `interfiles rm --local` is `rm` and `[--local]`."""
    words = shlex.split(line, comments=True)
    words = words[words.index("interfiles") + 1 :]
    names = [word for word in words if not word.startswith("-")]
    name = names[0] if names else ""
    if name in GROUPS and len(names) > 1 and names[1].islower():
        name = f"{name} {names[1]}"
    return name, [word.partition("=")[0] for word in words if word.startswith("-")]


def command_lines() -> Iterator[str]:
    for text in (README, (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")):
        for line in (*typed_lines(text), *code_spans(text)):
            if re.match(r"(sudo )?interfiles(?! -?m)\b( |$)", line) and "interfiles/" not in line:
                yield line


@pytest.mark.parametrize("line", sorted(set(command_lines())))
def test_a_command_in_the_text_exists_with_its_options(line: str) -> None:
    name, used = command_in(line.replace("...", "").replace("…", ""))
    assert name in options()
    assert set(used) <= options()[name]


def test_the_table_of_commands_has_every_command_and_only_options_that_it_takes() -> None:
    listed = set()
    for command, _, used in table(section(README, "Commands")):
        name, _ = command_in(command.strip("`"))
        listed.add(name)
        words = {span.split()[0] for span in code_spans(used)}
        assert words <= options()[name], name
    assert listed == options().keys() - NO_COMMANDS - {"hosts list"}


def test_every_option_in_the_text_is_one_of_some_command() -> None:
    used = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", README))
    assert used - FOREIGN_OPTIONS <= frozenset().union(*options().values())
    assert len(used) > 20


def test_all_but_the_daemons_take_json_and_those_that_ask_a_client_a_socket() -> None:
    commands = options().keys() - NO_COMMANDS - {"master", "client"}
    assert {name for name in commands if "--json" not in options()[name]} == set()
    asking_the_master = "token, token list, token revoke, ca, ca rotate, ca retire, hosts remove, hosts drain, "
    asking_the_master += "hosts undrain, events"
    assert {name for name in commands if "--socket" not in options()[name]} == set(asking_the_master.split(", "))


def make_targets() -> set[str]:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (phony,) = re.findall(r"^\.PHONY: ((?:.*\\\n)*.*)$", makefile, re.MULTILINE)
    return set(phony.replace("\\\n", " ").split())


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_every_make_target_in_the_text_exists(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    named = {word for line in (*typed_lines(text), *code_spans(text)) for word in re.findall(r"\bmake ([a-z-]+)", line)}
    assert named, "the text names some"
    assert named <= make_targets()


def test_the_files_that_the_text_links_to_are_there() -> None:
    for name in (
        "README.md",
        "docs/architecture.md",
        "docs/decisions.md",
        "docs/security.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
    ):
        path = ROOT / name
        links = re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8"))
        missing = [link for link in links if "://" not in link and not (path.parent / link).exists()]
        assert missing == [], name


# Exit codes and messages


def test_the_exit_codes_are_those_of_the_errors() -> None:
    rows = table(section(README, "Exit codes"))
    listed = {int(code): set(code_spans(names)) for code, _, names in rows}
    classes = {cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, InterFilesError)}
    actual: dict[int, set[str]] = {errors.DONE: set(), BUG: set(), errors.INTERRUPTED: set()}
    for cls in classes:
        actual.setdefault(cls.exit_code, set()).add(cls.__name__)
    assert listed == actual
    assert all(type(from_wire(cls.code, "")) is cls for cls in classes), "the command ends with what the daemon raised"


def modules() -> list[Path]:
    return [path for package in CODE for path in sorted((ROOT / package).rglob("*.py"))]


@cache
def trees() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in modules()}


@cache
def texts_in_code() -> frozenset[str]:
    """Every literal text in the code, that of f-strings in parts; docstrings are not shown to anybody."""
    found = set()
    for tree in trees().values():
        docstrings = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
                found.add(node.value)
    return frozenset(found)


def is_in_code(part: str) -> bool:
    """Whether a part of a message is a text of the code, or made of the end of one and the start of another."""
    texts = texts_in_code()
    if any(part in text for text in texts):
        return True
    cuts = range(SHORTEST_HALF, len(part) - SHORTEST_HALF + 1)
    return any(
        any(text.endswith(part[:cut]) for text in texts) and any(text.startswith(part[cut:]) for text in texts)
        for cut in cuts
    )


@pytest.mark.parametrize("row", table(section(README, "When it fails")), ids=lambda row: row[0])
def test_a_message_in_the_table_is_one_of_the_code(row: list[str]) -> None:
    message = code_spans(row[0])[0]
    parts = [part.strip(" ,") for part in message.split("…")]
    assert [part for part in filter(None, parts) if not is_in_code(part)] == []
    assert sum(map(len, parts)) > 8, "too little to be told from others"


# Scripts


def test_the_example_of_json_is_a_report() -> None:
    (line,) = re.findall(r"^    (\{.*\})$", section(README, "Scripting"), re.MULTILINE)
    assert list(json.loads(line)) == list(DownloadReport.__struct_fields__)


def snippet() -> str:
    (code,) = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    return str(code)


@pytest.mark.e2e
def test_the_example_of_the_python_api_runs(tmp_path: Path) -> None:
    with Fleet(tmp_path) as fleet:
        fleet.start_master()
        alpha = fleet.start_client("alpha")
        (alpha.home / "weights").mkdir()
        (alpha.home / "weights" / "0.bin").write_bytes(b"weights" * 1000)
        ran = subprocess.run(
            [sys.executable, "-W", "error", "-c", snippet()],
            check=False,
            cwd=alpha.home,
            env=fleet.environment(alpha),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (ran.returncode, ran.stderr) == (0, "")
        assert ran.stdout.startswith(f"weights: 7000 bytes, tracker file {alpha.home}/weights.tracker\n")
        assert (alpha.home / "copies/weights/0.bin").read_bytes() == b"weights" * 1000


def test_the_example_of_the_python_api_catches_what_the_commands_do() -> None:
    imported = {
        alias.name
        for node in ast.walk(ast.parse(snippet()))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert imported == {"InterFilesError"}
    assert hasattr(interfiles, "connect")


# The map of the code


def bounds() -> list[tuple[str, str]]:
    """The constants that docs/architecture.md lists, by full name, with the values that it gives."""
    text = ARCHITECTURE[ARCHITECTURE.index("## Bounds") : ARCHITECTURE.index("## Seams for tests")]
    return [(name.strip("`"), value) for name, value, _ in table(text)]


def number_in(value: str) -> float:
    """`256 KiB` is 262,144, `0.05 s` is 0.05, `200 ms` is 200: the unit of the constant's own name."""
    figure, _, unit = value.replace(",", "").removesuffix("/s").partition(" ")
    factor = {**BYTE_UNITS, **TIME_UNITS, "ms": 1, "": 1}[unit]
    return float(figure) * factor


@pytest.mark.parametrize(("name", "value"), bounds())
def test_a_bound_has_the_value_that_the_map_gives(name: str, value: str) -> None:
    module, _, constant = name.rpartition(".")
    assert getattr(importlib.import_module(module), constant) == number_in(value)
    unit = value.removesuffix("/s").partition(" ")[2]
    kind = (
        BYTE_UNITS.keys()
        if "_BYTES" in constant
        else {"ms"}
        if constant.endswith("_MS")
        else TIME_UNITS.keys()
        if constant.endswith("_S")
        else {""}
    )
    assert unit in kind, "the unit is that of the constant's name"


def public_bounds() -> set[str]:
    """Every public constant of the code that bounds something, by its name."""
    found = set()
    for path, tree in trees().items():
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for node in tree.body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                name = node.target.id
                if name.isupper() and not name.startswith("_") and BOUND_NAME.search(name):
                    found.add(f"{module}.{name}")
    return found


def test_no_bound_is_missing_in_the_map() -> None:
    assert len(public_bounds()) > 80
    assert public_bounds() - {name for name, _ in bounds()} == set()


@cache
def attributes() -> dict[str, set[str]]:
    """What every class of the code defines, and what it inherits from classes of the code."""
    nodes = [node for tree in trees().values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]

    def of(name: str) -> set[str]:
        found = set[str]()
        for node in (node for node in nodes if node.name == name):  # two modules may have a class of one name
            found.update(*(of(ast.unparse(base).partition("[")[0]) for base in node.bases))
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
                    found.add(inner.name)
                elif isinstance(inner, ast.AnnAssign) and isinstance(inner.target, ast.Name):
                    found.add(inner.target.id)
        return found

    return {node.name: of(node.name) for node in nodes}


@pytest.mark.parametrize("name", ["docs/architecture.md", "docs/decisions.md"])
def test_the_classes_and_functions_that_the_map_names_exist(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    defined = {
        node.name
        for tree in trees().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    wrong = []
    for span in code_spans(text):
        if match := re.fullmatch(r"([A-Z]\w*[a-z]\w*)(?:\.(\w+))?", span):
            known = attributes().get(match[1])
            if known is None or (match[2] is not None and match[2] not in known):
                wrong.append(span)
        elif re.fullmatch(r"[a-z]+_[a-z_]+", span) and span not in defined:
            wrong.append(span)
    assert [span for span in wrong if span not in NOT_OURS] == []


# Names in the map that are Python's, a module's or a fixture's.
NOT_OURS: Final = frozenset(
    {"SSLObject", "SSLSocket", "rate_limit"}
    | {
        "recv_into",
        "autojump_clock",
        "piece_set",
        "manifest_paths",
        "tracker_file",
        "flat_msgpack",
        "handshake_messages",
    }
    | {
        "admin_reports",
        "master_messages",
        "catalogue_messages",
        "replica_messages",
        "peer_messages",
        "control_messages",
        "part_layout",
        "control_socket",
        "tracker_place",
    }
    | {"state_lock", "command_line"}
)


@pytest.mark.parametrize("package", ["interfiles", "daemons"])
def test_every_module_and_package_has_its_paragraph_in_the_map(package: str) -> None:
    below = {path.name.removesuffix(".py") for path in (ROOT / package).iterdir() if not path.name.startswith("_")}
    explained = {
        name for bold in re.findall(r"^\*\*(.+?)\*\*", ARCHITECTURE, re.MULTILINE) for name in code_spans(bold)
    }
    assert below - explained == set()
