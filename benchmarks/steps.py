"""What each step on the path of a byte costs by itself, in one process: CPU seconds per GB, medians of several passes.

    python -m benchmarks.steps [--on DIRECTORY] [--passes 7] [--json FILE]

The steps are those of `benchmarks.bare_loop` and of the daemons, 256 KiB at a time, a block of 1 MiB being hashed and
written at once. What is missing between their sum and what a transfer costs is Python, the event loop, and waking up.
"""

import argparse
import json
import os
import socket
import ssl
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import blake3

from benchmarks.bare_loop import BLOCK_BYTES, two_members
from benchmarks.pair import machine
from interfiles.identity import contexts

CHUNK: Final = 256 << 10
BLOCKS: Final = 256
GB: Final = 1e9


class Ends:
    """The two ends of a TLS connection in memory."""

    def __init__(self) -> None:
        one, other = two_members()
        bios = [ssl.MemoryBIO() for _ in range(4)]
        self.sent, self.came = bios[1], bios[2]
        self.sender = contexts.accepting(one).wrap_bio(bios[0], self.sent, server_side=True)
        self.receiver = contexts.dialling(other).wrap_bio(self.came, bios[3])
        for _ in range(4):
            for end, out, to in ((self.receiver, bios[3], bios[0]), (self.sender, self.sent, self.came)):
                try:
                    end.do_handshake()
                except ssl.SSLWantReadError:
                    pass
                to.write(out.read())


def loopback() -> tuple[socket.socket, socket.socket]:
    """Two connected TCP sockets."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        return one, listener.accept()[0]


def transmit(outgoing: socket.socket, incoming: socket.socket, data: bytes, into: memoryview) -> None:
    """Send and receive, as much at once as the socket takes without waiting."""
    for at in range(0, len(data), CHUNK // 4):
        part = data[at : at + CHUNK // 4]
        outgoing.sendall(part)
        incoming.recv_into(into[at:], len(part), socket.MSG_WAITALL)


def decrypt(end: ssl.SSLObject, into: memoryview) -> None:
    """Read what there is, a record at a time."""
    got = 0
    while got < len(into):
        count: object = end.read(len(into) - got, into[got:])
        assert isinstance(count, int)
        got += count


def one_pass(source: int, target: int) -> dict[str, float]:
    """Take every block through all steps; seconds by step."""
    ends, (outgoing, incoming) = Ends(), loopback()
    plain, block, cipher = (memoryview(bytearray(size)) for size in (CHUNK, BLOCK_BYTES, 2 * CHUNK))
    spent: dict[str, float] = {}

    @contextmanager
    def timed(step: str) -> Iterator[None]:
        began = time.thread_time()
        yield
        spent[step] = spent.get(step, 0.0) + time.thread_time() - began

    for offset in range(0, BLOCKS * BLOCK_BYTES, BLOCK_BYTES):
        for at in range(0, BLOCK_BYTES, CHUNK):
            with timed("read from the page cache"):
                os.preadv(source, [plain], offset + at)
            with timed("encrypt"):
                ends.sender.write(plain)
            with timed("take the ciphertext"):
                data = ends.sent.read()
            with timed("send and receive"):
                transmit(outgoing, incoming, data, cipher)
            with timed("give the ciphertext"):
                ends.came.write(cipher[: len(data)])
            with timed("decrypt"):
                decrypt(ends.receiver, block[at : at + CHUNK])
        with timed("hash"):
            blake3.blake3(block).digest()
        with timed("write to reserved space"):
            os.pwrite(target, block, offset)
    outgoing.close()
    incoming.close()
    return spent


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description="What each step on the path of a byte costs by itself.")
    parser.add_argument("--on", type=Path, default=None, metavar="DIRECTORY")
    parser.add_argument("--passes", type=int, default=7)
    parser.add_argument("--json", type=Path, metavar="FILE")
    asked = parser.parse_args()
    size, passes = BLOCKS * BLOCK_BYTES, []
    with tempfile.TemporaryDirectory(prefix="interfiles-benchmark-", dir=asked.on) as directory:
        source = os.open(Path(directory) / "source", os.O_RDWR | os.O_CREAT)
        for _ in range(BLOCKS):
            os.write(source, os.urandom(BLOCK_BYTES))
        for number in range(asked.passes + 1):
            target = os.open(Path(directory) / f"target-{number}", os.O_RDWR | os.O_CREAT)
            began = time.thread_time()
            os.posix_fallocate(target, 0, size)
            reserved = time.thread_time() - began
            passes.append({"reserve space": reserved, **one_pass(source, target)})
            os.close(target)
        os.close(source)
    found = {step: round(statistics.median(p[step] for p in passes[1:]) / (size / GB), 3) for step in passes[0]}
    found["together"] = round(sum(found.values()), 3)
    for step, seconds in found.items():
        print(f"{step:26}{seconds:7.3f}")
    if asked.json:
        asked.json.write_text(json.dumps({"cpu_s_per_gb": found, "machine": machine()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
