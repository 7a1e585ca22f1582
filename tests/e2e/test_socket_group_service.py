"""A daemon that is a service's own, not root's, and has a socket for a group: what needs both sides' rights."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.content import MIB, differences
from tests.e2e.members import ANNA, BERT, GROUP, SERVICE, Users, put_together, shared_daemon

pytestmark = pytest.mark.root

NOT_PERMITTED, REFUSED = 7, 9


@pytest.fixture(scope="module")
def users() -> Iterator[Users]:
    with shared_daemon(SERVICE) as made:
        yield made


@pytest.fixture(autouse=True)
def quiet(users: Users) -> Iterator[None]:
    yield
    users.fleet.check_logs()


@pytest.fixture(scope="module")
def pool(users: Users) -> Path:
    """Where service and members may write."""
    made = users.fleet.directory / "pool"
    made.mkdir()
    os.chown(made, SERVICE, GROUP)
    made.chmod(0o2775)
    return made


def test_a_member_is_answered_and_the_socket_is_the_groups(users: Users) -> None:
    assert users.ask(ANNA, "status").code == 0
    found = users.shared.socket.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (SERVICE, GROUP, 0o660)


def test_a_socket_that_others_could_have_put_there_is_not_spoken_to(users: Users) -> None:
    users.shared.socket.parent.chmod(0o730)
    try:
        ran = users.ask(ANNA, "status")
        assert ran.code == NOT_PERMITTED, ran
        assert "belongs to user" in ran.err
    finally:
        users.shared.socket.parent.chmod(0o710)


def test_what_the_service_may_not_read_in_place_can_be_copied(users: Users) -> None:
    put_together(users.homes[ANNA] / "private", ANNA)
    ran = users.ask(ANNA, "upload", "-p", "private")
    assert ran.code == NOT_PERMITTED, ran
    assert "the daemon may not read it there; --copy serves a copy" in ran.err
    report = users.ask(ANNA, "upload", "-p", "private", "--copy", json=True).done.json
    users.fleet.ask(users.source, lambda client: client.download(report["tracker"], directory=users.source.home))
    assert differences(users.homes[ANNA] / "private", users.source.home / "private") == []


def test_what_the_service_may_read_and_a_member_not_is_not_shared(users: Users) -> None:
    secret = put_together(users.fleet.directory / "secret", SERVICE)
    for extra in ([], ["--copy"]):
        ran = users.ask(ANNA, "upload", "-p", str(secret), *extra)
        assert ran.code == NOT_PERMITTED, ran


def test_a_download_needs_the_rights_of_both(users: Users, pool: Path) -> None:
    content = users.publish("pooled", MIB)
    closed = users.fleet.directory / "services-own"
    closed.mkdir(mode=0o755)
    os.chown(closed, SERVICE, SERVICE)
    for place, says in ((closed, "you may not write to"), (users.homes[ANNA], "")):
        ran = users.ask(ANNA, "download", "-p", users.tracker(content), "-o", str(place))
        assert ran.code == NOT_PERMITTED, ran
        assert says in ran.err
        assert not (place / "pooled").exists()
    users.ask(ANNA, "download", "-p", users.tracker(content), "-o", str(pool)).done  # noqa: B018 - it raises
    assert differences(content, pool / "pooled") == []
    assert (pool / "pooled").stat().st_uid == SERVICE
    assert sorted(os.listdir(pool)) == ["pooled"]


def test_the_service_replaces_nothing_for_a_member(users: Users, pool: Path) -> None:
    content = users.publish("kept", MIB)
    put_together(pool / "kept", SERVICE, mode=0o644)
    for extra, code in ((["--overwrite"], NOT_PERMITTED), ([], REFUSED)):
        ran = users.ask(ANNA, "download", "-p", users.tracker(content), "-o", str(pool), *extra)
        assert ran.code == code, ran
    assert (pool / "kept").read_text().startswith("private")


def test_a_place_that_is_swapped_is_not_deleted_from(users: Users, pool: Path) -> None:
    content = users.publish("deleted", MIB)
    inner = pool / "inner"
    inner.mkdir()
    os.chown(inner, ANNA, GROUP)
    inner.chmod(0o2775)
    users.ask(ANNA, "download", "-p", users.tracker(content), "-o", str(inner)).done  # noqa: B018 - it raises
    other = users.fleet.directory / "other"
    other.mkdir()
    os.chown(other, SERVICE, SERVICE)
    put_together(other / "deleted", SERVICE)
    inner.rename(pool / "aside")
    inner.symlink_to(other)
    ran = users.ask(ANNA, "rm", "-p", users.tracker(content), "--local", "--delete", "--yes")
    assert ran.code == NOT_PERMITTED, ran
    assert (other / "deleted").exists()
    assert users.ask(BERT, "status").code == 0
