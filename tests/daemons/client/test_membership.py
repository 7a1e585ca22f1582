"""When a certificate is renewed, and which answers of the master's are taken."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from daemons.client.fleet_network import FleetNetwork
from daemons.client.membership import ROTATION_SPREAD_S, Membership, credentials_of
from interfiles.errors import NoSpace, RemoteProtocolError
from interfiles.identity.authority import Authority, new_key, public_key_of, read_certificate, read_request
from interfiles.identity.subject import Subject
from interfiles.storage.executor import InlineExecutor
from interfiles.storage.jobs import JobStore
from interfiles.storage.records import Identity
from interfiles.transport.memory import MemoryNetwork
from interfiles.transport.reach import Reach
from interfiles.units import DAY
from interfiles.wire import master_messages as m
from tests.conftest import LogRecords
from tests.daemons.client.certificates import CA, MASTER_SUBJECT, OTHER_CA, host_subject, identity
from tests.daemons.client.setting import DAEMON_IP, EPOCH, FLEET, MASTER, id_of

NEWER = Authority.make(FLEET, now=EPOCH)
CROSS = CA.cross_sign(NEWER, now=EPOCH)
ME = host_subject("tested")


class Member:
    """A host's membership, what it keeps on disk, and its wall clock."""

    def __init__(self, directory: Path, *, seed: int = 1, who: Identity | None = None, now: float = EPOCH) -> None:
        self.now = now
        who = who or identity()
        self.jobs = JobStore(directory / "client.db")
        self.jobs.save_identity(who)
        network = MemoryNetwork(random.Random(1)).host(DAEMON_IP)
        self.network = FleetNetwork(
            network, credentials_of(who), Reach([MASTER]), wall_clock=lambda: self.now, revoked=[]
        )
        self.membership = Membership(
            who, self.network, self.jobs, InlineExecutor(), rng=random.Random(seed), wall_clock=lambda: self.now
        )

    @property
    def due_in_s(self) -> float:
        return self.membership.renewal_due_in_s

    def is_all(self, expected: Identity) -> bool:
        """Whether memory, disk and network agree on this."""
        in_use = self.network.credentials
        return (
            self.membership.identity == expected
            and self.jobs.load_identity() == expected
            and (in_use.chain, in_use.key, in_use.authorities) == (expected.chain, expected.key, expected.authorities)
        )


def full(*_: object) -> None:
    raise NoSpace("the client's database cannot be written: its disk is full; free some room")


def sign(request: bytes, subject: Subject = ME, *, authority: Authority = CA, now: float = EPOCH) -> str:
    return authority.issue(read_request(request), subject, now=now)


# When


def test_certificates_are_renewed_at_a_random_point_between_half_and_four_fifths_of_their_life(tmp_path: Path) -> None:
    due = [Member(tmp_path, seed=seed).due_in_s / DAY for seed in range(200)]
    assert 14.9 < min(due) < 15.5
    assert 23.5 < max(due) < 24.1
    assert sum(due) / len(due) == pytest.approx(19.5, abs=0.5)


@pytest.mark.parametrize("days", [24.5, 29.9, 31, 400])
def test_one_that_is_older_is_due_at_once(tmp_path: Path, days: float) -> None:
    assert Member(tmp_path, now=EPOCH + days * DAY).due_in_s <= 0


def test_hosts_renew_within_a_minute_and_not_all_at_once_when_another_ca_signs(tmp_path: Path) -> None:
    who = replace(identity(), authorities=(NEWER.certificate, CA.certificate))
    due = [Member(tmp_path, seed=seed, who=who).due_in_s for seed in range(200)]
    assert 0 <= min(due) < 2
    assert ROTATION_SPREAD_S - 2 < max(due) <= ROTATION_SPREAD_S
    assert sum(due) / len(due) == pytest.approx(ROTATION_SPREAD_S / 2, abs=4)


async def test_who_is_told_of_a_newer_ca_renews_within_a_minute(tmp_path: Path) -> None:
    for days in (0, 18, 29):
        member = Member(tmp_path, now=EPOCH + days * DAY)
        await member.membership.on_authorities([NEWER.certificate, CA.certificate], at_once=False)
        assert member.due_in_s <= ROTATION_SPREAD_S


