"""A daemon of root that other users may command: each with own rights, and no more."""

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from interfiles.storage.open_files import OPEN_FILES
from tests.e2e.content import MIB, differences, make_file
from tests.e2e.members import ANNA, BERT, CARL, GROUP, Users, put_together, shared_daemon
from tests.e2e.processes import open_fds, poll

pytestmark = pytest.mark.root

NOT_PERMITTED, REFUSED, USAGE = 7, 9, 2
SIZE = 16 * MIB


@pytest.fixture(scope="module")
def users() -> Iterator[Users]:
    with shared_daemon() as made:
        yield made


@pytest.fixture
def quiet(users: Users) -> Iterator[Users]:
    """Check the logs after each test, and that no more stays open than content that is served may."""
    yield users
    users.proxy.allow(None)
    users.fleet.check_logs()
    poll(lambda: open_fds(users.shared) < OPEN_FILES + 64, "descriptors to be closed")


def owned_by(path: Path) -> set[int]:
    """The users that something, with all that is in it, belongs to."""
    return {p.lstat().st_uid for p in (path, *path.rglob("*"))}


def make_tree(root: Path, uid: int) -> Path:
    (root / "sub" / "deep").mkdir(parents=True)
    (root / "empty").mkdir()
    for number in range(200):
        (root / "sub" / f"file-{number:03}").write_bytes(os.urandom(number * 37))
    (root / "run").write_bytes(os.urandom(700_000))
    (root / "run").chmod(0o700)
    (root / "link").symlink_to("sub/file-003")
    for path in (root, *root.rglob("*")):
        os.chown(path, uid, uid, follow_symlinks=False)
        if path.is_file() and not path.is_symlink() and path.name != "run":
            path.chmod(0o600)
    return root


# Who may speak at all


def test_the_socket_is_the_groups_and_its_directory_too(quiet: Users) -> None:
    path = quiet.shared.socket
    for place, mode in ((path, 0o660), (path.parent, 0o710)):
        assert (stat.S_IMODE(place.stat().st_mode), place.stat().st_gid) == (mode, GROUP)


def test_members_are_answered_and_others_are_not(quiet: Users) -> None:
    for uid in (ANNA, BERT):
        for command in ("status", "ls", "hosts"):
            assert quiet.ask(uid, command).code == 0
    ran = quiet.ask(CARL, "status")
    assert ran.code == NOT_PERMITTED, ran
    quiet.shared.socket.parent.chmod(0o711)
    quiet.shared.socket.chmod(0o666)  # an administrator's mistake: the daemon looks for itself
    try:
        ran = quiet.ask(CARL, "status")
        assert ran.code == NOT_PERMITTED, ran
        assert ran.err.startswith(f"interfiles: you are not in group {GROUP}, which may command this daemon")
    finally:
        quiet.shared.socket.chmod(0o660)
        quiet.shared.socket.parent.chmod(0o710)


def test_an_unknown_group_is_told(quiet: Users) -> None:
    ran = quiet.fleet.cli(None, "client", "--socket-group", "no-such-group")
    assert ran.code == USAGE, ran
    assert ran.err == "interfiles: there is no group no-such-group on this host; name one with --socket-group.\n"


# Uploads


def test_a_member_uploads_a_private_tree_and_it_is_served_from_there(quiet: Users) -> None:
    tree = make_tree(quiet.homes[ANNA] / "tree", ANNA)
    report = quiet.ask(ANNA, "upload", "-p", "tree", json=True).done.json
    tracker = Path(report["tracker"])
    assert tracker.stat().st_uid == ANNA
    quiet.fleet.ask(quiet.source, lambda client: client.download(tracker, directory=quiet.source.home))
    assert differences(tree, quiet.source.home / "tree") == []
    quiet.fleet.stop(quiet.shared)
    quiet.fleet.start(quiet.shared)
    (quiet.source.home / "again").mkdir()
    quiet.fleet.ask(quiet.source, lambda client: client.remove(tracker, local=True))
    quiet.fleet.ask(quiet.source, lambda client: client.download(tracker, directory=quiet.source.home / "again"))
    assert differences(tree, quiet.source.home / "again" / "tree") == [], "after a restart too"


def test_a_copy_is_the_daemons_own(quiet: Users) -> None:
    draft = put_together(quiet.homes[ANNA] / "draft", ANNA)
    report = quiet.ask(ANNA, "upload", "-p", "draft", "--copy", json=True).done.json
    text = draft.read_text()
    draft.write_text("another")
    quiet.fleet.ask(quiet.source, lambda client: client.download(report["tracker"], directory=quiet.source.home))
    assert (quiet.source.home / "draft").read_text() == text
    quiet.ask(ANNA, "rm", "-p", "draft.tracker", "--local", "--yes").done  # noqa: B018 - it raises
    assert not list((quiet.shared.state / "copies").rglob("draft"))


