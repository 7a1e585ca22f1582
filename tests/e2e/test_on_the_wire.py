"""Who stands between two daemons learns nothing, and who damages what passes delays it and no more."""

import base64
import os
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from interfiles.identity.token import JoinToken
from tests.e2e.content import MIB, differences
from tests.e2e.fleet import Fleet
from tests.e2e.processes import Daemon, listening_port, poll
from tests.e2e.proxy import Damage, DamagingProxy, Proxy, RecordingProxy

SIZE: Final = 8 * MIB
WINDOW_BYTES: Final = 16
WINDOWS: Final = 300


@contextmanager
def between(fleet: Fleet, at_master: Proxy, at_source: Proxy) -> Iterator[tuple[Daemon, Daemon]]:
    """A source and a reader that reach the master, and each other's peers the source, by proxies only."""
    with ExitStack() as stack:
        stack.enter_context(at_master)
        stack.enter_context(at_source)
        fleet.start_master("--advertise", at_master.address)
        at_master.target_port = listening_port(fleet.master)
        source = fleet.start_client("source-of-secrets", "--advertise", at_source.address, "--zone", "vault-seven")
        at_source.target_port = listening_port(source)
        yield source, fleet.start_client("reader-of-secrets", "--zone", "vault-nine")


def send(fleet: Fleet, source: Daemon, reader: Daemon) -> tuple[Path, int]:
    """Send a file from one to the other; return the copy and how many pieces were rejected on its way."""
    content = source.home / "the-secret-plan.bin"
    content.write_bytes(os.urandom(SIZE))
    tracker = fleet.cli(source, "upload", "-p", content.name, json=True).done.json["tracker"]
    report = fleet.cli(reader, "download", "-p", tracker, json=True).done.json
    assert differences(content, reader.home / content.name) == []
    return reader.home / content.name, report["pieces_rejected"]


def spellings(secret: bytes) -> list[bytes]:
    """How somebody might write down some bytes."""
    digits, letters = secret.hex().encode(), base64.b32encode(secret).rstrip(b"=")
    return [secret, digits, digits.upper(), letters, letters.lower(), base64.b64encode(secret).rstrip(b"=")]


def secrets_of(fleet: Fleet, token: JoinToken, copy: Path, hosts: list[Daemon]) -> dict[str, list[bytes]]:
    """What must not be seen between two daemons, by what it is."""
    content, rng = copy.read_bytes(), random.Random(1)
    starts = [0, len(content) - WINDOW_BYTES, *rng.sample(range(len(content) - WINDOW_BYTES), WINDOWS)]
    ids = [fleet.ask(host, lambda client: client.status()) for host in hosts]
    return {
        "content": [content[start : start + WINDOW_BYTES] for start in starts],
        "the file's name": [copy.name.encode(), copy.stem.encode()],
        "the token's secret": spellings(token.secret),
        "the token": [part.encode() for part in token.encode().split("-")[1:-1]],
        "the token's id": spellings(token.token_id),
        "names of hosts and zones": [b"source-of-secrets", b"reader-of-secrets", b"vault-seven", b"vault-nine"],
        "ids of hosts": [spelling for status in ids for spelling in spellings(bytes.fromhex(status.host))],
        "the fleet's id": spellings(bytes.fromhex(ids[0].fleet)),
        "the program's name": [b"interfiles", b"InterFiles"],
    }


def test_who_records_every_connection_sees_neither_content_nor_names_nor_the_token(own_fleet: Fleet) -> None:
    at_master, at_source = RecordingProxy(), RecordingProxy()
    with between(own_fleet, at_master, at_source) as (source, reader):
        copy, _ = send(own_fleet, source, reader)
        hidden = secrets_of(own_fleet, own_fleet.join_token, copy, [source, reader])
        recorded = [*at_master.recorded, *at_source.recorded]

    assert len(at_master.links) >= 2 * 3, "each host asked for the CA, enrolled, and registered through the proxy"
    assert SIZE < sum(map(len, at_source.recorded)) < SIZE * 1.02, "the file passed, and little else"
    for what, needles in hidden.items():
        seen = [needle for needle in needles if any(needle in stream for stream in recorded)]
        assert seen == [], f"{what} was seen"
    assert all(stream.startswith(b"\x16\x03") for stream in recorded), "each began with a TLS handshake"


AT_MASTER: Final = [
    Damage("flip", "asked", 100),
    Damage("cut", "answered", 600),
    Damage("end", "asked", 1200),
    Damage("flip", "answered", 1400),
]
AT_SOURCE: Final = [
    Damage("flip", "answered", MIB),
    Damage("flip", "answered", 200),  # within the handshake
    Damage("cut", "answered", 2 * MIB),
    Damage("end", "answered", MIB + 12_345),
    Damage("flip", "asked", 1400),
    Damage("cut", "asked", 100),
]


def test_flipped_bits_and_cut_connections_cost_a_retry_each_and_damage_nothing(own_fleet: Fleet) -> None:
    at_master, at_source = DamagingProxy(), DamagingProxy()
    with between(own_fleet, at_master, at_source) as (source, reader):
        at_master.damage(*AT_MASTER)
        at_source.damage(*AT_SOURCE)
        poll(lambda: len(at_master.done) == len(AT_MASTER), "all the damage at the master's port to be done")
        _, rejected = send(own_fleet, source, reader)
        poll(lambda: all(host.state == "live" for host in own_fleet.ask(reader, lambda c: c.hosts())), "all to be back")
        assert at_source.done == AT_SOURCE
    assert rejected == 0, "TLS finds it before the hashes do"
    assert "peer blamed" not in reader.logged
