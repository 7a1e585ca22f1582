"""Where the time of a transfer goes.

    python -m benchmarks.flames [--size GIB] [--on DIRECTORY] [--into DIRECTORY]

One client fetches a file from another, both on this machine, while py-spy samples both daemons 200 times a second, in C
code too. Leaves seed.svg and client.svg, a flame graph each, in `--into` (by default this directory). Needs py-spy, and
root or the right to trace processes.
"""

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from benchmarks.contenders import InterFiles
from tests.e2e.content import make_file

ATTACHED_S: Final = 2.0
LONGEST_S: Final = 600


def main() -> None:
    """Run it once."""
    parser = argparse.ArgumentParser(description="Where the time of a transfer goes.")
    parser.add_argument("--size", type=float, default=4.0, metavar="GIB")
    parser.add_argument(
        "--on", type=Path, default=None, metavar="DIRECTORY", help="where all files are [default: /tmp]"
    )
    parser.add_argument("--into", type=Path, default=Path(), metavar="DIRECTORY")
    asked = parser.parse_args()
    asked.into.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="interfiles-benchmark-", dir=asked.on) as directory:
        scratch = Path(directory)
        (scratch / "source").mkdir()
        (scratch / "out").mkdir()
        file = make_file(scratch / "source" / "file.bin", int(asked.size * (1 << 30)))
        with InterFiles(file, scratch) as contender:
            samplers = []
            for name, pid in zip(("seed", "client"), contender.daemons, strict=True):
                command = [str(Path(sys.executable).with_name("py-spy")), "record", "--native", "--rate", "200"]
                command += [
                    "--duration",
                    str(LONGEST_S),
                    "--output",
                    str(asked.into / f"{name}.svg"),
                    "--pid",
                    str(pid),
                ]
                samplers.append(subprocess.Popen(command))
            time.sleep(ATTACHED_S)
            sample = contender.fetch(scratch / "out")
            for sampler in samplers:
                sampler.send_signal(signal.SIGINT)
            for sampler in samplers:
                sampler.wait()
    print(
        f"{asked.size * 1.073741824 / sample.seconds:.3f} GB/s while sampled; see {asked.into}/seed.svg and client.svg"
    )


if __name__ == "__main__":
    main()