# What is taken


async def test_a_renewed_certificate_is_on_disk_and_in_use(tmp_path: Path) -> None:
    member = Member(tmp_path, now=EPOCH + 20 * DAY)
    before = member.membership.identity
    chain = sign(member.membership.renewal_request(), now=member.now)
    await member.membership.on_renewed(m.Renewed(1, chain, [CA.certificate]))
    made = member.membership.identity
    assert member.is_all(made)
    assert made == replace(before, key=made.key, chain=chain)
    assert made.key != before.key, "each has a key of its own"
    assert member.network.certified.not_after == EPOCH + 50 * DAY
    assert 14.9 * DAY < member.due_in_s < 24.1 * DAY


async def test_one_by_a_newer_ca_comes_with_that(tmp_path: Path) -> None:
    member = Member(tmp_path)
    chain = sign(member.membership.renewal_request(), authority=NEWER) + CROSS
    await member.membership.on_renewed(m.Renewed(1, chain, [NEWER.certificate, CA.certificate]))
    assert member.membership.identity.authorities == (NEWER.certificate, CA.certificate)
    assert member.is_all(member.membership.identity)
    assert member.due_in_s > 14 * DAY


BAD_RENEWALS: dict[str, Callable[[bytes], m.Renewed]] = {
    "no certificate": lambda _: m.Renewed(1, "certificate", [CA.certificate]),
    "not text": lambda _: m.Renewed(1, "\u202e\ud7ff", [CA.certificate]),
    "another host's": lambda request: m.Renewed(1, sign(request, host_subject("other")), [CA.certificate]),
    "a master's": lambda request: m.Renewed(1, sign(request, MASTER_SUBJECT), [CA.certificate]),
    "another fleet's": lambda request: m.Renewed(
        1, sign(request, Subject("ab" * 16, "host", id_of("tested"))), [CA.certificate]
    ),
    "for another key": lambda _: m.Renewed(1, CA.issue(public_key_of(new_key()), ME, now=EPOCH), [CA.certificate]),
    "by another CA": lambda request: m.Renewed(1, sign(request, authority=OTHER_CA), [CA.certificate]),
    "a CA's": lambda _: m.Renewed(1, CA.certificate, [CA.certificate]),
    "with no CA": lambda request: m.Renewed(1, sign(request), ["authority"]),
    "with a CA that is not text": lambda request: m.Renewed(1, sign(request), ["\u202e"]),
    "with a damaged CA": lambda request: m.Renewed(1, sign(request), [CA.certificate.replace("A", "B", 5)]),
}


@pytest.mark.parametrize("answer", BAD_RENEWALS.values(), ids=BAD_RENEWALS)
async def test_a_bad_renewal_keeps_the_old_certificate(tmp_path: Path, answer: Callable[[bytes], m.Renewed]) -> None:
    member = Member(tmp_path)
    before, due = member.membership.identity, member.due_in_s
    with pytest.raises(RemoteProtocolError, match="the master sent a certificate that is not good"):
        await member.membership.on_renewed(answer(member.membership.renewal_request()))
    assert member.is_all(before)
    assert member.due_in_s == due


async def test_an_answer_to_a_request_that_was_given_up_is_not_taken(tmp_path: Path) -> None:
    member = Member(tmp_path)
    before = member.membership.identity
    late = sign(member.membership.renewal_request())
    member.membership.renewal_request()
    with pytest.raises(RemoteProtocolError):
        await member.membership.on_renewed(m.Renewed(1, late, [CA.certificate]))
    assert member.is_all(before)


async def test_a_renewal_that_a_full_disk_does_not_take_is_used_and_stored_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = Member(tmp_path)
    before = member.membership.identity
    chain = sign(member.membership.renewal_request())
    with monkeypatch.context() as patched:
        patched.setattr(JobStore, "_change", full)
        await member.membership.on_renewed(m.Renewed(1, chain, [CA.certificate]))
    assert member.network.credentials.chain == member.membership.identity.chain == chain
    assert member.jobs.load_identity() == before, "the old one, to renew with after a restart"
    assert not member.membership.is_stored
    await member.membership.on_admitted(removed="")
    assert member.is_all(member.membership.identity)
    assert member.membership.is_stored


