"""Joining by a token that is no good, or at the address of somebody who only plays the master."""

import secrets
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
import trio

from interfiles.errors import InterFilesError
from interfiles.identity import authority, contexts
from interfiles.identity.authority import Authority
from interfiles.identity.contexts import Credentials
from interfiles.identity.subject import Subject
from interfiles.identity.token import JoinToken
from interfiles.transport.base import Address, Transport
from interfiles.transport.listeners import serve
from interfiles.transport.message_stream import welcome
from interfiles.transport.plain import TcpNetwork
from interfiles.transport.tls import secure
from interfiles.wire.codec import Message
from interfiles.wire.master_messages import Authorities, GetAuthorities
from tests.e2e.fleet import Fleet
from tests.e2e.member import TIMEOUT_S, Member
from tests.e2e.processes import Ran, poll

UNREACHABLE, NOT_PERMITTED = 3, 7


@pytest.fixture(scope="module")
def fleet(module_fleet: Fleet) -> Fleet:
    module_fleet.start_master()
    return module_fleet


def join_all(fleet: Fleet, directory: Path, tokens: Sequence[JoinToken]) -> list[Ran]:
    """Type `interfiles client` with each token, all at once, where it is expected to end by itself."""
    commands = []
    for number, token in enumerate(tokens):
        place = directory / str(number)
        place.mkdir()
        (place / "token").write_text(token.encode())
        arguments = ("--token-file", "token", "--state", "state", "--socket", "sock", "--listen", "127.0.0.1:0")
        commands.append(fleet.begin_cli(None, "client", *arguments, cwd=place))
    return [fleet.finish_cli(command, timeout_s=30) for command in commands]


def check(ran: Ran, code: int, word: str) -> None:
    """The command has ended with this code, and one sentence that has this word in it."""
    assert (ran.code, ran.out, ran.err.count("\n")) == (code, "", 1), ran
    assert ran.err.startswith("interfiles: "), ran
    assert word in ran.err, ran


def test_tokens_that_are_no_good_any_more_or_never_were(fleet: Fleet, tmp_path: Path) -> None:
    def token(ttl_s: float = 60.0, uses: int | None = None) -> JoinToken:
        return JoinToken.decode(fleet.administer(lambda admin: admin.make_token(ttl_s=ttl_s, uses=uses)).token)

    good, expiring, revoked, once = token(), token(ttl_s=1), token(), token(uses=1)
    expired_at = time.monotonic() + 1
    fleet.administer(lambda admin: admin.revoke_token(revoked.token_id.hex()))
    with Member(fleet, "first", token=once):
        poll(lambda: time.monotonic() > expired_at, "the token to expire")
    cases = {
        replace(good, secret=bytes(16)): (NOT_PERMITTED, "not one of this master's"),
        replace(good, authority=bytes(32)): (UNREACHABLE, "not the master that made this token"),
        expiring: (NOT_PERMITTED, "expired"),
        once: (NOT_PERMITTED, "used up (it was good for 1 host)"),
        revoked: (NOT_PERMITTED, "revoked"),
    }
    for ran, (code, word) in zip(join_all(fleet, tmp_path, list(cases)), cases.values(), strict=True):
        check(ran, code, word)
    listed = {token.id: token for token in fleet.administer(lambda admin: admin.tokens())}
    assert [use.name for use in listed[once.token_id.hex()].joined] == ["first"], "a token keeps who joined by it"
    assert (listed[revoked.token_id.hex()].state, listed[expiring.token_id.hex()].state) == ("revoked", "expired")


@dataclass
class Impostor:
    """Answers at `address` with a certificate of its own CA, in the place of a fleet's master.

    `told`: the certificates that it gives who asks for the fleet's; `heard`: every message that it was sent.
    """

    fleet_id: str
    told: list[str] = field(default_factory=list)
    heard: list[Message] = field(default_factory=list)
    connections: int = 0

    def __post_init__(self) -> None:
        now, key = time.time(), authority.new_key()
        own = Authority.make(self.fleet_id, now=now)
        self.own_authority = own.certificate
        leaf = own.issue(authority.public_key_of(key), Subject(self.fleet_id, "master"), now=now)
        self._context = contexts.accepting(Credentials(leaf, key, [own.certificate]), strangers=True)

    async def run(self, *, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
        listener = await TcpNetwork().listen(Address("127.0.0.1", 0))
        task_status.started(str(listener.address))
        await serve(listener, self._answer, max_connections=8)

    async def _answer(self, transport: Transport) -> None:
        self.connections += 1
        try:
            secured = await secure(transport, self._context, accepted=True)
            stream, _ = await welcome(secured, "fleet", lambda: "stranger")
            while True:
                self.heard.append(await stream.receive())
                if isinstance(self.heard[-1], GetAuthorities):
                    await stream.send(Authorities(self.told, False))
        except InterFilesError:  # whoever asked has left
            pass


class Impostors:
    """Serves impostors in a thread; `addresses` in their order."""

    def __init__(self, *impostors: Impostor) -> None:
        self._impostors = impostors
        self.addresses: list[str] = []
        self._ready = threading.Event()
        self._scope = trio.CancelScope()
        self._thread = threading.Thread(target=trio.run, args=(self._main,))

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(TIMEOUT_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._token.run_sync_soon(self._scope.cancel)
        self._thread.join(TIMEOUT_S)

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        with self._scope:
            async with trio.open_nursery() as nursery:
                for impostor in self._impostors:
                    self.addresses.append(await nursery.start(impostor.run))
                self._ready.set()


def test_who_plays_the_master_with_another_ca_is_found_out_before_the_secret_is_sent(
    fleet: Fleet, tmp_path: Path
) -> None:
    with Member(fleet, "asker") as member:  # anybody may ask for the certificate of the fleet's CA
        certificate = member.network.credentials.authorities[0]
    fleet_id = secrets.token_hex(16)
    plain, cunning = Impostor(fleet_id), Impostor(fleet_id, told=[certificate])
    plain.told = [plain.own_authority]
    with Impostors(plain, cunning) as impostors:
        tokens = [replace(fleet.join_token, masters=(address,)) for address in impostors.addresses]
        told_own, told_true = join_all(fleet, tmp_path, tokens)
    check(told_own, UNREACHABLE, "is not the master that made this token (its CA is another one)")
    check(told_true, UNREACHABLE, "certificate is not of this fleet")
    assert "not shown the secret" in told_own.err
    assert (plain.connections, cunning.connections) == (1, 2)
    assert plain.heard == cunning.heard == [GetAuthorities()], "they were told nothing but the question"
