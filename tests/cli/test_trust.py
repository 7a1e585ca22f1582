"""token and ca: what they ask, print and end with."""

import json
import sys
from pathlib import Path

import msgspec
import pytest

from interfiles.errors import UnknownToken
from interfiles.wire import control_messages as messages
from interfiles.wire.admin_reports import (
    AuthorityListReport,
    AuthorityReport,
    ListedTokenReport,
    TokenListReport,
    TokenReport,
    TokenRevokedReport,
    TokenUseReport,
)
from tests.cli.conftest import Command
from tests.fake_daemon import FakeDaemon

TOKEN = TokenReport(token="IF1-GEZDGNBVGY3TQOJQ", id="3f2a" * 4, expires_at=1_763_806_440, uses=2, name="")
USE = TokenUseReport(used_at=1_763_806_000, host="ab" * 16, name="render-07", address="10.0.0.17")
LISTED = ListedTokenReport(
    id="3f2a" * 4,
    name="",
    state="good",
    made_at=1_763_805_000,
    expires_at=1_763_806_440,
    uses=2,
    used=1,
    joined=[USE],
)
OLDER = AuthorityReport(digest="ab" * 32, made_at=1_763_000_000, signs=False, host_count=1, hosts=["render-09"])
NEWER = AuthorityReport(digest="cd" * 32, made_at=1_763_806_000, signs=True, host_count=2, hosts=["a", "b"])


def test_token_prints_the_token_alone(interfiles: Command, master: FakeDaemon) -> None:
    master.will(TOKEN)
    outcome = interfiles("token", "--state", master.socket.parent)
    assert (outcome.code, outcome.out, outcome.err) == (0, "IF1-GEZDGNBVGY3TQOJQ\n", "")
    assert master.request == messages.MakeToken(3600.0, None, "")


def test_token_as_json(interfiles: Command, master: FakeDaemon) -> None:
    master.will(TOKEN)
    outcome = interfiles("token", "--ttl", "30d", "--uses", "2", "--json", "--state", master.socket.parent)
    assert json.loads(outcome.out) == {
        "token": "IF1-GEZDGNBVGY3TQOJQ",
        "id": "3f2a" * 4,
        "expires_at": 1_763_806_440,
        "uses": 2,
        "name": "",
    }
    assert master.request == messages.MakeToken(30 * 86400.0, 2, "")


def test_token_tells_a_person_how_to_join(
    interfiles: Command, master: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    master.will(TOKEN)
    outcome = interfiles("token", "--ttl", "10m", "--state", master.socket.parent)
    assert outcome.out == "IF1-GEZDGNBVGY3TQOJQ\n"
    assert outcome.err == "Good for 10 min and 2 hosts; on each: interfiles client --join TOKEN\n"


def test_token_without_a_master(interfiles: Command, tmp_path: Path) -> None:
    outcome = interfiles("token", "--state", tmp_path)
    assert outcome.code == 3
    assert outcome.err.startswith(f"interfiles: the master is not running (no socket at {tmp_path}/master.sock); ")


def test_token_for_one_host_by_its_name(
    interfiles: Command, master: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    master.will(msgspec.structs.replace(TOKEN, uses=1, name="render-07"))
    outcome = interfiles("token", "--name", "render-07", "--state", master.socket.parent)
    assert outcome.err == "Good for 1 h and the host render-07; on each: interfiles client --join TOKEN\n"
    assert master.request == messages.MakeToken(3600.0, None, "render-07")


@pytest.mark.parametrize("name", ["a b", "-x", "x" * 64])
def test_token_for_what_can_be_no_hosts_name(interfiles: Command, master: FakeDaemon, name: str) -> None:
    outcome = interfiles("token", f"--name={name}", "--state", master.socket.parent)
    assert outcome.code == 2
    assert outcome.err == (f"interfiles: name '{name}' may have letters, digits, '.', '_' and '-' only, at most 63.\n")


def test_token_list_shows_who_joined_by_which(interfiles: Command, master: FakeDaemon) -> None:
    master.will(TokenListReport(tokens=[LISTED]))
    lines = interfiles("token", "list", "--state", master.socket.parent).out.splitlines()
    assert lines[0].split() == ["TOKEN", "STATE", "USED", "MADE", "EXPIRES", "FOR"]
    assert lines[1].split()[:5] == ["3f2a" * 4, "good", "1", "of", "2"]
    assert lines[3].split()[0] == "render-07"
    assert "10.0.0.17" in lines[3]
    assert master.request == messages.ListTokens()


def test_token_list_as_json_is_one_array(interfiles: Command, master: FakeDaemon) -> None:
    master.will(TokenListReport(tokens=[LISTED]))
    (found,) = json.loads(interfiles("token", "--state", str(master.socket.parent), "list", "--json").out)
    assert (found["state"], found["joined"][0]["name"]) == ("good", "render-07")


def test_token_list_of_none(interfiles: Command, master: FakeDaemon) -> None:
    master.will(TokenListReport(tokens=[]))
    outcome = interfiles("token", "list", "--state", master.socket.parent)
    assert (outcome.code, outcome.out) == (0, "")
    assert outcome.err == "There are no tokens; `interfiles token` makes one.\n"


def test_token_revoke(interfiles: Command, master: FakeDaemon) -> None:
    master.will(TokenRevokedReport(id="3f2a" * 4, used=1))
    outcome = interfiles("token", "revoke", "3f2a", "--state", master.socket.parent)
    assert outcome.out == f"Revoked token {'3f2a' * 4}; 1 host has joined by it.\n"
    assert master.request == messages.RevokeToken("3f2a")


def test_token_revoke_of_an_unknown_token(interfiles: Command, master: FakeDaemon) -> None:
    master.will(UnknownToken("no token has an id that begins with 'zz'"))
    outcome = interfiles("token", "revoke", "zz", "--state", master.socket.parent)
    assert (outcome.code, outcome.err) == (4, "interfiles: no token has an id that begins with 'zz'.\n")


@pytest.mark.parametrize(
    ("words", "request_"),
    [
        (["ca"], messages.ListAuthorities()),
        (["ca", "rotate"], messages.RotateAuthority()),
        (["ca", "retire"], messages.RetireAuthority()),
    ],
    ids=["show", "rotate", "retire"],
)
def test_ca_shows_who_still_needs_the_older_one(
    interfiles: Command, master: FakeDaemon, words: list[str], request_: object
) -> None:
    master.will(AuthorityListReport(authorities=[NEWER, OLDER]))
    out = interfiles(*words, "--state", master.socket.parent).out
    assert out.splitlines()[-1] == f"Hosts that still need {'ab' * 8}: render-09"
    assert master.request == request_


def test_ca_as_json_is_one_array(interfiles: Command, master: FakeDaemon) -> None:
    master.will(AuthorityListReport(authorities=[NEWER, OLDER]))
    found = json.loads(interfiles("ca", "--json", "--state", master.socket.parent).out)
    assert [authority["signs"] for authority in found] == [True, False]
