"""Administration over the master's Unix socket."""

import os
import stat

import pytest
import trio
from trio.testing import MockClock

from daemons.master import admin
from interfiles.control import Admin
from interfiles.errors import (
    DaemonUnreachable,
    NotPermitted,
    PeerGone,
    RemoteProtocolError,
    UnknownHost,
    UsageError,
    from_wire,
)
from interfiles.identity.token import JoinToken
from interfiles.locations import admin_socket
from interfiles.transport.message_stream import greet
from interfiles.transport.unix import dial_unix
from interfiles.wire.control_messages import Status
from interfiles.wire.framing import encode_frame
from interfiles.wire.handshake_messages import Failure
from interfiles.wire.session import Identity
from tests.daemons.master.scripted import EPOCH, MASTER, Fleet


async def test_the_socket_is_the_users_own_and_goes_with_the_master(fleet: Fleet, autojump_clock: MockClock) -> None:
    path = admin_socket(fleet.state)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    await fleet.stop()
    assert not path.exists()
    with pytest.raises(DaemonUnreachable, match="master"):
        await fleet.admin.make_token(ttl_s=60)


async def test_a_token_carries_the_address_and_says_how_long_it_is_good(
    fleet: Fleet, autojump_clock: MockClock
) -> None:
    report = await fleet.admin.make_token(ttl_s=3600, uses=2)
    assert JoinToken.decode(report.token).masters == (f"{MASTER}:4850",)
    assert (report.expires_at, report.uses) == (int(EPOCH) + 3600, 2)


async def test_a_token_that_would_end_at_once_is_refused(fleet: Fleet, autojump_clock: MockClock) -> None:
    with pytest.raises(UsageError, match="a token good for 0 s is of no use; give it 1 s or more"):
        await fleet.admin.make_token(ttl_s=0)


async def test_removing_an_unknown_host_is_told(fleet: Fleet, autojump_clock: MockClock) -> None:
    with pytest.raises(UnknownHost, match="no host goes by 'nobody'; see `interfiles hosts`"):
        await fleet.admin.remove_host("nobody")


async def test_a_host_that_is_away_is_removed_all_the_same(fleet: Fleet, autojump_clock: MockClock) -> None:
    host, watcher = await fleet.join("host"), await fleet.join("watcher")
    host.close()
    await fleet.admin.remove_host(host.host_id)
    assert list(await watcher.hosts()) == ["watcher"]


async def test_another_user_is_refused(
    fleet: Fleet, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin, "caller_uid", lambda _: os.geteuid() + 12345)
    transport = await dial_unix(admin_socket(fleet.state))
    with pytest.raises(NotPermitted, match="only the master's own user and root may administer it"):
        await greet(transport, "admin", Identity())


async def test_what_is_no_administrators_request_ends_the_connection(fleet: Fleet, autojump_clock: MockClock) -> None:
    stream, _ = await greet(await dial_unix(admin_socket(fleet.state)), "admin", Identity())
    await stream.transport.send_all(encode_frame(Status()))
    answered = await stream.receive()
    assert isinstance(answered, Failure)
    assert isinstance(from_wire(answered.code, answered.text), RemoteProtocolError)
    stream.close()


async def test_a_host_conversation_does_not_belong_there(fleet: Fleet, autojump_clock: MockClock) -> None:
    with pytest.raises(RemoteProtocolError, match="this address is for 'admin' conversations, not 'fleet'"):
        await greet(await dial_unix(admin_socket(fleet.state)), "fleet", Identity())


async def test_whoever_asks_nothing_is_cut_off(fleet: Fleet, autojump_clock: MockClock) -> None:
    stream, _ = await greet(await dial_unix(admin_socket(fleet.state)), "admin", Identity())
    with trio.fail_after(11), pytest.raises(PeerGone):
        await stream.receive()
    stream.close()
    assert isinstance(fleet.admin, Admin)