# The CAs that the master names


async def test_cas_are_kept_and_used(tmp_path: Path) -> None:
    member = Member(tmp_path)
    await member.membership.on_authorities([NEWER.certificate, CA.certificate], at_once=False)
    assert member.membership.identity == replace(identity(), authorities=(NEWER.certificate, CA.certificate))
    assert member.is_all(member.membership.identity)
    assert 0 <= member.due_in_s <= ROTATION_SPREAD_S


async def test_the_same_cas_again_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    member = Member(tmp_path)
    due = member.due_in_s
    monkeypatch.setattr(member.jobs, "save_identity", lambda _: pytest.fail("there is nothing to write"))
    await member.membership.on_authorities([CA.certificate], at_once=False)
    assert member.due_in_s == due


async def test_a_ca_that_retired_leaves_the_host_its_certificate_to_renew_it_with(tmp_path: Path) -> None:
    member = Member(tmp_path)
    await member.membership.on_authorities([NEWER.certificate], at_once=False)
    assert member.is_all(replace(identity(), authorities=(NEWER.certificate,)))
    assert member.due_in_s <= ROTATION_SPREAD_S
    chain = sign(member.membership.renewal_request(), authority=NEWER) + CROSS
    await member.membership.on_renewed(m.Renewed(1, chain, [NEWER.certificate]))
    assert read_certificate(member.network.credentials.chain).subject == ME


@pytest.mark.parametrize("bad", ["authority", "\u202e\ud7ff", CA.certificate.replace("A", "B", 5)])
@pytest.mark.parametrize("place", [0, 1])
async def test_bad_cas_keep_the_old_ones(tmp_path: Path, bad: str, place: int) -> None:
    member = Member(tmp_path)
    told = [CA.certificate]
    told.insert(place, bad)
    with pytest.raises(RemoteProtocolError, match="the master sent a certificate that is not good"):
        await member.membership.on_authorities(told, at_once=False)
    assert member.is_all(identity())


# Who was removed


async def test_who_was_removed_is_kept(tmp_path: Path) -> None:
    member = Member(tmp_path)
    await member.membership.on_revoked(m.Revoked(True, [id_of("a"), id_of("b")]))
    await member.membership.on_revoked(m.Revoked(False, [id_of("b"), id_of("c")]))
    assert member.jobs.load_revoked() == {id_of("a"), id_of("b"), id_of("c")}
    await member.membership.on_revoked(m.Revoked(True, [id_of("d")]))
    assert member.jobs.load_revoked() == {id_of("d")}


async def test_who_was_removed_is_refused_though_the_disk_is_full_and_kept_with_the_next_who_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log_records: LogRecords
) -> None:
    member = Member(tmp_path)
    await member.membership.on_revoked(m.Revoked(True, [id_of("a"), id_of("b")]))
    with monkeypatch.context() as patched:
        patched.setattr(JobStore, "_change", full)
        await member.membership.on_revoked(m.Revoked(True, [id_of("b"), id_of("c")]))
        await member.membership.on_revoked(m.Revoked(False, [id_of("d")]))
        assert member.network.revoked == {id_of("b"), id_of("c"), id_of("d")}
        assert member.jobs.load_revoked() == {id_of("a"), id_of("b")}
    assert [record["what"] for record in log_records.records if record["event"] == "not stored"] == ["revoked"]
    await member.membership.on_revoked(m.Revoked(False, [id_of("e")]))
    assert member.jobs.load_revoked() == member.network.revoked == {id_of(name) for name in "bcde"}


async def test_that_this_host_was_removed_is_kept_until_the_master_knows_it_again(tmp_path: Path) -> None:
    member = Member(tmp_path)
    await member.membership.on_admitted(removed="this host was removed")
    assert member.is_all(replace(identity(), removed="this host was removed"))
    await member.membership.on_admitted(removed="")
    assert member.is_all(identity())
