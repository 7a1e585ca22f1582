"""The yardstick: what this machine and Python can do with no daemon around it.

    python -m benchmarks.bare_loop FILE OUT [--plain] [--chunk KIB] [--fresh] [--thread] [--reserve]

Two processes on loopback, one connection: mutual TLS 1.3 by an `ssl.SSLObject` between memory BIOs which large
non-blocking reads fill, on the trio loop; or plain, with sendfile. The receiver asks for blocks of 1 MiB, eight in
flight, hashes each with BLAKE3 and writes it at its place. An OUT that exists is overwritten: its pages are there
already. Prints one line of JSON: seconds from the first request to the last byte written, and the CPU seconds of both.

What it could do otherwise, for `benchmarks.variants`: `--chunk`, how much ciphertext is read and written at once;
`--fresh`, a new buffer for each read of file or socket in place of those that are used again; `--thread`, blocks hashed
and written by a thread while the next are received; `--reserve`, all space for OUT first, as the daemons do.
"""

import argparse
import json
import multiprocessing
import os
import resource
import secrets
import socket
import ssl
import struct
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

import blake3
import trio

from interfiles.identity import authority, contexts
from interfiles.identity.authority import Authority
from interfiles.identity.contexts import Credentials
from interfiles.identity.subject import Subject

BLOCK_BYTES: Final = 1 << 20
CHUNK_KIB: Final = 256
IN_FLIGHT: Final = 8
THREAD_BUFFERS: Final = 4
_REQUEST: Final = struct.Struct(">QI")


class Plain:
    """Bytes as they are, on a non-blocking socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    async def receive_into(self, view: memoryview) -> None:
        """Fill `view`; EOFError at the end of the stream."""
        got = 0
        while got < len(view):
            try:
                count = self.sock.recv_into(view[got:])
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self.sock)
                continue
            if count == 0:
                raise EOFError
            got += count

    async def send(self, data: memoryview | bytes) -> None:
        """Send all of it."""
        left = memoryview(data)
        while left:
            try:
                left = left[self.sock.send(left) :]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self.sock)

    async def send_file(self, fd: int, offset: int, count: int) -> None:
        """Send a range of a file."""
        end = offset + count
        while offset < end:
            try:
                offset += os.sendfile(self.sock.fileno(), fd, offset, end - offset)
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self.sock)


class Tls(Plain):
    """TLS in memory between large reads and writes of the socket."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, manner: "Manner", *, accepted: bool) -> None:
        super().__init__(sock)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=accepted)
        self._manner = manner
        self._ciphertext = memoryview(bytearray(manner.chunk))
        self._plaintext = memoryview(bytearray(manner.chunk))

    async def handshake(self) -> None:
        """Agree on keys."""
        while True:
            try:
                self._tls.do_handshake()
                return await self._flush()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()

    async def receive_into(self, view: memoryview) -> None:
        got = 0
        while got < len(view):
            try:
                count: object = self._tls.read(len(view) - got, view[got:])
                assert isinstance(count, int)
                got += count
            except ssl.SSLWantReadError:
                await self._fill()

    async def send(self, data: memoryview | bytes) -> None:
        self._tls.write(data)
        await self._flush()

    async def send_file(self, fd: int, offset: int, count: int) -> None:
        for start in range(offset, offset + count, self._manner.chunk):
            length = min(self._manner.chunk, offset + count - start)
            if self._manner.fresh:
                await self.send(os.pread(fd, length, start))
            else:
                os.preadv(fd, [self._plaintext[:length]], start)
                await self.send(self._plaintext[:length])

    async def _flush(self) -> None:
        if self._outgoing.pending:
            await super().send(self._outgoing.read())

    async def _fill(self) -> None:
        while True:
            try:
                if self._manner.fresh:
                    got: bytes | memoryview = self.sock.recv(self._manner.chunk)
                else:
                    got = self._ciphertext[: self.sock.recv_into(self._ciphertext)]
                break
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self.sock)
        if not got:
            raise EOFError
        self._incoming.write(got)


@dataclass(frozen=True)
class Manner:
    """How the loop does it: bytes of ciphertext at once, buffers made anew, a thread that hashes and writes, and
    whether the copy's space is reserved first.
    """

    chunk: int = CHUNK_KIB << 10
    fresh: bool = False
    thread: bool = False
    reserve: bool = False


def two_members() -> tuple[Credentials, Credentials]:
    """Credentials of two hosts of one fleet, as the daemons have them."""
    fleet_id, now = secrets.token_hex(16), time.time()
    ca = Authority.make(fleet_id, now=now)

    def member() -> Credentials:
        key = authority.new_key()
        leaf = ca.issue(authority.public_key_of(key), Subject(fleet_id, "host", secrets.token_hex(16)), now=now)
        return Credentials(leaf, key, [ca.certificate])

    return member(), member()


