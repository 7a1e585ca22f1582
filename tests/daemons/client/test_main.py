"""The client daemon's options: what they become, and what is refused in one sentence."""

import grp
import io
import os
import shutil
from pathlib import Path

import pytest

from daemons.client import __main__ as command
from daemons.client.app import ClientConfig
from daemons.command_line import run_command
from daemons.state_lock import StateLock
from interfiles.errors import DONE, NOT_PERMITTED, REFUSED, USAGE
from interfiles.identity.token import MAX_TOKEN_CHARACTERS, JoinToken
from interfiles.transport.base import Address
from tests.daemons import starting
from tests.daemons.starting import Started

TOKEN = JoinToken(("10.0.0.254:4850",), b"token id", b"secret".ljust(16), bytes(32))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Started[ClientConfig]:
    return starting.started(command, monkeypatch, tmp_path)


def run(*arguments: str) -> int:
    """Run the command; return its exit code."""
    with pytest.raises(SystemExit) as ended:
        run_command(command.app, "interfiles client", ["--state", "state", *arguments])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def config_of(started: Started[ClientConfig], *arguments: str) -> ClientConfig:
    assert run(*arguments) == DONE
    assert started.config is not None
    return started.config


def test_the_defaults(started: Started[ClientConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.node", lambda: "rack-1.example.net")
    config = config_of(started)
    assert config.state == tmp_path / "state"
    assert (config.listen, config.advertise) == (Address("0.0.0.0", 4851), None)
    assert (config.name, config.zone, config.quota) == ("rack-1.example.net", None, None)
    assert config.keep_free is None
    assert (config.token, config.spare_token) == (None, "")
    assert (config.on_complete, config.scrub_every_s) == (None, 30 * 86_400)
    assert config.state.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("option", ["--state", "--socket"])
def test_a_state_of_another_user_is_not_permitted_and_no_mistake_in_the_line(
    started: Started[ClientConfig],
    tmp_path: Path,
    option: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    state = tmp_path / "theirs"
    state.mkdir(mode=0o700)
    uid = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    assert run("--state", str(state), option, str(state)) == NOT_PERMITTED
    assert "belongs to" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("node", "name"),
    [("", "host"), ("..", "host"), ("_x", "x"), ("日本", "host"), ("a b/c\n", "a-b-c-"), ("x" * 80, "x" * 63)],
)
def test_a_host_name_is_made_from_whatever_the_system_says(
    started: Started[ClientConfig], monkeypatch: pytest.MonkeyPatch, node: str, name: str
) -> None:
    monkeypatch.setattr("platform.node", lambda: node)
    assert config_of(started).name == name


def test_no_room_for_copies_and_none_kept_free_were_no_sizes(started: Started[ClientConfig]) -> None:
    """`--keep-free 0` was refused for its want of a unit."""
    config = config_of(started, "--quota", "0", "--keep-free", "0")
    assert (config.quota, config.keep_free) == (0, 0)


def test_every_option(started: Started[ClientConfig], tmp_path: Path) -> None:
    config = config_of(
        started,
        *("--listen", "[::1]:5000", "--advertise", "host.example.net", "--name", "h-1", "--zone", "rack.2"),
        *("--on-complete", "sh -c 'echo $INTERFILES_NAME'", "--scrub-every", "90m"),
        *("--quota", "1.5GB", "--keep-free", "50GiB", "--socket", "run/sock", "--join", TOKEN.encode()),
    )
    assert (config.listen, config.advertise) == (Address("::1", 5000), Address("host.example.net", 4851))
    assert (config.name, config.zone, config.quota) == ("h-1", "rack.2", 1_500_000_000)
    assert config.keep_free == 50 << 30
    assert (config.socket, config.token) == (tmp_path / "run" / "sock", TOKEN)
    assert config.on_complete == (shutil.which("sh"), "-c", "echo $INTERFILES_NAME")
    assert config.scrub_every_s == 5_400
    assert config_of(started, "--scrub-every", "never").scrub_every_s is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--name", ""], "name '' may have letters"),
        (["--name", "-x"], "name '-x' may have letters"),
        (["--name", "a b"], "name 'a b' may have letters"),
        (["--name", "x" * 64], "at most 63"),
        (["--name", "x\n"], r"name 'x\x0a' may have letters"),
        (["--name", "\x1b[2J"], r"name '\x1b[2J' may have letters"),
        (["--zone", "rack/2"], "zone 'rack/2' may have letters"),
        (["--quota", "much"], "'much'"),
        (["--quota", "-5GB"], "-5GB"),
        (["--on-complete", "/no/such -x"], "--on-complete names /no/such, which is no program"),
        (["--on-complete", "'x"], "is no command: no closing quotation"),
        (["--scrub-every", "often"], "'often' is not a duration"),
        (["--scrub-every", "0.5s"], "--scrub-every 0.5s is too short; at least 1s, or never"),
        (["--keep-free", "10"], "'10' is not a size"),
        (["--listen", "nowhere at all"], "is not a host name or IP address"),
        (["--listen", "host:99999"], "port 99999"),
        (["--advertise", "host:port"], "is not an address"),
        (["--colour"], "no such option: --colour; see `interfiles client --help`"),
        (["--join", "a", "--token-file", "b"], "by --join or by --token-file, not by both"),
    ],
    ids=lambda value: " ".join(value)[:20] if isinstance(value, list) else "",
)
def test_an_option_that_makes_no_sense(
    started: Started[ClientConfig], capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert run(*arguments) == USAGE
    shown = capsys.readouterr()
    assert shown.out == ""
    assert words in shown.err
    assert shown.err.startswith("interfiles: ")
    assert shown.err.count("\n") == 1
    assert started.config is None


# Where the token comes from


def stdin_of(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))


