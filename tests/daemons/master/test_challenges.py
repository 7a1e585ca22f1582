"""Hosts are challenged to show what they announce, and those that cannot count no more."""

from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock

from daemons.master.challenges import MAX_PAUSE_S
from interfiles.errors import InterFilesError
from interfiles.wire import master_messages as m
from tests.daemons.master.scripted import Client, Fleet, holding, manifest

FILE = manifest().file_id
Answer = Callable[[m.Challenge], m.Proof | None]


def honest(challenge: m.Challenge) -> m.Proof:
    return m.Proof(challenge.number, challenge.nonce, "")


def lying(challenge: m.Challenge) -> m.Proof:
    return m.Proof(challenge.number, bytes(32), "")


def helpless(challenge: m.Challenge) -> m.Proof:
    return m.Proof(challenge.number, b"", "it cannot be read\x07")


def silent(challenge: m.Challenge) -> None:
    return None


async def hold(
    client: Client, answer: Answer, challenges: list[m.Challenge], orders: list[m.Order] | None = None
) -> None:
    """Be a host that holds the file, or says so, and beats every ten seconds."""
    while True:
        with trio.move_on_after(10):
            while True:
                message, _ = await client.receive()
                if isinstance(message, m.Challenge):
                    challenges.append(message)
                    if (proof := answer(message)) is not None:
                        await client.send(proof)
                if isinstance(message, m.Order) and orders is not None:
                    orders.append(message)
        client.beats += 1
        await client.send(m.Heartbeat(client.beats, 0, 1 << 40 if orders is not None else 0, False, []))


async def complete_after_challenges(fleet: Fleet, *answers: Answer) -> tuple[int, list[str], list[m.Challenge]]:
    """How many copies count in the end, why others do not, and what was asked."""
    watcher = await fleet.join("watcher")
    challenges: list[m.Challenge] = []
    async with trio.open_nursery() as nursery:
        for number, answer in enumerate(answers):
            client = await fleet.join(f"h{number}")
            if number == 0:
                await client.publish(manifest(), replicas=1)
            await client.announce(holding(FILE), replace=True)
            nursery.start_soon(hold, client, answer, challenges)
        for _ in range(50 * int(MAX_PAUSE_S) // 10):  # whom the master asks is chance: so long that it asks everyone
            await trio.sleep(10)
            await watcher.announce()
        complete = (await watcher.holders(FILE)).complete
        nursery.cancel_scope.cancel()
    events = (await fleet.admin.events(last=100)).events
    return complete, [f"{event.host_name}: {event.reason}" for event in events if event.kind == "corrupt"], challenges


@pytest.mark.parametrize(
    ("answers", "complete", "why"),
    [
        ((honest, honest, honest), 3, ""),
        ((honest, honest, lying), 2, "h2: it could not show piece N: others have another piece there"),
        ((honest, helpless, honest), 2, r"h1: it could not show piece N: it cannot be read\x07"),
        ((honest, honest, silent), 2, "h2: it could not show piece N: no answer within 30 s"),
        ((honest, silent), 1, "h1: it could not show piece N: no answer within 30 s"),
        ((honest, lying), 2, ""),
        ((lying,), 1, ""),
    ],
    ids=["all well", "liar", "bad disk", "no answer", "no answer of two", "word against word", "alone"],
)
async def test_who_cannot_show_a_piece_counts_no_more(
    fleet: Fleet, autojump_clock: MockClock, answers: tuple[Answer, ...], complete: int, why: str
) -> None:
    counted, reasons, challenges = await complete_after_challenges(fleet, *answers)
    assert counted == complete
    told = {reason.replace("piece 0", "piece N").replace("piece 1", "piece N") for reason in reasons}
    assert told == ({why} if why else set())
    if len(answers) > 1:
        assert {challenge.piece for challenge in challenges} <= {0, 1}
        assert len({challenge.nonce for challenge in challenges}) > 1, "each time another nonce"


async def test_of_a_copy_that_does_not_count_another_is_made(fleet: Fleet, autojump_clock: MockClock) -> None:
    """As many hosts say that they hold the file as are wanted, and one of them cannot show it."""
    orders: list[m.Order] = []
    async with trio.open_nursery() as nursery:
        for number, answer in enumerate([honest, honest, helpless]):
            client = await fleet.join(f"h{number}")
            if number == 0:
                await client.publish(manifest(), replicas=3)
            await client.announce(holding(FILE), replace=True)
            nursery.start_soon(hold, client, answer, [])
        nursery.start_soon(hold, await fleet.join("roomy"), honest, [], orders)
        await trio.sleep(20 * MAX_PAUSE_S)
        nursery.cancel_scope.cancel()
    assert orders, "one is missing"


async def test_a_proof_that_nobody_asked_for_is_passed_over(fleet: Fleet, autojump_clock: MockClock) -> None:
    client = await fleet.join("host")
    await client.send(m.Proof(12345, bytes(32), ""))
    try:
        await client.announce()
    except InterFilesError as e:
        pytest.fail(f"the connection ended: {e}")
