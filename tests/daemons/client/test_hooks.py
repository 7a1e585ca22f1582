"""A command for each finished download: when it is run, with what, and what becomes of one that does not behave."""

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from daemons.client import hook_process
from daemons.client.hook_process import ProcessRunner, hook_environment, parse_hook
from daemons.client.hooks import MAX_HOOKS, MAX_WAITING_HOOKS, HookEnd, Hooks
from daemons.client.local_file import LocalFile
from daemons.client.notice import Notice
from interfiles.errors import StorageFailed, UsageError
from interfiles.storage.records import FileRecord
from interfiles.wire import master_messages as m
from tests.conftest import LogRecords
from tests.daemons.client.certificates import identity
from tests.daemons.client.peers import Server, hand_out
from tests.daemons.client.setting import FLEET, SlowExecutor, link, until
from tests.daemons.client.world import World
from tests.storage.contents import Content, a_file

SOCKET = Path("/run/if/sock")


class FakeRunner:
    """Stands for the command: takes a while, and keeps what it was told."""

    def __init__(self, seconds: float = 0.0, end: HookEnd | StorageFailed = HookEnd(0)) -> None:
        self.told: list[Mapping[str, bytes]] = []
        self.at_once = 0
        self.most_at_once = 0
        self._seconds = seconds
        self._end = end

    async def run(self, facts: Mapping[str, bytes]) -> HookEnd:
        self.told.append(facts)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await trio.sleep(self._seconds)
        finally:
            self.at_once -= 1
        if isinstance(self._end, StorageFailed):
            raise self._end
        return self._end

    @property
    def names(self) -> list[str]:
        return [told["INTERFILES_NAME"].decode() for told in self.told]


async def hooked(world: World, runner: FakeRunner) -> FakeRunner:
    """Start the daemon again, with a hook."""
    world.daemon.hook_runner = runner
    heard = len(world.master.heartbeats)
    await world.daemon.restart()
    await until(lambda: len(world.master.heartbeats) > heard)
    return runner


async def download(world: World, content: Content) -> None:
    server = Server(world, content, "honest")
    world.network.set_link(server.ip, link(rate=1e6))
    await world.daemon.download(content.manifest, detach=True)
    await hand_out(world, server)
    await world.daemon.wait(content.manifest)


def said(records: LogRecords, event: str) -> list[dict[str, object]]:
    return [dict(record) for record in records.records if record["event"] == event]


# When it is run, in virtual time


async def test_a_finished_download_is_told_once(world: World, content: Content, autojump_clock: MockClock) -> None:
    runner = await hooked(world, FakeRunner())
    await download(world, content)
    await until(lambda: runner.told)
    (told,) = runner.told
    assert 0.5 < float(told["INTERFILES_SECONDS"]) < 2
    assert {name: value for name, value in told.items() if name != "INTERFILES_SECONDS"} == {
        "INTERFILES_EVENT": b"complete",
        "INTERFILES_KIND": b"download",
        "INTERFILES_ID": content.manifest.file_id.hex().encode(),
        "INTERFILES_NAME": b"weights.bin",
        "INTERFILES_PATH": os.fsencode(world.daemon.got / "weights.bin"),
        "INTERFILES_SIZE": str(content.manifest.size).encode(),
        "INTERFILES_HOST": identity().name.encode(),
        "INTERFILES_FLEET": FLEET.encode(),
    }
    await world.daemon.restart()
    await world.daemon.download(content.manifest)  # it is here already
    await trio.sleep(60)
    assert len(runner.told) == 1