@pytest.mark.parametrize("extra", [[], ["--copy"]])
@pytest.mark.parametrize("secret", ["/etc/shadow", "own file of root", "own directory of root", "tree with one"])
def test_what_a_member_may_not_read_is_not_read(quiet: Users, secret: str, extra: list[str]) -> None:
    match secret:
        case "own file of root":
            path = put_together(quiet.homes[ANNA] / "secret", 0)
        case "own directory of root":
            path = quiet.fleet.directory / "closed"
            path.mkdir(mode=0o700, exist_ok=True)
            put_together(path / "secret", 0, mode=0o644)
        case "tree with one":
            path = quiet.homes[ANNA] / f"mixed{len(extra)}"
            path.mkdir(exist_ok=True)
            put_together(path / "good", ANNA)
            put_together(path / "secret", 0)
        case _:
            path = Path(secret)
            if not path.exists():
                pytest.skip("no shadow file here")
    accessed = [p.stat().st_atime_ns for p in (path, *path.rglob("*"))]
    files = quiet.fleet.ask(quiet.shared, lambda client: client.status()).files
    ran = quiet.ask(ANNA, "upload", "-p", str(path), *extra)
    assert ran.code == NOT_PERMITTED, ran
    assert "Permission denied" in ran.err
    assert f"let user {ANNA} read it" in ran.err
    assert quiet.fleet.ask(quiet.shared, lambda client: client.status()).files == files
    assert [p.stat().st_atime_ns for p in (path, *path.rglob("*"))] == accessed


def test_a_path_that_is_swapped_after_the_upload_is_never_served(quiet: Users) -> None:
    """The same size, time and, on a file system of the member's choice, inode number as a file of root's."""
    home = quiet.homes[ANNA]
    (home / "dir").mkdir()
    os.chown(home / "dir", ANNA, ANNA)
    shared = put_together(home / "dir" / "shared-by-anna", ANNA)
    closed = quiet.fleet.directory / "closed-too"
    closed.mkdir(mode=0o700)
    secret = put_together(closed / "shared-by-anna", 0, text="root's own")
    os.truncate(secret, shared.stat().st_size)
    report = quiet.ask(ANNA, "upload", "-p", "dir/shared-by-anna", json=True).done.json
    os.utime(secret, ns=(shared.stat().st_atime_ns, shared.stat().st_mtime_ns))
    (home / "dir").rename(home / "aside")
    (home / "dir").symlink_to(closed)
    ran = quiet.fleet.cli(quiet.source, "download", "-p", report["tracker"], "-o", "/tmp", "--timeout", "3s")
    assert ran.code == 6, ran
    assert quiet.ask(ANNA, "stat", "-p", report["id"], json=True).done.json["local"]["doing"] == "withdrawn"
    quiet.fleet.cli(quiet.source, "rm", "-p", report["id"], "--local", "--yes").done  # noqa: B018 - it raises


# Downloads


def test_a_member_downloads_into_a_home_of_own(quiet: Users) -> None:
    content = quiet.publish("for-anna")
    report = quiet.ask(ANNA, "download", "-p", quiet.tracker(content), json=True).done.json
    got = quiet.homes[ANNA] / "for-anna"
    assert report["path"] == str(got)
    assert differences(content, got) == []
    assert (got.stat().st_uid, got.stat().st_gid) == (ANNA, ANNA)
    assert [p.name for p in quiet.homes[ANNA].iterdir() if p.name.startswith((".interfiles", "for-anna."))] == []
    quiet.ask(ANNA, "verify", "-p", quiet.tracker(content)).done  # noqa: B018 - it raises
    quiet.ask(ANNA, "rm", "-p", quiet.tracker(content), "--local", "--delete", "--yes").done  # noqa: B018
    assert not got.exists()


def test_a_tree_comes_with_the_members_owner_and_mask(quiet: Users) -> None:
    root = make_tree(quiet.source.home / "for-bert", 0)
    quiet.fleet.ask(quiet.source, lambda client: client.upload(root, tracker=f"{root}.tracker"))
    Path(f"{root}.tracker").chmod(0o644)
    os.umask(before := os.umask(0))
    quiet.ask(BERT, "download", "-p", f"{root}.tracker").done  # noqa: B018 - it raises
    got = quiet.homes[BERT] / "for-bert"
    assert differences(root, got) == []
    assert owned_by(got) == {BERT}
    assert stat.S_IMODE((got / "sub" / "file-001").stat().st_mode) == 0o644 & ~before
    assert stat.S_IMODE((got / "run").stat().st_mode) == 0o755 & ~before
    assert stat.S_IMODE((got / "empty").stat().st_mode) == 0o755 & ~before


