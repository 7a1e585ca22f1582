"""The master as a whole: what it says, where it listens, and what keeps it from starting."""

import stat
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from daemons.master import reconciler
from daemons.master.app import CATALOGUE_NAME, RETRY_CAP_S, MasterConfig
from daemons.master.challenges import MAX_PAUSE_S
from daemons.master.handouts import Handouts
from interfiles.errors import AddressInUse, InterFilesError, Refused, StateInUse, StorageFailed
from interfiles.identity.authority import new_key
from interfiles.identity.token import JoinToken
from interfiles.placement.registry import Registry
from interfiles.transport.base import Address
from interfiles.wire import master_messages as m
from tests.conftest import LogRecords
from tests.daemons.master.scripted import MASTER, Fleet, holding, manifest


async def refusal(fleet: Fleet) -> InterFilesError:
    """Why the master does not start."""
    try:
        await fleet.start()
    except InterFilesError as e:
        return e
    raise AssertionError("it started")


async def test_the_first_start_prints_a_line_to_join_with(fleet: Fleet, autojump_clock: MockClock) -> None:
    where, how, line = fleet.said
    assert where.startswith("Master of fleet ")
    assert where.endswith(f" is listening on {MASTER}:4850 (state in {fleet.state}).")
    assert how == "Join a host with this line (good for 1 h):"
    assert line == f"  interfiles client --join {fleet.token.encode()}"


async def test_the_line_is_fresh_until_a_host_has_joined_and_then_not_printed(
    fleet: Fleet, autojump_clock: MockClock
) -> None:
    first = fleet.token
    await fleet.stop()
    await fleet.start()
    second = fleet.token
    assert second != first
    await fleet.join("render")
    await fleet.stop()
    await fleet.start()
    assert fleet.said[-1] == "1 host belongs to it; join another with a token from `interfiles token`."
    assert len({said.split(" is ")[0] for said in fleet.said if said.startswith("Master of")}) == 1


@pytest.mark.parametrize(
    ("listen", "advertise", "told"),
    [
        (Address("0.0.0.0", 4850), None, "10.0.0.254:4850"),
        (Address(MASTER, 5000), None, "10.0.0.254:5000"),
        (Address("0.0.0.0", 4850), Address("files.example.net", 0), "files.example.net:4850"),
        (Address("0.0.0.0", 4850), Address("files.example.net", 99), "files.example.net:99"),
        (Address("0.0.0.0", 4850), Address("2001:db8::5", 99), "[2001:db8::5]:99"),
    ],
)
async def test_tokens_carry_the_address_that_others_can_reach(
    fleet: Fleet, autojump_clock: MockClock, listen: Address, advertise: Address | None, told: str
) -> None:
    await fleet.stop()
    fleet.listen, fleet.advertise = listen, advertise
    await fleet.start()
    assert fleet.token.masters == (told,)
    report = await fleet.admin.make_token(ttl_s=60)
    assert JoinToken.decode(report.token).masters == (told,)


async def test_a_second_master_in_the_same_state_directory_is_refused(fleet: Fleet, autojump_clock: MockClock) -> None:
    fleet.listen = Address(MASTER, 5000)
    error = await refusal(fleet)
    assert isinstance(error, StateInUse)
    assert str(error).startswith(f"the state directory {fleet.state} is in use by process ")


async def test_an_address_that_is_taken_is_refused_and_leaves_nothing_behind(
    fleet: Fleet, autojump_clock: MockClock
) -> None:
    await fleet.stop()
    squatter = await fleet.network.host(MASTER).listen(Address(MASTER, 4850))
    error = await refusal(fleet)
    assert isinstance(error, AddressInUse)
    squatter.close()
    await fleet.start()


async def test_a_damaged_catalogue_is_told_in_a_sentence(fleet: Fleet, autojump_clock: MockClock) -> None:
    await fleet.stop()
    (fleet.state / CATALOGUE_NAME).write_bytes(b"no longer a database" * 1000)
    error = await refusal(fleet)
    assert isinstance(error, StorageFailed)
    assert str(error).endswith("put a backup in its place, or move it away to begin a new fleet")