async def test_a_copy_that_was_ordered_is_told_as_a_replica(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    runner, file_id = await hooked(world, FakeRunner()), content.manifest.file_id
    world.master.catalogue[file_id] = content.manifest
    await world.master.push(m.Order(file_id, content.manifest.size))
    await until(lambda: file_id in world.master.holdings)
    assert runner.told == []
    await hand_out(world, Server(world, content, "honest"))
    await until(lambda: runner.told)
    (told,) = runner.told
    assert (told["INTERFILES_EVENT"], told["INTERFILES_KIND"]) == (b"complete", b"replica")
    assert told["INTERFILES_ID"] == file_id.hex().encode()
    place = world.daemon.state / "replicas" / file_id.hex() / "weights.bin"
    assert told["INTERFILES_PATH"] == os.fsencode(place)
    assert place.read_bytes() == content.data
    await world.daemon.restart()
    await trio.sleep(60)
    assert len(runner.told) == 1


async def test_neither_an_upload_nor_what_is_here_already_is_told(
    world: World, content: Content, tmp_path: Path, autojump_clock: MockClock
) -> None:
    runner = await hooked(world, FakeRunner())
    await world.seed(content)
    other = tmp_path / "other"
    other.mkdir()
    await world.daemon.download(content.manifest, other)
    await trio.sleep(60)
    assert runner.told == []


async def test_one_that_is_finished_after_a_restart_is_told_then(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    runner = await hooked(world, FakeRunner())
    world.daemon.disk = SlowExecutor(lambda: 1.0)
    await world.daemon.restart()
    await world.daemon.download(content.manifest, detach=True)
    await hand_out(world, Server(world, content, "honest"))

    async def is_finishing() -> bool:
        return (await world.daemon.transfer()).state == "finishing"

    await until(is_finishing)
    await world.daemon.crash()
    assert runner.told == []
    await world.daemon.start()
    await until(lambda: runner.told)
    await world.daemon.restart()
    await trio.sleep(60)
    assert runner.names == ["weights.bin"]


async def test_two_are_run_at_once_and_the_others_in_their_order(
    world: World, tmp_path: Path, autojump_clock: MockClock
) -> None:
    runner = await hooked(world, FakeRunner(seconds=100))
    names = [f"{number}.bin" for number in range(5)]
    for number, name in enumerate(names):
        await download(world, a_file(tmp_path / "original" / name, seed=number))
    await until(lambda: len(runner.told) == 5, within_s=1000)
    assert runner.names == names
    assert runner.most_at_once == MAX_HOOKS


async def test_one_that_fails_is_one_warning_and_hinders_nothing(
    world: World, tmp_path: Path, log_records: LogRecords, autojump_clock: MockClock
) -> None:
    first, second = (a_file(tmp_path / "original" / f"{seed}.bin", seed=seed) for seed in (1, 2))
    runner = await hooked(world, FakeRunner(end=HookEnd(3, ("no room", "sorry"))))
    await download(world, first)
    await download(world, second)
    await until(lambda: len(said(log_records, "hook failed")) == 2)
    assert runner.names == ["1.bin", "2.bin"]
    assert [record["level"] for record in said(log_records, "hook failed")] == ["warning"] * 2
    assert said(log_records, "hook failed")[0]["reason"] == "exit code 3"
    assert [record["line"] for record in said(log_records, "hook says")] == ["no room", "sorry"] * 2


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (HookEnd(-9), "ended by signal 9"),
        (HookEnd(None), "it took too long and was ended"),
        (StorageFailed("/bin/x cannot be started: Permission denied"), "/bin/x cannot be started: Permission denied"),
    ],
)
async def test_how_one_failed_is_said(
    world: World,
    content: Content,
    log_records: LogRecords,
    end: HookEnd | StorageFailed,
    reason: str,
    autojump_clock: MockClock,
) -> None:
    await hooked(world, FakeRunner(end=end))
    await download(world, content)
    await until(lambda: said(log_records, "hook failed"))
    assert [record["reason"] for record in said(log_records, "hook failed")] == [reason]


async def test_a_stop_ends_those_that_run_and_says_how_many_were_not(
    world: World, tmp_path: Path, log_records: LogRecords, autojump_clock: MockClock
) -> None:
    runner = await hooked(world, FakeRunner(seconds=1e9))
    for seed in range(4):
        await download(world, a_file(tmp_path / "original" / f"{seed}.bin", seed=seed))
    await until(lambda: len(runner.told) == 2)
    await world.daemon.stop()
    assert runner.at_once == 0
    assert [record["count"] for record in said(log_records, "hooks not run")] == [2]
    await world.daemon.start()
    await trio.sleep(60)
    assert len(runner.told) == 2


async def test_the_line_is_bounded_and_who_is_in_it_keeps_the_turn(
    world: World, content: Content, log_records: LogRecords, autojump_clock: MockClock
) -> None:
    await world.seed(content)
    jobs = world.daemon.records()
    (record,) = jobs.load_all()
    jobs.close()
    file = _file(record, content)
    hooks = Hooks(FakeRunner(), identity())
    for _ in range(MAX_WAITING_HOOKS + 3):
        hooks.completed(file)
    assert len(hooks._waiting) == MAX_WAITING_HOOKS
    assert len(said(log_records, "hook not run")) == 3
    Hooks(None, identity()).completed(file)


def _file(record: FileRecord, content: Content) -> LocalFile:
    return LocalFile(record, content.manifest, Notice(), now=0.0)


# The process itself


def a_runner(script: str) -> ProcessRunner:
    return ProcessRunner((sys.executable, "-c", script, "an argument"), socket=SOCKET)


