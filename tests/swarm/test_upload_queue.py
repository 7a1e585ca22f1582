from interfiles.geometry import Block, PieceIndex
from interfiles.swarm.upload_queue import BUSY_RETRY_MS, MAX_QUEUED, UploadQueue


def block(piece: int) -> Block:
    return Block(PieceIndex(piece), 0, 1)


def test_requests_of_one_fetcher_are_answered_in_order() -> None:
    queue = UploadQueue()
    for piece in (3, 1, 2):
        assert queue.offer("a", block(piece)) is None
    assert [queue.next("a") for _ in range(4)] == [block(3), block(1), block(2), None]


def test_busy_when_every_slot_is_taken_and_free_again_when_one_is_done() -> None:
    queue = UploadQueue(slots=2)
    assert queue.offer("a", block(0)) is None
    assert queue.offer("b", block(0)) is None
    assert queue.offer("c", block(0)) == BUSY_RETRY_MS
    assert queue.offer("a", block(1)) is None, "a slot in hand takes more"
    queue.drop("b")
    assert queue.offer("c", block(0)) is None


def test_a_slot_is_kept_while_its_last_block_is_being_sent() -> None:
    queue = UploadQueue(slots=1)
    queue.offer("a", block(0))
    assert queue.next("a") == block(0)
    assert queue.offer("b", block(0)) == BUSY_RETRY_MS
    assert queue.next("a") is None
    assert queue.offer("b", block(0)) is None


def test_one_fetcher_cannot_queue_without_bound() -> None:
    queue = UploadQueue()
    answers = [queue.offer("a", block(i)) for i in range(MAX_QUEUED + 1)]
    assert answers == [None] * MAX_QUEUED + [BUSY_RETRY_MS]


def test_cancelled_requests_are_not_sent_and_free_the_slot() -> None:
    queue = UploadQueue()
    queue.offer("a", block(0))
    queue.offer("a", block(1))
    queue.cancel("a", PieceIndex(0))
    assert queue.next("a") == block(1)
    queue.offer("b", block(0))
    queue.cancel("b", PieceIndex(0))
    assert queue.slots_taken == 1
    queue.cancel("nobody", PieceIndex(0))
    queue.drop("nobody")
    assert queue.next("nobody") is None
