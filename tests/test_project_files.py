"""Habits that a test can keep: small modules, no machine's own paths, exact versions."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[1]
MAX_LINES: Final = 400

MACHINE_PATHS: Final = re.compile(r"(?<![\w.])/(?:home|root|work|Users)/\w")
REGISTRIES: Final = re.compile(r"https?://\S+/(?:simple/|\S+\.whl)")


def tracked_files() -> list[Path]:
    """The files that are, or by a commit now would be, in the repository."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs git and a clone")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def test_no_module_is_too_long_to_hold_one_idea() -> None:
    folders = ("interfiles", "daemons", "tests", "benchmarks")
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
    }
    assert {path: lines for path, lines in lengths.items() if lines > MAX_LINES} == {}


def test_no_file_names_a_path_or_a_registry_of_the_machine_it_was_written_on() -> None:
    found = []
    for path in tracked_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:  # not text
            continue
        for number, line in enumerate(text.splitlines(), start=1):
            if MACHINE_PATHS.search(line) or REGISTRIES.search(line) or f"{ROOT}/" in line:
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    assert found == []


@pytest.mark.parametrize(
    ("line", "caught"),
    [
        ("see /ho" + "me/ada/notes", True),
        ("cd /ro" + "ot/project", True),
        ("pip install -i https://pypi.example/sim" + "ple/ trio", True),
        ("ProtectHome=yes", False),
        ("the path a/work/b", False),
    ],
)
def test_the_search_for_paths_finds_them(line: str, caught: bool) -> None:
    assert bool(MACHINE_PATHS.search(line) or REGISTRIES.search(line)) is caught


def test_constraints_are_exact_and_cover_what_the_project_asks_for() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pinned = {normal(line.split("==")[0]) for line in lines if re.fullmatch(r"[\w.-]+==[\w.]+", line)}
    assert len(pinned) == len(lines)
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = pyproject["project"]
    asked = pyproject["build-system"]["requires"] + project["dependencies"] + project["optional-dependencies"]["test"]
    assert {normal(re.split(r"[^\w.-]", requirement)[0]) for requirement in asked} <= pinned


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