@pytest.mark.parametrize("place", ["of root", "of root, in own home", "of another member", "symlink to root's"])
def test_where_a_member_may_not_write_nothing_is_written(quiet: Users, place: str) -> None:
    content = quiet.publish(f"never-{place.replace(' ', '-')}", MIB)
    match place:
        case "of root":
            path = quiet.fleet.directory / "roots"
            path.mkdir(exist_ok=True)
        case "of root, in own home":
            path = quiet.homes[ANNA] / "roots"
            path.mkdir(exist_ok=True)
        case "of another member":
            path = quiet.homes[BERT]
        case _:
            (quiet.fleet.directory / "roots-too").mkdir(exist_ok=True)
            path = quiet.homes[ANNA] / "link"
            path.symlink_to(quiet.fleet.directory / "roots-too")
    before = sorted(os.listdir(path))
    ran = quiet.ask(ANNA, "download", "-p", quiet.tracker(content), "-o", str(path))
    assert ran.code == NOT_PERMITTED, ran
    assert ran.err.startswith("interfiles: you may not write to ")
    assert sorted(os.listdir(path)) == before
    assert quiet.local(content)["state"] == "none"


def half_way(users: Users, uid: int, content: Path, *arguments: str, cwd: Path | None = None) -> subprocess.Popen[str]:
    """A download that has come half of its way and is held there."""
    before = users.proxy.passed.total()
    users.proxy.allow(max(users.proxy.passed.values(), default=0) + SIZE // 2)
    command = users.begin(uid, "download", "-p", users.tracker(content), *arguments, cwd=cwd)
    poll(lambda: users.proxy.passed.total() - before > SIZE // 2 - MIB, "half of the file to pass")
    return command


@pytest.mark.parametrize("kind", ["file", "tree"])
def test_a_directory_that_is_swapped_meanwhile_gets_nothing(quiet: Users, kind: str) -> None:
    if kind == "file":
        content = quiet.publish("swapped")
    else:
        content = quiet.source.home / "swapped-tree"
        content.mkdir()
        make_file(content / "inside", SIZE, seed=77)
        quiet.fleet.ask(quiet.source, lambda client: client.upload(content, tracker=f"{content}.tracker"))
    directory = quiet.homes[ANNA] / f"into-{kind}"
    directory.mkdir()
    os.chown(directory, ANNA, ANNA)
    roots = quiet.fleet.directory / f"roots-{kind}"
    roots.mkdir()
    command = half_way(quiet, ANNA, content, "-o", directory.name)
    directory.rename(directory.with_name(f"aside-{kind}"))
    directory.symlink_to(roots)
    quiet.proxy.allow(None)
    ran = quiet.fleet.finish_cli(command)
    assert ran.code == NOT_PERMITTED, ran
    assert "is not the directory any more that the download was begun in; put that one back" in ran.err
    assert os.listdir(roots) == []
    directory.unlink()
    directory.with_name(f"aside-{kind}").rename(directory)  # put back, it goes on by itself
    quiet.ask(ANNA, "wait", "-p", quiet.tracker(content)).done  # noqa: B018 - it raises
    assert differences(content, directory / content.name) == []
    assert owned_by(directory / content.name) == {ANNA}


def test_a_restart_in_the_middle_goes_on_in_the_same_place_and_no_other(quiet: Users) -> None:
    content = quiet.publish("restarted")
    directory = quiet.homes[ANNA] / "place"
    directory.mkdir()
    os.chown(directory, ANNA, ANNA)
    command = half_way(quiet, ANNA, content, "-o", "place")
    quiet.fleet.kill(quiet.shared)
    assert quiet.fleet.finish_cli(command).code == 3
    directory.rename(directory.with_name("place-aside"))
    directory.mkdir(mode=0o777)
    quiet.proxy.allow(None)
    quiet.fleet.start(quiet.shared)
    poll(lambda: "is not the directory any more" in str(quiet.local(content)["note"]), "a note")
    assert os.listdir(directory) == []
    directory.rmdir()
    directory.with_name("place-aside").rename(directory)
    quiet.ask(ANNA, "wait", "-p", quiet.tracker(content)).done  # noqa: B018 - it raises
    assert differences(content, directory / content.name) == []
    assert owned_by(directory) == {ANNA}


def test_overwriting_is_as_the_member_could(quiet: Users) -> None:
    content = quiet.publish("replaced", MIB)
    sticky = quiet.fleet.directory / "sticky"
    sticky.mkdir()
    sticky.chmod(0o1777)
    put_together(sticky / "replaced", 0, mode=0o644)
    kept = (sticky / "replaced").read_text()
    ran = quiet.ask(ANNA, "download", "-p", quiet.tracker(content), "-o", str(sticky), "--overwrite")
    assert ran.code == NOT_PERMITTED, ran
    assert (sticky / "replaced").read_text() == kept
    quiet.ask(ANNA, "rm", "-p", quiet.tracker(content), "--local", "--yes").done  # noqa: B018 - it raises
    os.chown(sticky / "replaced", ANNA, ANNA)
    quiet.ask(ANNA, "download", "-p", quiet.tracker(content), "-o", str(sticky), "--overwrite").done  # noqa: B018
    assert differences(content, sticky / "replaced") == []
    assert os.listdir(sticky) == ["replaced"]


def test_what_is_there_already_is_compared_only_as_the_member_may_read_it(quiet: Users) -> None:
    content = quiet.publish("compared", MIB)
    copy = quiet.homes[ANNA] / "compared"
    copy.write_bytes(content.read_bytes())
    copy.chmod(0o600)
    ran = quiet.ask(ANNA, "download", "-p", quiet.tracker(content))
    assert ran.code == NOT_PERMITTED, ran
    os.chown(copy, ANNA, ANNA)
    assert quiet.ask(ANNA, "download", "-p", quiet.tracker(content), json=True).done.json["bytes_from_peers"] == {}


# Whose file it is


def test_nobody_but_its_owner_and_root_commands_a_file(quiet: Users) -> None:
    content = quiet.publish("annas", MIB)
    quiet.ask(ANNA, "download", "-p", quiet.tracker(content)).done  # noqa: B018 - it raises
    for command in (["rm", "--yes"], ["rm", "--yes", "--local"], ["pause"], ["resume"], ["verify"], ["wait"]):
        ran = quiet.ask(BERT, command[0], "-p", quiet.tracker(content), *command[1:])
        assert ran.code == NOT_PERMITTED, ran
        assert "belongs to another user of this host" in ran.err
    local = quiet.ask(BERT, "stat", "-p", quiet.tracker(content), json=True).done.json["local"]
    assert (local["state"], local["path"]) == ("complete", "")
    local = quiet.ask(ANNA, "stat", "-p", quiet.tracker(content), json=True).done.json["local"]
    assert local["path"] == str(quiet.homes[ANNA] / "annas")
    # Another member gets a copy, and the first one goes on being served.
    quiet.ask(BERT, "download", "-p", quiet.tracker(content)).done  # noqa: B018 - it raises
    assert (quiet.homes[BERT] / "annas").stat().st_uid == BERT
    assert quiet.local(content)["path"] == str(quiet.homes[ANNA] / "annas")
    quiet.ask(BERT, "verify").done  # noqa: B018 - only own ones
    quiet.fleet.cli(quiet.shared, "rm", "-p", quiet.tracker(content), "--yes").done  # noqa: B018 - root
    assert (quiet.homes[ANNA] / "annas").exists()


def test_a_member_cannot_take_a_file_of_other_hosts_out_of_the_fleet(quiet: Users) -> None:
    content = quiet.publish("of-others", MIB)
    ran = quiet.ask(ANNA, "rm", "-p", quiet.tracker(content), "--yes")
    assert ran.code == NOT_PERMITTED, ran
    assert "is not on this host" in ran.err
    assert quiet.ask(ANNA, "stat", "-p", content.name, cwd=Path("/")).code == 0


def test_an_upload_of_what_another_member_shares_leaves_it_theirs(quiet: Users) -> None:
    for uid in (ANNA, BERT):
        put_together(quiet.homes[uid] / "both", uid, text="the very same")
    first = quiet.ask(ANNA, "upload", "-p", "both", json=True).done.json
    second = quiet.ask(BERT, "upload", "-p", "both", json=True).done.json
    assert second["id"] == first["id"]
    assert Path(second["tracker"]).stat().st_uid == BERT
    assert quiet.ask(BERT, "rm", "-p", "both.tracker", "--local", "--yes").code == NOT_PERMITTED
    quiet.ask(ANNA, "rm", "-p", "both.tracker", "--local", "--yes").done  # noqa: B018 - it raises


def test_a_member_with_many_connections_leaves_room_for_others(quiet: Users) -> None:
    script = (
        "import os, socket, sys, time\n"
        f"os.setgroups([{GROUP}]); os.setgid({ANNA}); os.setuid({ANNA})\n"
        "held = []\n"
        "for _ in range(200):\n"
        "    s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); held.append(s)\n"
        "print('held', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(quiet.shared.socket)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as hog:
        assert hog.stdout is not None
        assert hog.stdout.readline() == b"held\n"
        assert quiet.ask(BERT, "status").code == 0
        assert quiet.fleet.cli(quiet.shared, "status").code == 0
        hog.kill()
