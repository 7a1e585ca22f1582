"""Tokens and hosts: who is let in, once, for a time, and under which name."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interfiles.errors import InvalidToken, NotAdmitted, Refused, UnknownHost
from interfiles.storage import members as members_module
from interfiles.storage.catalogue import Catalogue
from interfiles.storage.members import Host, Members, Token, unique_name

HOUR = 3600.0
TOKEN_ID = b"token-id"
SECRET_HASH = b"s" * 32


@pytest.fixture
def members(tmp_path: Path) -> Iterator[Members]:
    catalogue = Catalogue(tmp_path / "catalogue", new_fleet_id="f1ee7", now=0)
    yield catalogue.members
    catalogue.close()


def token(*, made_at: float = 0, ttl: float = HOUR, uses: int | None = None, token_id: bytes = TOKEN_ID) -> Token:
    return Token(token_id, SECRET_HASH, "spring", made_at, made_at + ttl, uses)


def newcomer(number: int, name: str = "render", *, now: float = 0) -> Host:
    return Host(f"{number:032x}", name, "rack-a", bytes([number]) * 32, now, "", now)


def join(members: Members, number: int, name: str = "render", *, now: float = 0) -> str:
    host, _ = members.enrol(TOKEN_ID, SECRET_HASH, newcomer(number, name, now=now))
    return host.name


class TestTokens:
    def test_a_token_lets_hosts_in_and_is_named_to_the_log(self, members: Members) -> None:
        members.add_token(token())
        host, used = members.enrol(TOKEN_ID, SECRET_HASH, newcomer(1))
        assert used == "spring"
        assert host == newcomer(1)
        assert members.hosts() == [newcomer(1)]

    @pytest.mark.parametrize(("token_id", "secret_hash"), [(b"another!", SECRET_HASH), (TOKEN_ID, b"x" * 32)])
    def test_an_unknown_token_and_a_wrong_secret_read_the_same(
        self, members: Members, token_id: bytes, secret_hash: bytes
    ) -> None:
        members.add_token(token())
        with pytest.raises(InvalidToken) as caught:
            members.enrol(token_id, secret_hash, newcomer(1))
        assert str(caught.value) == (
            "this token is not one of this master's; get a new one with `interfiles token` on the master's host"
        )
        assert members.hosts() == []

    def test_an_expired_token_says_how_old_it_is(self, members: Members) -> None:
        members.add_token(token(made_at=1_000))
        join(members, 1, now=1_000 + HOUR - 1)
        with pytest.raises(InvalidToken) as caught:
            join(members, 2, now=1_000 + 2 * HOUR)
        assert str(caught.value) == (
            "this token has expired (made 2 h ago, good for 1 h); "
            "get a new one with `interfiles token` on the master's host"
        )

    def test_a_token_is_good_for_as_many_hosts_as_it_says(self, members: Members) -> None:
        members.add_token(token(uses=2))
        join(members, 1)
        join(members, 2)
        with pytest.raises(InvalidToken, match=r"is used up \(it was good for 2 hosts\); get a new one"):
            join(members, 3)
        assert members.count() == 2

    def test_a_refused_join_takes_no_use(self, members: Members, monkeypatch: pytest.MonkeyPatch) -> None:
        members.add_token(token(uses=2))
        join(members, 1)
        monkeypatch.setattr(members_module, "MAX_HOSTS", 1)
        with pytest.raises(Refused, match="the fleet has 1 hosts, the most there can be"):
            join(members, 2)
        monkeypatch.undo()
        join(members, 2)

    def test_long_expired_tokens_are_dropped_with_the_next_one_made(self, members: Members) -> None:
        month = 31 * 86_400
        members.add_token(token(token_id=b"ancient!"))
        members.add_token(token(made_at=month - 2 * 86_400, token_id=b"expired!"))
        members.add_token(token(made_at=month))
        with pytest.raises(InvalidToken, match="not one of this master's"):
            members.enrol(b"ancient!", SECRET_HASH, newcomer(1, now=month))
        with pytest.raises(InvalidToken, match="has expired"):
            members.enrol(b"expired!", SECRET_HASH, newcomer(1, now=month))

    def test_secrets_are_not_shown(self) -> None:
        assert "sssss" not in repr(token())
        assert str(bytes([65]) * 5) not in repr(newcomer(65))


class TestHosts:
    @pytest.fixture(autouse=True)
    def _token(self, members: Members) -> None:
        members.add_token(token())

    def register(self, members: Members, number: int, name: str) -> str:
        credential = bytes([number]) * 32
        return members.register(f"{number:032x}", credential, name=name, zone="rack-b", address="10.0.0.1:4851").name

    def test_names_are_unique_whatever_their_case(self, members: Members) -> None:
        assert [join(members, 1), join(members, 2), join(members, 3, "Render")] == ["render", "render-2", "Render-3"]

    def test_a_host_keeps_its_numbered_name_while_the_plain_one_is_taken(self, members: Members) -> None:
        for number in (1, 2, 3):
            join(members, number)
        members.remove("render-2")
        assert self.register(members, 3, "render") == "render-3"
        members.remove("render")
        assert self.register(members, 3, "render") == "render"

    def test_a_host_may_take_another_name_zone_and_address(self, members: Members) -> None:
        join(members, 1)
        join(members, 2, "other")
        assert self.register(members, 1, "Render") == "Render"
        assert self.register(members, 1, "other") == "other-2"
        host = members.host(f"{1:032x}")
        assert (host.name, host.zone, host.address) == ("other-2", "rack-b", "10.0.0.1:4851")
        assert self.register(members, 1, "other") == "other-2"

    def test_a_wrong_credential_and_an_unknown_host_are_not_admitted(self, members: Members) -> None:
        join(members, 1)
        with pytest.raises(NotAdmitted, match="credential is not the one that the master gave it; join it anew"):
            members.register(f"{1:032x}", bytes(32), name="render", zone="", address="a:1")
        with pytest.raises(NotAdmitted, match="not of this fleet, or was removed from it; join it anew"):
            members.register(f"{2:032x}", bytes(32), name="render", zone="", address="a:1")
        assert members.host(f"{1:032x}").address == ""

    def test_a_removed_host_is_gone_and_its_name_is_free(self, members: Members) -> None:
        join(members, 1)
        assert members.remove("RENDER").host_id == f"{1:032x}"
        with pytest.raises(NotAdmitted):
            self.register(members, 1, "render")
        assert join(members, 2) == "render"

    def test_a_host_is_removed_by_id_and_by_prefix(self, members: Members) -> None:
        for number in (0xAAAA1, 0xAAAA2, 0xBBBB1):
            host = Host(f"{number:x}".ljust(32, "0"), f"host-{number:x}", "", b"c" * 32, 0, "", 0)
            members.enrol(TOKEN_ID, SECRET_HASH, host)
        with pytest.raises(UnknownHost, match=r"2 hosts have an id that begins with aaaa: aaaa10*.* \(host-aaaa1\), "):
            members.remove("aaaa")
        with pytest.raises(UnknownHost, match=r"^no host goes by 'bbb'; see `interfiles hosts`$"):
            members.remove("bbb")
        assert members.remove("bbbb").name == "host-bbbb1"
        assert members.remove("aaaa1".ljust(32, "0")).name == "host-aaaa1"

    def test_when_hosts_were_seen_is_kept_together(self, members: Members) -> None:
        join(members, 1)
        join(members, 2)
        members.touch({f"{1:032x}": 11.0, f"{2:032x}": 22.0, f"{9:032x}": 99.0})
        assert [host.last_seen_at for host in members.hosts()] == [11.0, 22.0]


@given(st.text("ab-2", min_size=1, max_size=63), st.sets(st.text("ab-2", min_size=1, max_size=63)))
def test_a_unique_name_is_free_and_fits(wanted: str, taken: set[str]) -> None:
    name = unique_name(wanted, taken.__contains__)
    assert name not in taken
    assert len(name) <= 63
    assert name == wanted or wanted in taken


def test_a_long_name_gives_way_to_its_number() -> None:
    assert unique_name("x" * 63, lambda name: name == "x" * 63) == "x" * 61 + "-2"