def test_a_token_from_a_file(started: Started[ClientConfig], tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN.encode()}\n")
    assert config_of(started, "--token-file", "token").token == TOKEN


def test_a_token_from_standard_input(started: Started[ClientConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    stdin_of(monkeypatch, TOKEN.encode().encode() + b"\n")
    assert config_of(started, "--token-file", "-").token == TOKEN


def test_a_token_on_the_command_line_is_remarked_upon(
    started: Started[ClientConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    assert config_of(started, "--join", TOKEN.encode()).token == TOKEN
    assert "--token-file would hide it" in capsys.readouterr().err


@pytest.mark.parametrize("data", [b"", b"nonsense", b"\xff\xfe\x00", b"x" * (MAX_TOKEN_CHARACTERS * 10)])
@pytest.mark.parametrize("source", ["file", "-"])
def test_a_token_that_is_none(
    started: Started[ClientConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    data: bytes,
    source: str,
) -> None:
    (tmp_path / "file").write_bytes(data)
    stdin_of(monkeypatch, data)
    assert run("--token-file", source) == NOT_PERMITTED
    shown = capsys.readouterr().err
    assert "token" in shown
    assert len(shown) < 300, "no secret, and no page full of it"


@pytest.mark.parametrize("name", ["absent", "directory", "absent/deeper", "strange\x1b[2J"])
def test_a_token_file_that_cannot_be_read(
    started: Started[ClientConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / "directory").mkdir()
    assert run("--token-file", name) == USAGE
    shown = capsys.readouterr().err
    assert shown.startswith("interfiles: token file ")
    assert "\x1b" not in shown


@pytest.mark.parametrize("text", ["", "nonsense", TOKEN.encode()])
def test_the_environments_token_is_passed_on_unread(
    started: Started[ClientConfig], monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("INTERFILES_TOKEN", text)
    config = config_of(started)
    assert (config.token, config.spare_token) == (None, text)


def test_a_state_directory_is_one_daemons(started: Started[ClientConfig], capsys: pytest.CaptureFixture[str]) -> None:
    with StateLock(Path("state").absolute()):
        assert run() == REFUSED
    assert "is in use by process" in capsys.readouterr().err


def test_a_state_directory_that_is_none(
    started: Started[ClientConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "state").write_text("mine")
    assert run() != DONE
    assert "Traceback" not in capsys.readouterr().err


def test_a_group_is_given_by_name_or_number(started: Started[ClientConfig]) -> None:
    group = grp.getgrgid(os.getegid())
    assert config_of(started).socket_group is None
    assert config_of(started, "--socket-group", group.gr_name).socket_group == group.gr_gid
    assert config_of(started, "--socket-group", "4243").socket_group == 4243


@pytest.mark.parametrize("group", ["no-such-group", "-1", "4294967295", "9" * 5000, ""])
def test_an_unknown_group_is_refused(
    started: Started[ClientConfig], group: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(f"--socket-group={group}") == USAGE
    assert "there is no group" in capsys.readouterr().err


def test_a_root_that_cannot_act_for_others_is_refused_at_the_start(
    started: Started[ClientConfig], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("interfiles.storage.acting.can_act", lambda: True)
    monkeypatch.setattr("interfiles.storage.acting.set_thread_user", refuse)
    monkeypatch.setattr("interfiles.storage.acting._return_to", lambda _: None)
    assert run("--socket-group", "4243") == NOT_PERMITTED
    assert "give it CAP_SETUID and CAP_SETGID" in capsys.readouterr().err
