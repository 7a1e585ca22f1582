"""One libtorrent peer, tuned for a fast network, plaintext, as a process of its own.

    python -m benchmarks.libtorrent_peer make FILE TORRENT [PIECE_BYTES]
    python -m benchmarks.libtorrent_peer seed DIRECTORY TORRENT
    python -m benchmarks.libtorrent_peer fetch DIRECTORY TORRENT PORT
    python -m benchmarks.libtorrent_peer member seed|fetch DIRECTORY TORRENT HOST:PORT MARKER [TRACKER_URL | PEER ...]

`make` prints the torrent's hash. `seed` prints its port and serves until it is ended. `fetch` dials that port at once
and prints the seconds from the dialling to the complete, checked file. `member` is one of a swarm: it listens at
HOST:PORT until it is ended, and makes the file MARKER as soon as it has everything. Needs libtorrent from PyPI (BSD
licence).
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import libtorrent

PIECE_BYTES: Final = 1 << 20
REANNOUNCE_S: Final = 2.0
SETTINGS: Final[dict[str, Any]] = {
    "alert_mask": 0,
    "ssrf_mitigation": False,
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "enable_incoming_utp": False,
    "enable_outgoing_utp": False,
    "in_enc_policy": 2,
    "out_enc_policy": 2,
    "allow_multiple_connections_per_ip": True,
    "max_out_request_queue": 2000,
    "max_allowed_in_request_queue": 4000,
    "hashing_threads": 2,
    "aio_threads": 4,
    "send_buffer_watermark": 8 << 20,
    "send_buffer_watermark_factor": 150,
    "send_buffer_low_watermark": 1 << 20,
    "max_queued_disk_bytes": 64 << 20,
    "connection_speed": 200,
}


def make(file: str, torrent: str, piece_bytes: int = PIECE_BYTES) -> None:
    """Hash a file."""
    files = libtorrent.file_storage()
    libtorrent.add_files(files, str(Path(file).absolute()))
    made = libtorrent.create_torrent(files, piece_size=piece_bytes, flags=libtorrent.create_torrent.v1_only)
    libtorrent.set_piece_hashes(made, str(Path(file).absolute().parent))
    Path(torrent).write_bytes(libtorrent.bencode(made.generate()))
    print(libtorrent.torrent_info(torrent).info_hashes().v1)


def seed(directory: str, torrent: str) -> None:
    """Serve it for ever."""
    session, _ = _begin(directory, torrent, is_seed=True)
    print(session.listen_port(), flush=True)
    while True:
        time.sleep(1)


def fetch(directory: str, torrent: str, port: str) -> None:
    """Fetch it once."""
    _session, handle = _begin(directory, torrent, is_seed=False)
    began = time.perf_counter()
    handle.connect_peer(("127.0.0.1", int(port)))
    while not handle.status().is_seeding:
        time.sleep(0.005)
    print(time.perf_counter() - began, flush=True)


def member(role: str, directory: str, torrent: str, listen: str, marker: str, *told: str) -> None:
    """Be one of a swarm for ever."""
    trackers = [url for url in told if "://" in url]
    _session, handle = _begin(directory, torrent, is_seed=role == "seed", listen=listen, trackers=trackers)
    for host, _, port in (peer.rpartition(":") for peer in told if peer not in trackers):
        handle.connect_peer((host, int(port)))
    announced = time.monotonic()
    while not handle.status().is_seeding:
        time.sleep(0.02)
        if trackers and time.monotonic() - announced > REANNOUNCE_S:
            handle.force_reannounce()
            announced = time.monotonic()
    Path(marker).touch()
    while True:
        time.sleep(1)


def _begin(
    directory: str, torrent: str, *, is_seed: bool, listen: str = "127.0.0.1:0", trackers: Sequence[str] = ()
) -> tuple[libtorrent.session, libtorrent.torrent_handle]:
    settings: Any = {**libtorrent.high_performance_seed(), **SETTINGS, "listen_interfaces": listen}
    session = libtorrent.session(settings)
    added = libtorrent.add_torrent_params()
    added.trackers = list(trackers)
    added.ti, added.save_path = libtorrent.torrent_info(torrent), directory
    if is_seed:
        added.flags |= libtorrent.torrent_flags.seed_mode
    return session, session.add_torrent(added)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["make", file, torrent]:
            make(file, torrent)
        case ["make", file, torrent, piece_bytes]:
            make(file, torrent, int(piece_bytes))
        case ["seed", directory, torrent]:
            seed(directory, torrent)
        case ["fetch", directory, torrent, port]:
            fetch(directory, torrent, port)
        case ["member", role, directory, torrent, listen, marker, *told]:
            member(role, directory, torrent, listen, marker, *told)
        case _:
            sys.exit(__doc__)
