"""Where things are by default: the same answer for a daemon and for the commands of its user."""

from pathlib import Path

import pytest

from interfiles import locations
from interfiles.errors import UsageError

USER, ROOT = 1000, 0


@pytest.mark.parametrize(
    ("environ", "uid", "expected"),
    [
        ({"HOME": "/h/ada"}, USER, "/h/ada/.local/state/interfiles/master"),
        ({"HOME": "/h/ada", "XDG_STATE_HOME": "/state"}, USER, "/state/interfiles/master"),
        ({"HOME": "/h/ada", "XDG_STATE_HOME": "relative"}, USER, "/h/ada/.local/state/interfiles/master"),
        ({"HOME": "/h/ada", "XDG_STATE_HOME": "/state"}, ROOT, "/var/lib/interfiles/master"),
    ],
)
def test_state_directory(environ: dict[str, str], uid: int, expected: str) -> None:
    assert locations.state_directory("master", environ=environ, uid=uid) == Path(expected)


@pytest.mark.parametrize(
    ("environ", "uid", "expected"),
    [
        ({"INTERFILES_SOCKET": "/s", "XDG_RUNTIME_DIR": "/run/user/1000"}, USER, "/s"),
        ({"INTERFILES_SOCKET": "/s"}, ROOT, "/s"),
        ({"XDG_RUNTIME_DIR": "/run/user/1000"}, USER, "/run/user/1000/interfiles/client.sock"),
        ({"XDG_RUNTIME_DIR": "/run/user/0"}, ROOT, "/run/interfiles/client.sock"),
        ({"HOME": "/h/ada"}, USER, "/h/ada/.local/state/interfiles/client/client.sock"),
        ({"HOME": "/h/ada", "XDG_RUNTIME_DIR": ""}, USER, "/h/ada/.local/state/interfiles/client/client.sock"),
    ],
)
def test_client_socket(environ: dict[str, str], uid: int, expected: str) -> None:
    assert locations.client_socket(environ=environ, uid=uid) == Path(expected)


def test_without_a_run_directory_the_socket_is_in_the_state_directory_that_the_daemon_was_given() -> None:
    assert locations.client_socket(Path("/srv/client"), environ={}, uid=USER) == Path("/srv/client/client.sock")


def test_the_admin_socket_is_in_the_masters_state_directory() -> None:
    assert locations.admin_socket(Path("/srv/master")) == Path("/srv/master/master.sock")


def test_a_user_without_a_home_is_told_what_to_give(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(UsageError, match="set HOME, or name the state directory and the socket"):
        locations.state_directory("client", environ={}, uid=USER)


def test_a_command_asks_the_systems_daemon_where_the_user_has_none_and_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system, own = tmp_path / "system.sock", tmp_path / "own" / "interfiles" / "client.sock"
    monkeypatch.setattr(locations, "SYSTEM_SOCKET", system)
    monkeypatch.setattr(locations, "_is_root", lambda _: False)
    monkeypatch.delenv("INTERFILES_SOCKET", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "own"))
    assert locations.socket_to_ask() == own, "there is neither"
    system.touch()
    assert locations.socket_to_ask() == system
    own.parent.mkdir(parents=True)
    own.touch()
    assert locations.socket_to_ask() == own
    own.unlink()
    monkeypatch.setattr("os.access", lambda *_: False)
    assert locations.socket_to_ask() == own
    monkeypatch.setenv("INTERFILES_SOCKET", "/chosen")
    assert locations.socket_to_ask() == Path("/chosen")
