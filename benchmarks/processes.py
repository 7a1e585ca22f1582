"""What a process used, read from outside."""

import os
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Used:
    """Of one process that ran to its end: wall and CPU seconds, its largest resident memory in bytes, what it said."""

    seconds: float
    cpu_s: float
    peak_rss: int
    out: str


def run(command: list[str], *, cwd: Path | None = None, env: dict[str, str] | None = None) -> Used:
    """Run a command to its end.

    Raises:
      subprocess.CalledProcessError: it failed.
    """
    began = time.perf_counter()
    process = subprocess.Popen(command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout as pipe:
        out = pipe.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, out)
    return Used(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss << 10, out)


def machine_cpu_s() -> float:
    """CPU seconds that all cores together have been used since the machine started (proc_stat(5))."""
    user, nice, system, _idle, _waiting, interrupts, soft, stolen = Path("/proc/stat").read_text().split()[1:9]
    return sum(map(int, (user, nice, system, interrupts, soft, stolen))) / _TICKS_PER_S


def cpu_s(pid: int) -> float:
    """CPU seconds that a running process has used up to now, with those of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICKS_PER_S


def waited_s(pid: int) -> float:
    """Seconds that a process's first thread was ready to run and had no core (proc/pid/schedstat)."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9


def peak_rss(pid: int) -> int:
    """The largest resident memory, in bytes, since its start or the last `forget_peak`."""
    found = re.search(r"^VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(found[1]) << 10 if found else 0


def forget_peak(pid: int) -> None:
    """Count `peak_rss` from now on (proc_pid_clear_refs(5))."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
