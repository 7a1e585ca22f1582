"""One daemon to a state directory."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from daemons.state_lock import StateLock
from interfiles.errors import NotPermitted, Refused, StateInUse, StorageFailed

HOLDER = """
import sys
from pathlib import Path
from daemons.state_lock import StateLock
with StateLock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_directory_is_made_for_its_user_alone(tmp_path: Path) -> None:
    state = tmp_path / "interfiles" / "master"
    with StateLock(state):
        assert mode(state) == 0o700
        assert mode(state / "lock") == 0o600


def test_the_directory_of_the_other_daemon_is_not_taken(tmp_path: Path) -> None:
    with StateLock(tmp_path, not_with="client.db"):
        pass
    (tmp_path / "client.db").touch()
    with pytest.raises(Refused, match=r"is that of another daemon \(client.db is in it\); choose another with --state"):
        StateLock(tmp_path, not_with="client.db").__enter__()
    with StateLock(tmp_path, not_with="catalogue.sqlite"):
        pass


def test_a_second_daemon_is_refused_and_told_who_holds_the_state(tmp_path: Path) -> None:
    with StateLock(tmp_path):
        with pytest.raises(StateInUse, match=f"in use by process {os.getpid()}; stop it, or choose another") as refusal:
            StateLock(tmp_path).__enter__()
    assert str(tmp_path) in str(refusal.value)


def test_the_lock_is_free_again_afterwards(tmp_path: Path) -> None:
    for _ in range(2):
        with StateLock(tmp_path):
            pass


def test_the_lock_ends_with_its_process_even_by_kill_9(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StateInUse, match=f"process {holder.pid};"):
            StateLock(tmp_path).__enter__()
        holder.kill()
        holder.wait()
    with StateLock(tmp_path):
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_an_empty_directory_is_closed_to_others(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with StateLock(tmp_path):
        assert mode(tmp_path) == 0o700


def test_an_open_directory_with_other_files_is_neither_used_nor_changed(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    tmp_path.chmod(0o755)
    with pytest.raises(NotPermitted, match=r"open to other users \(mode 0755\)"):
        StateLock(tmp_path).__enter__()
    assert mode(tmp_path) == 0o755
    assert os.listdir(tmp_path) == ["thesis.txt"]


def test_another_users_directory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 4_000_000)
    with pytest.raises(NotPermitted, match=r"belongs to .+, this is user \d+; run as"):
        StateLock(tmp_path).__enter__()
    assert os.listdir(tmp_path) == []


def test_a_file_in_the_directorys_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    with pytest.raises(StorageFailed, match="it is not a directory; choose another with --state"):
        StateLock(tmp_path / "state").__enter__()


def test_a_link_in_the_locks_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("precious")
    (tmp_path / "lock").symlink_to("elsewhere")
    with pytest.raises(StorageFailed):
        StateLock(tmp_path).__enter__()
    assert (tmp_path / "elsewhere").read_text() == "precious"