@pytest.mark.parametrize("damage", ["missing", "another CA's", "cut short"])
async def test_a_cas_key_that_is_not_right_is_told_in_a_sentence(
    fleet: Fleet, autojump_clock: MockClock, damage: str
) -> None:
    await fleet.join("render")
    await fleet.stop()
    (path,) = (fleet.state / "ca").iterdir()
    key = path.read_text()
    path.unlink()
    if damage != "missing":
        path.write_text(new_key() if damage == "another CA's" else key[:50])
    error = await refusal(fleet)
    assert isinstance(error, StorageFailed)
    assert str(error).startswith(f"the CA's key {path} cannot be used: ")
    assert str(error).endswith("; put it back from a backup")
    path.write_text(key)
    await fleet.start()


async def test_the_cas_key_is_the_users_own(fleet: Fleet, autojump_clock: MockClock) -> None:
    (path,) = (fleet.state / "ca").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_the_fleet_and_its_ca_survive_a_crash(fleet: Fleet, autojump_clock: MockClock) -> None:
    before, known = fleet.authorities(), await fleet.join("render")
    await fleet.crash()
    await fleet.start()
    assert fleet.authorities() == before
    await fleet.rejoin(known)


async def test_a_crash_before_the_first_ca_was_kept_leaves_a_state_to_start_on(
    fleet: Fleet, autojump_clock: MockClock
) -> None:
    await fleet.stop()
    with fleet.catalogue() as catalogue:
        catalogue._database.rows("DELETE FROM authorities")  # the key was written, the row was not
    await fleet.start()
    assert len(fleet.authorities()) == 1
    await fleet.join("render")


async def test_something_in_the_way_of_the_admin_socket_is_told(fleet: Fleet, autojump_clock: MockClock) -> None:
    await fleet.stop()
    (fleet.state / "master.sock").write_text("mine")
    assert isinstance(await refusal(fleet), Refused)
    assert (fleet.state / "master.sock").read_text() == "mine"


async def test_a_master_that_was_killed_leaves_a_stale_socket_which_is_no_obstacle(
    fleet: Fleet, autojump_clock: MockClock
) -> None:
    await fleet.stop()
    with trio.socket.socket(trio.socket.AF_UNIX) as stale:
        await stale.bind(str(fleet.state / "master.sock"))
    await fleet.start()
    await fleet.admin.make_token(ttl_s=60)


@pytest.mark.parametrize(("grace_s", "heartbeat_s"), [(120, 10), (3600, 10), (30, 5), (3, 0.5)])
def test_six_heartbeats_fit_into_the_grace_time(grace_s: float, heartbeat_s: float) -> None:
    assert MasterConfig(state=Path("/nowhere"), grace_s=grace_s).heartbeat_s == heartbeat_s


async def test_a_bug_in_what_goes_on_by_itself_is_logged_and_that_goes_on(
    fleet: Fleet, error_log: LogRecords, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    client, other = await fleet.join("a"), await fleet.join("b")
    await client.publish(manifest(), replicas=2)
    with monkeypatch.context() as patched:
        patched.setattr(reconciler, "standing", broken)
        patched.setattr(Registry, "files_of", broken)
        patched.setattr(Registry, "expire", broken)
        patched.setattr(Handouts, "_push", broken)
        await client.announce(holding(manifest().file_id), replace=True)
        await other.announce(holding(bytes(32), "damaged"))
        for _ in range(int(MAX_PAUSE_S) // 10):
            await trio.sleep(10)
            await client.announce()
            await other.announce()
    assert not other.told(m.Order)
    assert {record["task"] for record in error_log.errors} == {"reconciler", "challenges", "handouts", "silence"}
    for _ in range(int(RETRY_CAP_S) // 10):
        await trio.sleep(10)
        await client.announce()
        other.beats += 1
        await other.send(m.Heartbeat(other.beats, 0, 1 << 40, False, []))
    with trio.fail_after(1):
        await other.next(m.Order)
