"""Acting with another user's rights: the thread has theirs, no other thread does, and it always gets its own back."""

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from interfiles.errors import NotPermitted
from interfiles.storage import acting, system
from interfiles.storage.acting import ActingExecutor, Owner, acting_as
from interfiles.storage.executor import ThreadExecutor
from interfiles.storage.failures import failure

ANNA = Owner(4242, 4243, (4244, 4245), 0o027)
BERT = Owner(5252, 5253)

as_root = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can take on other users' rights"),
]


def rights() -> tuple[int, int, tuple[int, ...]]:
    return os.geteuid(), os.getegid(), tuple(os.getgroups())


OWN = rights()


def capabilities() -> int:
    (line,) = [line for line in Path("/proc/thread-self/status").read_text().splitlines() if line.startswith("CapEff")]
    return int(line.split()[1], 16)


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that other users can enter."""
    directory = Path(tempfile.mkdtemp(prefix="interfiles-test-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


def test_an_owner_comes_back_from_its_text_as_it_was() -> None:
    assert Owner.decode(ANNA.encode()) == ANNA


class TestAsRoot:
    pytestmark = as_root

    def test_inside_the_thread_has_the_owners_rights_and_no_capability(self) -> None:
        with acting_as(ANNA):
            assert rights() == (4242, 4243, (4244, 4245))
            assert capabilities() == 0, "neither reserved disk space nor a way around a quota"
            assert os.getresuid()[::2] == (0, 0), "the owner can neither signal nor trace the daemon"
        assert rights() == OWN
        assert capabilities() != 0

    def test_what_only_root_may_read_or_write_is_refused_by_the_system(self, open_directory: Path) -> None:
        secret = open_directory / "secret"
        secret.write_text("secret")
        secret.chmod(0o600)
        with acting_as(ANNA):
            with pytest.raises(PermissionError):
                secret.read_text()
            with pytest.raises(PermissionError):
                (open_directory / "new").touch()
        assert secret.read_text() == "secret"

    def test_another_thread_keeps_its_rights(self) -> None:
        seen = []
        with acting_as(ANNA):
            thread = threading.Thread(target=lambda: seen.append(rights()))
            thread.start()
            thread.join()
            assert rights()[0] == ANNA.uid
        # A new thread inherits what its maker has: the daemon's threads are made by the loop, which never acts.
        assert seen == [(4242, 4243, (4244, 4245))]
        done, go = threading.Event(), threading.Event()

        def wait() -> None:
            go.wait(10)
            seen.append(rights())
            done.set()

        thread = threading.Thread(target=wait)
        thread.start()
        with acting_as(ANNA):
            go.set()
            assert done.wait(10)
        thread.join()
        assert seen[-1] == OWN

    def test_owners_can_change_inside_one_another(self) -> None:
        with acting_as(ANNA):
            with acting_as(BERT):
                assert rights() == (5252, 5253, ())
            assert rights()[0] == ANNA.uid
            with acting_as(None):
                assert rights() == OWN
            assert rights() == (4242, 4243, (4244, 4245))
        assert rights() == OWN

    def test_an_error_inside_gives_the_rights_back(self) -> None:
        with pytest.raises(ZeroDivisionError), acting_as(ANNA):
            1 / 0  # noqa: B018
        assert rights() == OWN

    def test_root_without_the_capability_is_told_and_does_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(groups: object) -> None:
            if groups != OWN[2]:
                raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(acting, "set_thread_groups", refuse)
        with pytest.raises(NotPermitted, match="give it CAP_SETUID and CAP_SETGID"), acting_as(ANNA):
            pytest.fail("with the wrong rights")
        assert rights() == OWN

    def test_a_machine_whose_system_calls_are_not_known_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("platform.machine", lambda: "abacus")
        with pytest.raises(OSError, match="it is not known how on abacus"):
            system.set_thread_groups(())

    def test_a_thread_that_cannot_get_its_rights_back_ends_the_process(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Ended(BaseException):
            pass

        def end() -> None:
            raise Ended

        real, broken = system.set_thread_user, False

        def set_thread_user(uid: int, gid: int) -> None:
            if broken and uid == 0:
                raise PermissionError(1, "Operation not permitted")
            real(uid, gid)

        monkeypatch.setattr(acting, "set_thread_user", set_thread_user)
        monkeypatch.setattr(os, "abort", end)
        with pytest.raises(Ended), acting_as(ANNA):
            broken = True
        broken = False
        with acting_as(None):
            pass
        acting._become(None)
        assert rights() == OWN

    async def test_an_executor_acts_in_its_threads_and_says_whose_right_is_missing(self, tmp_path: Path) -> None:
        executor = ActingExecutor(ThreadExecutor(1), ANNA)
        assert await executor.run(rights) == (4242, 4243, (4244, 4245))
        told = await executor.run(failure, PermissionError(13, "Permission denied"), tmp_path, "read")
        assert str(told) == f"{tmp_path} cannot be read: Permission denied; let user 4242 read it"
        assert await trio.to_thread.run_sync(rights) == OWN

    def test_files_made_inside_are_the_owners(self, open_directory: Path) -> None:
        open_directory.chmod(0o777)
        with acting_as(ANNA):
            (open_directory / "theirs").touch()
        status = (open_directory / "theirs").stat()
        assert (status.st_uid, status.st_gid) == (ANNA.uid, ANNA.gid)


def test_a_daemon_that_is_not_root_acts_as_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    with acting_as(ANNA):
        assert rights() == OWN
