"""The demo itself: what it shows, what it ends with, and that it leaves nothing behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.fleet import ROOT
from tests.e2e.processes import poll

TIMEOUT_S = 90


@contextmanager
def demo(directory: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The demo, running with `directory` for its temporary files; ended if the test fails."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.demo", *arguments],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(directory)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def processes_about(directory: Path) -> list[str]:
    """The command lines that name the directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:  # it has ended meanwhile
            pass
    return [line for line in found if str(directory) in line]


@pytest.fixture
def content(tmp_path: Path) -> Path:
    content = tmp_path / "a tree"
    (content / "bin").mkdir(parents=True)
    (content / "bin" / "run").write_bytes(bytes(300_000))
    (content / "bin" / "run").chmod(0o755)
    (content / "link").symlink_to("bin/run")
    return content


def test_the_demo_sends_a_directory_and_finds_the_copies_identical(open_directory: Path, content: Path) -> None:
    with demo(open_directory, str(content)) as process:
        out, err = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, err) == (0, "")
    for host in ("render-02", "render-03", "render-04"):
        assert f"  {host}  identical\n" in out
    assert "$ interfiles upload -p " in out
    assert "\x1b" not in out, "in a pipe there are no colours and no bars"
    assert list(open_directory.iterdir()) == []


def test_an_interrupted_demo_cleans_up(open_directory: Path, content: Path) -> None:
    with demo(open_directory, str(content)) as process:
        assert process.stdout is not None
        line = ""
        while "$ interfiles client" not in line:
            line = process.stdout.readline()
            assert line, "the demo ended too early"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130
    assert err.endswith("Interrupted: everything is stopped and removed.\n")
    assert "Traceback" not in err
    assert list(open_directory.iterdir()) == []
    poll(lambda: not processes_about(open_directory), "the daemons to end")


def test_the_demo_refuses_what_is_not_there(open_directory: Path) -> None:
    with demo(open_directory, "/no/such/file") as process:
        out, err = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, out) == (1, "")
    assert err == "interfiles demo: there is no /no/such/file; name a file or directory: make demo FILE=path.\n"
