"""One libtorrent peer, tuned for a fast network, plaintext, as a process of its own.

    python -m benchmarks.libtorrent_peer make FILE TORRENT
    python -m benchmarks.libtorrent_peer seed DIRECTORY TORRENT
    python -m benchmarks.libtorrent_peer fetch DIRECTORY TORRENT PORT

`seed` prints its port and serves until it is ended. `fetch` dials that port at once and prints the seconds from the
dialling to the complete, checked file. Needs libtorrent from PyPI (BSD licence).
"""

import sys
import time
from pathlib import Path
from typing import Any, Final

import libtorrent

PIECE_BYTES: Final = 1 << 20
SETTINGS: Final[dict[str, Any]] = {
    "listen_interfaces": "127.0.0.1:0",
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


def make(file: str, torrent: str) -> None:
    """Hash a file."""
    files = libtorrent.file_storage()
    libtorrent.add_files(files, str(Path(file).absolute()))
    made = libtorrent.create_torrent(files, piece_size=PIECE_BYTES, flags=libtorrent.create_torrent.v1_only)
    libtorrent.set_piece_hashes(made, str(Path(file).absolute().parent))
    Path(torrent).write_bytes(libtorrent.bencode(made.generate()))


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


def _begin(directory: str, torrent: str, *, is_seed: bool) -> tuple[libtorrent.session, libtorrent.torrent_handle]:
    settings: Any = {**libtorrent.high_performance_seed(), **SETTINGS}
    session = libtorrent.session(settings)
    added = libtorrent.add_torrent_params()
    added.ti, added.save_path = libtorrent.torrent_info(torrent), directory
    if is_seed:
        added.flags |= libtorrent.torrent_flags.seed_mode
    return session, session.add_torrent(added)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["make", file, torrent]:
            make(file, torrent)
        case ["seed", directory, torrent]:
            seed(directory, torrent)
        case ["fetch", directory, torrent, port]:
            fetch(directory, torrent, port)
        case _:
            sys.exit(__doc__)
