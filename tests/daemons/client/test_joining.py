"""Becoming a member of a fleet, with a master that answers, refuses, falls silent or talks nonsense."""

import random

import pytest
import trio
from trio.testing import MockClock

from daemons.client.joining import ENROL_TIMEOUT_S, RETRY_CAP_S
from daemons.client.membership import credentials_of
from interfiles.errors import HandshakeFailed, InterFilesError, InvalidToken, RemoteProtocolError, UsageError
from interfiles.identity import contexts
from interfiles.identity.authority import is_issued_by
from interfiles.transport.base import Address
from interfiles.transport.memory import MemoryNetwork
from interfiles.wire import master_messages as m
from interfiles.wire.codec import Message
from interfiles.wire.handshake_messages import Failure
from tests.conftest import LogRecords
from tests.daemons.client.certificates import (
    CA,
    MASTER_SUBJECT,
    SECRET,
    TOKEN_ID,
    credentials,
    host_credentials,
    join_token,
)
from tests.daemons.client.peers import Stream
from tests.daemons.client.scripted_master import Answer, Master, joined, saying
from tests.daemons.client.setting import FLEET, MASTER, id_of

ELSEWHERE = "10.0.0.250:4850"


async def test_the_master_mints_the_identity(master: Master, autojump_clock: MockClock) -> None:
    made = await joined(master.network)
    assert (made.fleet, made.host_id, made.name, made.zone) == (FLEET, id_of("new"), "new", "rack-a")
    assert (made.authorities, made.masters, made.removed) == ((CA.certificate,), (str(MASTER),), "")
    assert is_issued_by(made.chain, CA.certificate)
    contexts.dialling(credentials_of(made))
    (asked,) = master.messages(m.Enrol)
    assert isinstance(asked, m.Enrol)
    assert (asked.token_id, asked.secret, asked.name, asked.zone) == (TOKEN_ID, SECRET, "new", "rack-a")
    assert made.key not in repr(made), "not in a traceback either"


