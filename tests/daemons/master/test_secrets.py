"""What nobody must see: tokens and their secrets, private keys, and on the wire everything."""

import base64
import random

import pytest
from trio.testing import MockClock

from daemons.client.joining import join
from interfiles.errors import InvalidToken, RemoteProtocolError
from interfiles.identity.contexts import Credentials
from interfiles.identity.token import JoinToken
from interfiles.storage.records import Identity
from interfiles.wire import master_messages as m
from interfiles.wire.framing import encode_frame
from tests.conftest import LogRecords
from tests.daemons.master.scripted import MASTER, Client, Fleet, manifest

HOST = "10.0.0.77"


def writings(token: JoinToken) -> list[str]:
    """How a token or its secret may turn up in a text."""
    text, secret = token.encode(), token.secret
    base32 = base64.b32encode(secret).decode().rstrip("=")
    return [
        *(text, text.replace("-", ""), text.removeprefix("IF1-")[17:40]),
        *(secret.hex(), secret.hex().upper(), base32, base64.b64encode(secret).decode().rstrip("=")),
        *(repr(secret)[2:-1], repr(list(secret))[1:-1], repr(tuple(secret))),
    ]


def key_lines(*keys: str) -> list[str]:
    """The lines of private keys that are not the same in all."""
    return [line for key in keys for line in key.splitlines() if line and not line.startswith("-----")]


async def live(fleet: Fleet, token: JoinToken) -> tuple[Identity, Client]:
    """A host joins, comes up, shares a file and renews."""
    network = fleet.network.host(HOST)
    identity = await join(network, token, name="render", zone="", rng=random.Random(1), wall_clock=fleet.now)
    host = await fleet.dial(Credentials(identity.chain, identity.key, list(identity.authorities)), ip=HOST)
    await host.register(name=identity.name)
    await host.announce(replace=True)
    await host.publish(manifest("a-name-that-nobody-knows"))
    await host.renew()
    return identity, host


async def test_the_log_has_neither_tokens_nor_secrets_nor_keys(
    fleet: Fleet, autojump_clock: MockClock, log_records: LogRecords
) -> None:
    made = await fleet.admin.make_token(ttl_s=600, uses=2)
    tokens = [fleet.token, JoinToken.decode(made.token)]
    identity, host = await live(fleet, tokens[1])
    await fleet.admin.tokens()
    await fleet.admin.rotate_authority()
    await host.renew()
    await fleet.admin.revoke_token(made.id)
    stranger = await fleet.dial()
    with pytest.raises(InvalidToken):
        await stranger.enrol(tokens[1], "late")
    malformed = m.Enrol(tokens[0].token_id, tokens[0].secret, "late", "", b"no request")
    for frame in (encode_frame(malformed), encode_frame(malformed)[:8] + bytes([0x9F]) + encode_frame(malformed)[9:]):
        stranger = await fleet.dial()
        await stranger.stream.transport.send_all(frame)
        with pytest.raises(RemoteProtocolError):
            await stranger.receive()
    await fleet.admin.remove_host("render")
    await fleet.stop()
    logged = repr(log_records.records)
    assert "enrolled" in logged
    assert made.id in repr([str(record.get("token", b"").hex()) for record in log_records.records if "token" in record])
    assert host.credentials is not None
    keys = [identity.key, host.credentials.key, *(authority.key for authority in fleet.authorities())]
    for secret in [*(text for token in tokens for text in writings(token)), *key_lines(*keys), "PRIVATE KEY"]:
        assert secret not in logged


async def test_the_wire_shows_nothing(fleet: Fleet, autojump_clock: MockClock) -> None:
    seen: list[bytes] = []

    def record(data: bytes) -> bytes:
        seen.append(data)
        return data

    for ip in (HOST, MASTER):
        fleet.network.tap(ip, lambda _: record)
    token = fleet.token
    identity, host = await live(fleet, token)
    passed = b"".join(seen)
    assert len(passed) > 5_000
    published = manifest("a-name-that-nobody-knows")
    for secret in (
        *(token.secret, token.token_id, b"a-name-that-nobody-knows", published.file_id, published.encode()[-64:]),
        *(b"render", identity.host_id.encode(), fleet.fleet_id.encode(), b"interfiles://", b"CERTIFICATE"),
    ):
        assert secret not in passed
    host.close()


async def test_the_state_directory_has_hashes_of_secrets_only(fleet: Fleet, autojump_clock: MockClock) -> None:
    token = fleet.token
    identity, _ = await live(fleet, token)
    await fleet.stop()
    for path in fleet.state.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert token.secret not in content
            assert token.encode().encode() not in content
            assert not any(line.encode() in content for line in key_lines(identity.key)), path
