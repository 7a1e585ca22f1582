"""Hosts: who belongs to the fleet, under which name, by which certificate, and who does no more."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interfiles.errors import NotAdmitted, UnknownHost
from interfiles.storage.catalogue import Catalogue
from interfiles.storage.members import REVOKED_LONGER_S, Members, unique_name
from tests.storage.fleets import AUTHORITY, HOUR, SECRET_HASH, TOKEN_ID, join, newcomer, token

MONTH = 30 * 24 * HOUR


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    opened = Catalogue(tmp_path / "catalogue", new_fleet_id="f1ee7", now=0)
    opened.tokens.add(token(ttl=10 * 365 * 24 * HOUR))
    yield opened
    opened.close()


@pytest.fixture
def members(catalogue: Catalogue) -> Members:
    return catalogue.members


def register(members: Members, number: int, name: str) -> str:
    return members.register(f"{number:032x}", name=name, zone="rack-b", address="10.0.0.1:4851").name


class TestNames:
    def test_they_are_unique_whatever_their_case(self, catalogue: Catalogue) -> None:
        names = [join(catalogue, number, name).name for number, name in enumerate(("render", "render", "Render"))]
        assert names == ["render", "render-2", "Render-3"]

    def test_a_host_keeps_its_numbered_name_while_the_plain_one_is_taken(
        self, catalogue: Catalogue, members: Members
    ) -> None:
        for number in (1, 2, 3):
            join(catalogue, number)
        members.remove("render-2", now=0)
        assert register(members, 3, "render") == "render-3"
        members.remove("render", now=0)
        assert register(members, 3, "render") == "render"

    def test_a_host_may_take_another_name_zone_and_address(self, catalogue: Catalogue, members: Members) -> None:
        join(catalogue, 1)
        join(catalogue, 2, "other")
        assert register(members, 1, "Render") == "Render"
        assert register(members, 1, "other") == "other-2"
        host = members.host(f"{1:032x}")
        assert (host.name, host.zone, host.address) == ("other-2", "rack-b", "10.0.0.1:4851")
        assert register(members, 1, "other") == "other-2"

    def test_a_host_named_by_its_token_keeps_that_name(self, catalogue: Catalogue, members: Members) -> None:
        catalogue.tokens.add(token(token_id=b"named!!!", uses=1, name="render-07"))
        join(catalogue, 1, token_id=b"named!!!")
        assert register(members, 1, "free") == "render-07"
        assert members.host(f"{1:032x}").zone == "rack-b", "its zone and address are its own"
        join(catalogue, 2)
        assert register(members, 2, "render-07") == "render-07-2", "and nobody takes it away"

    @given(st.text("ab-2", min_size=1, max_size=63), st.sets(st.text("ab-2", min_size=1, max_size=63)))
    def test_a_unique_name_is_free_and_fits(self, wanted: str, taken: set[str]) -> None:
        name = unique_name(wanted, taken.__contains__)
        assert name not in taken
        assert len(name) <= 63
        assert name == wanted or wanted in taken

    def test_a_long_name_gives_way_to_its_number(self) -> None:
        assert unique_name("x" * 63, lambda name: name == "x" * 63) == "x" * 61 + "-2"


class TestCertificates:
    def test_the_latest_one_of_each_host_is_kept(self, catalogue: Catalogue, members: Members) -> None:
        for number in (1, 2, 3):
            join(catalogue, number, f"host-{number}")
        members.certify(f"{2:032x}", authority=b"b" * 32, certified_until=2 * MONTH)
        assert members.host(f"{2:032x}") == replace(
            newcomer(2, "host-2"), authority=b"b" * 32, certified_until=2 * MONTH
        )
        assert [host.name for host in members.not_certified_by(b"b" * 32)] == ["host-1", "host-3"]
        assert [host.name for host in members.not_certified_by(AUTHORITY)] == ["host-2"]
        register(members, 2, "host-2")
        members.certify(f"{2:032x}", authority=b"b" * 32, certified_until=MONTH)
        assert members.host(f"{2:032x}").certified_until == 2 * MONTH, "the one before is still good"

    def test_a_removed_host_gets_none(self, catalogue: Catalogue, members: Members) -> None:
        join(catalogue, 1)
        members.remove("render", now=0)
        with pytest.raises(NotAdmitted, match="not of this fleet, or was removed from it; join it anew"):
            members.certify(f"{1:032x}", authority=b"b" * 32, certified_until=2 * MONTH)
        assert members.not_certified_by(b"b" * 32) == []


class TestRemoval:
    def test_a_removed_host_is_gone_and_its_name_is_free(self, catalogue: Catalogue, members: Members) -> None:
        join(catalogue, 1)
        assert members.remove("RENDER", now=0).host_id == f"{1:032x}"
        for refused in (lambda: register(members, 1, "render"), lambda: members.host(f"{1:032x}")):
            with pytest.raises(NotAdmitted, match="not of this fleet, or was removed from it; join it anew"):
                refused()
        assert join(catalogue, 2).name == "render"

    def test_a_named_host_that_was_removed_joins_anew_by_a_new_token(
        self, catalogue: Catalogue, members: Members
    ) -> None:
        for number, token_id in ((1, b"named!!1"), (2, b"named!!2")):
            catalogue.tokens.add(token(token_id=token_id, uses=1, name="render-07"))
            assert join(catalogue, number, token_id=token_id).name == "render-07"
            members.remove("render-07", now=0)
        assert members.revoked() == [f"{1:032x}", f"{2:032x}"]

    def test_it_stays_revoked_until_no_clock_takes_its_certificate(
        self, catalogue: Catalogue, members: Members, tmp_path: Path
    ) -> None:
        join(catalogue, 1, "early", certified_until=MONTH)
        join(catalogue, 2, "late", certified_until=2 * MONTH)
        join(catalogue, 3, "last", certified_until=9 * MONTH)
        members.remove("early", now=1)
        members.remove("late", now=MONTH + REVOKED_LONGER_S)
        assert members.revoked() == [f"{1:032x}", f"{2:032x}"]
        again = Catalogue(tmp_path / "catalogue", new_fleet_id="other", now=0)
        assert again.members.revoked() == [f"{1:032x}", f"{2:032x}"]
        again.close()
        members.remove("last", now=MONTH + REVOKED_LONGER_S + 1)
        assert members.revoked() == [f"{2:032x}", f"{3:032x}"]

    def test_a_host_goes_by_id_and_by_prefix(self, catalogue: Catalogue, members: Members) -> None:
        for number in (0xAAAA1, 0xAAAA2, 0xBBBB1):
            host = replace(newcomer(1, f"host-{number:x}"), host_id=f"{number:x}".ljust(32, "0"))
            members.enrol(TOKEN_ID, SECRET_HASH, host, tokens=catalogue.tokens, came_from="10.0.0.9")
        with pytest.raises(UnknownHost, match=r"2 hosts have an id that begins with aaaa: aaaa10*.* \(host-aaaa1\), "):
            members.remove("aaaa", now=0)
        with pytest.raises(UnknownHost, match=r"^no host goes by 'bbb'; see `interfiles hosts`$"):
            members.remove("bbb", now=0)
        assert members.remove("bbbb", now=0).name == "host-bbbb1"
        assert members.remove("aaaa1".ljust(32, "0"), now=0).name == "host-aaaa1"

    def test_who_is_unknown_is_not_revoked(self, members: Members) -> None:
        with pytest.raises(UnknownHost, match=r"no host goes by 'evil\\x1b\[2J'"):
            members.remove("evil\x1b[2J", now=0)
        assert members.revoked() == []


class TestDraining:
    def test_it_lasts_until_it_is_ended_whatever_the_host_and_the_master_do(
        self, catalogue: Catalogue, members: Members, tmp_path: Path
    ) -> None:
        for number in (1, 2):
            assert not join(catalogue, number, f"host-{number}").draining
        assert members.set_draining("HOST-1", True).draining
        register(members, 1, "renamed")
        members.certify(f"{1:032x}", authority=b"b" * 32, certified_until=2 * MONTH)
        members.touch({f"{1:032x}": 11.0})
        with closing(Catalogue(tmp_path / "catalogue", new_fleet_id="other", now=0)) as again:
            assert {host.name: host.draining for host in again.members.hosts()} == {"renamed": True, "host-2": False}
            assert again.members.find("renamed").draining
            assert not again.members.set_draining(f"{1:032x}", False).draining
        assert [host.draining for host in members.hosts()] == [False, False]

    def test_one_that_joins_anew_under_its_name_does_not_drain(self, catalogue: Catalogue, members: Members) -> None:
        join(catalogue, 1)
        members.set_draining("render", True)
        members.remove("render", now=0)
        assert (join(catalogue, 2).name, members.find("render").draining) == ("render", False)

    def test_an_unknown_host_cannot_be_drained(self, members: Members) -> None:
        with pytest.raises(UnknownHost, match="no host goes by 'render'"):
            members.set_draining("render", True)


def test_when_hosts_were_seen_is_kept_together(catalogue: Catalogue, members: Members) -> None:
    join(catalogue, 1)
    join(catalogue, 2)
    members.touch({f"{1:032x}": 11.0, f"{2:032x}": 22.0, f"{9:032x}": 99.0})
    assert [host.last_seen_at for host in members.hosts()] == [11.0, 22.0]