async def test_the_command_gets_facts_and_no_input_shell_or_descriptor(tmp_path: Path) -> None:
    out = tmp_path / "out"
    script = (
        "import os, sys\n"
        "facts = [os.environb[b'INTERFILES_NAME'], os.environb[b'INTERFILES_PATH'], sys.argv[1].encode()]\n"
        "facts.append(sys.stdin.buffer.read())\n"
        "more = [str(os.getpgid(0) == os.getpid()).encode(), ' '.join(sorted(os.listdir('/proc/self/fd'))).encode()]\n"
        f"open({str(out)!r}, 'wb').write(b'|'.join(facts + more))"
    )
    with open(out, "wb") as held:
        os.set_inheritable(held.fileno(), True)
        end = await a_runner(script).run({"INTERFILES_NAME": b"$(x) ; '\n", "INTERFILES_PATH": b"/\xff/-rf *"})
    assert end == HookEnd(0)
    assert out.read_bytes() == b"$(x) ; '\n|/\xff/-rf *|an argument||True|0 1 2 3"


async def test_the_last_lines_come_back_cut() -> None:
    end = await a_runner("for n in range(50): print(n)\nprint('x' * 100_000)\nprint('no end', end='')\nexit(7)").run({})
    assert end.code == 7
    assert end.last_lines == ("47", "48", "49", "x" * hook_process.MAX_HOOK_LINE_BYTES, "no end")


async def test_one_that_takes_too_long_is_told_to_end_and_then_killed_with_its_group(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(hook_process, "HOOK_TIMEOUT_S", 1.0)
    monkeypatch.setattr(hook_process, "HOOK_STOP_S", 0.3)
    child = tmp_path / "child"
    script = (
        "import os, signal, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: print('told', flush=True))\n"
        f"pid = os.fork()\nif pid: open({str(child)!r}, 'w').write(str(pid))\n"
        "while True: time.sleep(60)"
    )
    with trio.fail_after(10):
        end = await a_runner(script).run({})
    assert end.code is None
    assert "told" in "".join(end.last_lines)
    await _is_gone(int(child.read_text()))


async def test_a_stop_of_the_daemon_ends_it(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    script = f"import os, time\nopen({str(pid)!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)"
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(a_runner(script).run, {})
            await until(lambda: pid.exists() and pid.read_text())
            nursery.cancel_scope.cancel()
    await _is_gone(int(pid.read_text()))


async def _is_gone(pid: int) -> None:
    await until(lambda: not _runs(pid), within_s=5)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_what_it_leaves_in_the_background_holds_up_nobody(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    script = (
        "import os, time\nchild = os.fork()\nif not child: time.sleep(60)\n"
        f"else: open({str(pid)!r}, 'w').write(str(child))"
    )
    with trio.fail_after(10):
        assert await a_runner(script).run({}) == HookEnd(0)
    child = int(pid.read_text())
    assert _runs(child)
    os.kill(child, signal.SIGKILL)


async def test_one_that_is_gone_is_an_error_in_a_sentence() -> None:
    with pytest.raises(StorageFailed, match="/no/such cannot be started: No such file"):
        await ProcessRunner(("/no/such",), socket=SOCKET).run({})


def test_secrets_and_settings_of_the_daemon_are_not_the_hooks() -> None:
    inherited = {
        b"PATH": b"/bin",
        b"ODD\xff": b"\xff",
        b"INTERFILES_TOKEN": b"IF1-SECRET",
        b"INTERFILES_CLIENT_ARGS": b"--join IF1-SECRET",
        b"CREDENTIALS_DIRECTORY": b"/run/credentials",
        b"NOTIFY_SOCKET": b"/run/notify",
    }
    assert hook_environment(inherited, {"INTERFILES_ID": b"ab"}, SOCKET) == {
        b"PATH": b"/bin",
        b"ODD\xff": b"\xff",
        b"INTERFILES_ID": b"ab",
        b"INTERFILES_SOCKET": b"/run/if/sock",
    }


# The option


def test_a_command_is_split_as_a_shell_would_and_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "a hook"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert parse_hook(f"'{program}' -x 'two words' \"$HOME\" '' *") == (
        str(program),
        "-x",
        "two words",
        "$HOME",
        "",
        "*",
    )
    monkeypatch.chdir(tmp_path)
    assert parse_hook("'./a hook'") == (str(program),)
    assert Path(parse_hook("sh -c true")[0]).is_absolute()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "needs a command"),
        ("  ", "needs a command"),
        ("''", "needs a command"),
        ("'x", "is no command: no closing quotation"),
        ("no-such-program-anywhere x", "names no-such-program-anywhere, which is no program"),
        ("/", "names /, which is no program"),
        ("/etc/passwd", "make it executable"),
        ("sh\0", "no program"),
        ("\x1b[2J", r"\x1b[2J"),
    ],
)
def test_a_command_that_cannot_be_run_is_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_hook(text)
    assert words in str(refused.value)
    assert "\x1b" not in str(refused.value)
