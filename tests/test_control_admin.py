"""The Python API of the master against one that plays a script, at a real Unix socket."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from interfiles.administration import Admin
from interfiles.errors import DaemonUnreachable, Refused, UnknownHost, UnknownToken, UsageError
from interfiles.wire import control_messages as messages
from interfiles.wire.admin_reports import (
    AuthorityListReport,
    AuthorityReport,
    EventListReport,
    EventReport,
    HostDrainReport,
    HostRemovedReport,
    ListedTokenReport,
    TokenListReport,
    TokenReport,
    TokenRevokedReport,
    TokenUseReport,
)
from tests.fake_daemon import FakeDaemon


@pytest.fixture
def fake_master(tmp_path: Path) -> Iterator[FakeDaemon]:
    with FakeDaemon(tmp_path / "master" / "master.sock", "admin").running() as daemon:
        yield daemon


async def test_tokens_are_made_and_hosts_removed(fake_master: FakeDaemon) -> None:
    token = TokenReport(token="IF1-ABC", id="ab" * 8, expires_at=1_763_806_440, uses=1, name="render-07")
    removed = HostRemovedReport(host="ab" * 16, name="render-07")
    fake_master.will(token)
    fake_master.will(removed)
    fake_master.will(UnknownHost("no host is called render-99"))
    admin = Admin(fake_master.socket.parent)
    assert await admin.make_token(ttl_s=600, uses=1, name="render-07") == token
    assert await admin.remove_host("render-07") == removed
    with pytest.raises(UnknownHost, match="no host is called render-99"):
        await admin.remove_host("render-99")
    assert [request for request, _ in fake_master.requests] == [
        messages.MakeToken(600, 1, "render-07"),
        messages.RemoveHost("render-07"),
        messages.RemoveHost("render-99"),
    ]


async def test_tokens_and_cas_are_listed_and_changed(fake_master: FakeDaemon) -> None:
    use = TokenUseReport(used_at=1_763_806_000, host="cd" * 16, name="render-01", address="10.0.0.11")
    listed = ListedTokenReport(
        id="ab" * 8,
        name="",
        state="good",
        made_at=1_763_800_000,
        expires_at=1_763_806_440,
        uses=None,
        used=1,
        joined=[use],
    )
    revoked = TokenRevokedReport(id="ab" * 8, used=1)
    ca = AuthorityReport(digest="ef" * 32, made_at=1_763_800_000, signs=True, host_count=1, hosts=["render-01"])
    cas = AuthorityListReport(authorities=[ca])
    for reply in (TokenListReport(tokens=[listed]), revoked, cas, cas, cas, UnknownToken("no token"), Refused("no CA")):
        fake_master.will(reply)
    admin = Admin(fake_master.socket.parent)
    assert await admin.tokens() == [listed]
    assert await admin.revoke_token("ab") == revoked
    assert await admin.authorities() == [ca]
    assert await admin.rotate_authority() == [ca]
    assert await admin.retire_authority() == [ca]
    with pytest.raises(UnknownToken, match="no token"):
        await admin.revoke_token("cd")
    with pytest.raises(Refused, match="no CA"):
        await admin.retire_authority()
    assert [request for request, _ in fake_master.requests] == [
        messages.ListTokens(),
        messages.RevokeToken("ab"),
        messages.ListAuthorities(),
        messages.RotateAuthority(),
        messages.RetireAuthority(),
        messages.RevokeToken("cd"),
        messages.RetireAuthority(),
    ]


async def test_events_are_asked_for_page_by_page(fake_master: FakeDaemon) -> None:
    event = EventReport(
        sequence=7, at=1_763_806_000.5, kind="gone", host="ab" * 16, host_name="a", file="", file_name="", reason="away"
    )
    page = EventListReport(log="ab" * 8, events=[event], next=7, more=False, missed=2)
    for reply in (page, page, Refused("16 commands wait")):
        fake_master.will(reply)
    admin = Admin(fake_master.socket.parent)
    assert await admin.events(last=5) == page
    assert await admin.events(log=page.log, after=page.next, wait_s=30) == page
    with pytest.raises(Refused, match="16 commands wait"):
        await admin.events(wait_s=1)
    with pytest.raises(UsageError, match="the request cannot be sent"):
        await admin.events(wait_s=31)
    assert [request for request, _ in fake_master.requests] == [
        messages.ListEvents("", 0, 5, 0.0),
        messages.ListEvents("ab" * 8, 7, 0, 30),
        messages.ListEvents("", 0, 0, 1),
    ]


async def test_no_master(tmp_path: Path) -> None:
    with pytest.raises(DaemonUnreachable) as caught:
        await Admin(tmp_path).make_token(ttl_s=1)
    assert str(caught.value) == (
        f"the master is not running (no socket at {tmp_path}/master.sock); start it with `interfiles master` on this "
        "host, or name its state directory"
    )


async def test_hosts_are_drained_and_undrained(fake_master: FakeDaemon) -> None:
    report = HostDrainReport(host="ab" * 16, name="render-07", state="draining", draining=True, to_move=None)
    for _ in range(3):
        fake_master.will(report)
    admin = Admin(fake_master.socket.parent)
    assert await admin.drain_host("render-07") == report
    assert await admin.drain_host("ab" * 16, only_look=True) == report
    assert await admin.undrain_host("render-07") == report
    assert [request for request, _ in fake_master.requests] == [
        messages.DrainHost("render-07", False),
        messages.DrainHost("ab" * 16, True),
        messages.UndrainHost("render-07"),
    ]