async def connected(sock: socket.socket, credentials: Credentials | None, manner: Manner, *, accepted: bool) -> Plain:
    """The stream over a socket; in plain without credentials."""
    sock.setblocking(False)
    if credentials is None:
        return Plain(sock)
    context = contexts.accepting(credentials) if accepted else contexts.dialling(credentials)
    stream = Tls(sock, context, manner, accepted=accepted)
    await stream.handshake()
    return stream


async def send(sock: socket.socket, path: Path, credentials: Credentials | None, manner: Manner) -> None:
    """Answer requests until the other end leaves."""
    stream = await connected(sock, credentials, manner, accepted=True)
    request = memoryview(bytearray(_REQUEST.size))
    with path.open("rb") as file:
        while True:
            try:
                await stream.receive_into(request)
            except (EOFError, OSError):
                return
            await stream.send_file(file.fileno(), *_REQUEST.unpack(request))
            await trio.lowlevel.checkpoint()


async def receive(sock: socket.socket, size: int, out: Path, credentials: Credentials | None, manner: Manner) -> None:
    """Ask for every block, hash it and write it."""
    stream = await connected(sock, credentials, manner, accepted=False)
    blocks = [(offset, min(BLOCK_BYTES, size - offset)) for offset in range(0, size, BLOCK_BYTES)]
    fd = os.open(out, os.O_RDWR | os.O_CREAT, 0o644)
    if manner.reserve:
        os.posix_fallocate(fd, 0, size)

    def store(view: memoryview, offset: int) -> None:
        blake3.blake3(view).digest()
        os.pwrite(fd, view, offset)

    free, emptied = _channel(THREAD_BUFFERS if manner.thread else 1)
    full, filled = trio.open_memory_channel[tuple[memoryview, int, int]](THREAD_BUFFERS)

    async def store_each() -> None:
        async for buffer, count, offset in filled:
            await trio.to_thread.run_sync(store, buffer[:count], offset)
            free.send_nowait(buffer)

    try:
        async with trio.open_nursery() as nursery, full:
            nursery.start_soon(store_each)
            for block in blocks[:IN_FLIGHT]:
                await stream.send(_REQUEST.pack(*block))
            for number, (offset, count) in enumerate(blocks):
                buffer = emptied.receive_nowait() if not manner.thread else await emptied.receive()
                if manner.fresh:
                    buffer = memoryview(bytearray(BLOCK_BYTES))
                await stream.receive_into(buffer[:count])
                if number + IN_FLIGHT < len(blocks):
                    await stream.send(_REQUEST.pack(*blocks[number + IN_FLIGHT]))
                if manner.thread:
                    full.send_nowait((buffer, count, offset))
                else:
                    store(buffer[:count], offset)
                    free.send_nowait(buffer)
                await trio.lowlevel.checkpoint()
            full.close()
    finally:
        os.close(fd)
        sock.close()


def _channel(buffers: int) -> tuple[trio.MemorySendChannel[memoryview], trio.MemoryReceiveChannel[memoryview]]:
    """So many buffers of a block, to be taken and given back."""
    free, emptied = trio.open_memory_channel[memoryview](buffers)
    for _ in range(buffers):
        free.send_nowait(memoryview(bytearray(BLOCK_BYTES)))
    return free, emptied


def cpu_s() -> float:
    """CPU seconds of this process up to now."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _serve(
    listener: socket.socket, path: Path, credentials: Credentials | None, manner: Manner, results: Connection
) -> None:
    sock, _ = listener.accept()
    began = cpu_s()
    trio.run(send, sock, path, credentials, manner)
    results.send(cpu_s() - began)


def main() -> None:
    """Run it once."""
    parser = argparse.ArgumentParser(description="The yardstick: one file from process to process.")
    parser.add_argument("file", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--chunk", type=int, default=CHUNK_KIB, metavar="KIB")
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--thread", action="store_true")
    parser.add_argument("--reserve", action="store_true")
    asked = parser.parse_args()
    manner = Manner(asked.chunk << 10, asked.fresh, asked.thread, asked.reserve)
    server, client = (None, None) if asked.plain else two_members()
    size = asked.file.stat().st_size
    with socket.create_server(("127.0.0.1", 0)) as listener:
        results, ours = multiprocessing.Pipe(duplex=False)
        process = multiprocessing.Process(target=_serve, args=(listener, asked.file, server, manner, ours))
        process.start()
        sock = socket.create_connection(listener.getsockname())
        began, used = time.perf_counter(), cpu_s()
        trio.run(receive, sock, size, asked.out, client, manner)
        found = {"seconds": time.perf_counter() - began, "receiver_cpu_s": cpu_s() - used}
        found["sender_cpu_s"] = results.recv()
        process.join()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