async def test_the_masters_are_tried_in_turn_until_one_answers(
    log_records: LogRecords, autojump_clock: MockClock
) -> None:
    network = MemoryNetwork(random.Random(1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_start_after, Master(network), 100.0)
        made = await joined(network, join_token(ELSEWHERE, str(MASTER)))
        nursery.cancel_scope.cancel()
    assert made.masters == (ELSEWHERE, str(MASTER))
    assert 100 <= trio.current_time() <= 100 + RETRY_CAP_S + 1
    refusals = [record for record in log_records.records if record["event"] == "cannot join yet"]
    assert 15 <= len(refusals) <= 100, "for ever, at a pace that nobody minds"


async def _start_after(master: Master, seconds: float) -> None:
    await trio.sleep(seconds)
    await master.run()


async def test_a_second_master_is_joined_while_the_first_is_busy(master: Master, autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        busy = Master(master.network, address=Address.parse(ELSEWHERE))
        busy.answer = saying(m.Enrol, Failure("rate-limited", "too many tries"))
        await nursery.start(busy.run)
        made = await joined(master.network, join_token(ELSEWHERE, str(MASTER)))
        nursery.cancel_scope.cancel()
    assert made.masters == (ELSEWHERE, str(MASTER))
    assert len(busy.messages(m.Enrol)) == len(master.messages(m.Enrol)) == 1


@pytest.mark.parametrize("code", ["invalid-token", "not-permitted", "refused", "from-the-future"])
async def test_a_refusal_is_final_and_in_the_masters_words(
    master: Master, code: str, autojump_clock: MockClock
) -> None:
    master.answer = saying(m.Enrol, Failure(code, "the token is spent\x1b[2J"))
    with pytest.raises(InterFilesError) as caught:
        await joined(master.network)
    assert str(caught.value) == r"the token is spent\x1b[2J"
    assert isinstance(caught.value, InvalidToken) == (code == "invalid-token")
    assert len(master.messages(m.Enrol)) == 1


def at_first(times: int, kind: type[Message], do: Answer) -> Answer:
    """Do this with the first so many messages of a kind."""
    left = times

    async def answer(stream: Stream, message: Message) -> bool:
        nonlocal left
        if isinstance(message, kind) and left:
            left -= 1
            return await do(stream, message)
        return False

    return answer


async def say_nothing(stream: Stream, message: Message) -> bool:
    return True


async def close(stream: Stream, message: Message) -> bool:
    stream.close()
    return True


async def is_rate_limited(stream: Stream, message: Message) -> bool:
    await stream.send(Failure("rate-limited", "too many tries to join in a short time; try again in 2 s"))
    return True


@pytest.mark.parametrize("kind", [m.GetAuthorities, m.Enrol])
@pytest.mark.parametrize("how", [say_nothing, close, is_rate_limited])
async def test_a_master_that_does_not_answer_is_asked_again(
    master: Master, kind: type[Message], how: Answer, autojump_clock: MockClock
) -> None:
    master.answer = at_first(3, kind, how)
    await joined(master.network)
    assert len(master.messages(kind)) == 4
    assert trio.current_time() < 3 * (ENROL_TIMEOUT_S + RETRY_CAP_S)


BAD_ANSWERS = {
    "no answer to this": (m.Enrol, m.Heard(1), "Heard came in place of Enrolled"),
    "no certificates": (m.GetAuthorities, m.Enrolled("new", "chain", ["authority"]), "message 17 is not allowed here"),
    "text": (m.GetAuthorities, m.Authorities(["your certificate"], False), "certificate of the CA is malformed"),
}


@pytest.mark.parametrize(("kind", "answer", "words"), BAD_ANSWERS.values(), ids=BAD_ANSWERS)
async def test_another_answer_is_no_masters(
    master: Master, kind: type[Message], answer: Message, words: str, autojump_clock: MockClock
) -> None:
    master.answer = saying(kind, answer)
    with pytest.raises(RemoteProtocolError, match=words):
        await joined(master.network)


def _another_hosts(chain: str) -> m.Enrolled:
    return m.Enrolled("new", chain, [CA.certificate])


BAD_IDENTITIES = {
    "no certificate": _another_hosts("chain"),
    "for another key": _another_hosts(host_credentials("new").chain),
    "the master's": _another_hosts(credentials(MASTER_SUBJECT).chain),
    "a CA's": _another_hosts(CA.certificate),
    "no CA": m.Enrolled("new", host_credentials("new").chain, ["authority"]),
}


@pytest.mark.parametrize("answer", BAD_IDENTITIES.values(), ids=BAD_IDENTITIES)
async def test_an_identity_that_is_no_good_is_not_taken(
    master: Master, answer: m.Enrolled, autojump_clock: MockClock
) -> None:
    master.answer = saying(m.Enrol, answer)
    with pytest.raises(RemoteProtocolError, match="the master sent a certificate that is not good"):
        await joined(master.network)


async def test_what_answers_but_speaks_no_tls(autojump_clock: MockClock) -> None:
    network = MemoryNetwork(random.Random(1))
    listener = await network.host(MASTER.host).listen(MASTER)

    async def answer() -> None:
        transport = await listener.accept()
        await transport.send_all(b"SSH-2.0-OpenSSH_9.9\r\n")
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        with pytest.raises(HandshakeFailed, match=r"do not come to TLS 1\.3"):
            await joined(network)
        nursery.cancel_scope.cancel()


async def test_a_token_with_an_address_that_is_none(autojump_clock: MockClock) -> None:
    with pytest.raises(UsageError, match="is not an address"):
        await joined(MemoryNetwork(random.Random(1)), join_token("nonsense"))


@pytest.mark.parametrize("kind", [m.GetAuthorities, m.Enrol])
async def test_joining_can_be_cancelled_and_leaves_no_connection(
    master: Master, kind: type[Message], autojump_clock: MockClock
) -> None:
    master.answer = saying(kind)
    for seconds in range(1, 30, 3):
        with trio.move_on_after(seconds):
            await joined(master.network)
        await trio.sleep(1)
        assert not master.network._pipes
