from interfiles.geometry import Block, PieceIndex
from interfiles.swarm.upload_queue import BUSY_RETRY_MS, MAX_QUEUED, RESERVED_S, STUCK_S, TURN_BYTES, UploadQueue


def block(piece: int, *, offset: int = 0, length: int = 1) -> Block:
    return Block(PieceIndex(piece), offset, length)


def test_requests_of_one_fetcher_are_answered_in_order() -> None:
    queue = UploadQueue()
    for piece in (3, 1, 2):
        assert queue.offer("a", block(piece), 0.0) is None
    assert [queue.next("a", 0.0) for _ in range(4)] == [block(3), block(1), block(2), None]


def test_busy_when_every_slot_is_taken_and_free_again_when_one_is_done() -> None:
    queue = UploadQueue(slots=2)
    assert queue.offer("a", block(0), 0.0) is None
    assert queue.offer("b", block(0), 0.0) is None
    assert queue.offer("c", block(0), 0.0) == BUSY_RETRY_MS
    assert queue.offer("a", block(1), 0.0) is None, "a slot in hand takes more"
    queue.drop("b")
    assert queue.offer("c", block(0), 0.0) is None


def test_a_slot_is_kept_while_its_last_block_is_being_sent() -> None:
    queue = UploadQueue(slots=1)
    queue.offer("a", block(0), 0.0)
    assert queue.next("a", 0.0) == block(0)
    assert queue.offer("b", block(0), 0.0) == BUSY_RETRY_MS
    assert queue.next("a", 0.0) is None
    assert queue.offer("b", block(0), 0.0) is None


def test_one_fetcher_cannot_queue_without_bound() -> None:
    queue = UploadQueue()
    answers = [queue.offer("a", block(i), 0.0) for i in range(MAX_QUEUED + 1)]
    assert answers == [None] * MAX_QUEUED + [BUSY_RETRY_MS]


def test_cancelled_requests_are_not_sent_and_free_the_slot() -> None:
    queue = UploadQueue()
    queue.offer("a", block(0), 0.0)
    queue.offer("a", block(1), 0.0)
    queue.cancel("a", PieceIndex(0))
    assert queue.next("a", 0.0) == block(1)
    queue.offer("b", block(0), 0.0)
    queue.cancel("b", PieceIndex(0))
    assert queue.slots_taken == 1
    queue.cancel("nobody", PieceIndex(0))
    queue.drop("nobody")
    assert queue.next("nobody", 0.0) is None


def test_who_has_had_its_turn_gives_way_at_a_piece_and_not_within_one() -> None:
    queue = UploadQueue(slots=1)
    queue.offer("a", block(0, length=TURN_BYTES), 0.0)
    assert queue.offer("a", block(1, length=1), 0.0) is None, "nobody waits"
    assert queue.offer("b", block(0), 0.0) == BUSY_RETRY_MS
    assert queue.offer("a", block(1, offset=1), 0.0) is None
    assert queue.offer("a", block(2), 0.0) == BUSY_RETRY_MS
    while queue.next("a", 0.0):
        pass
    assert queue.offer("a", block(2), 0.1) == BUSY_RETRY_MS, "the free slot is kept for b"
    assert queue.offer("b", block(0), 0.2) is None


def test_a_slot_is_not_kept_for_who_does_not_come_back() -> None:
    queue = UploadQueue(slots=1)
    queue.offer("a", block(0), 0.0)
    queue.offer("b", block(0), 0.0)
    queue.drop("a")
    assert queue.offer("c", block(0), RESERVED_S) == BUSY_RETRY_MS
    queue.drop("c")
    assert queue.offer("c", block(0), RESERVED_S + 0.01) is None


def test_the_longest_waiting_comes_first() -> None:
    queue = UploadQueue(slots=1)
    queue.offer("a", block(0), 0.0)
    queue.offer("b", block(0), 0.0)
    queue.offer("c", block(0), 0.1)
    queue.drop("a")
    assert queue.offer("c", block(0), 0.3) == BUSY_RETRY_MS
    assert queue.offer("b", block(0), 0.3) is None


def test_a_fetcher_that_takes_nothing_does_not_keep_others_out() -> None:
    queue = UploadQueue(slots=1)
    queue.offer("stuck", block(0), 0.0)
    queue.next("stuck", 0.0)
    assert queue.offer("b", block(0), STUCK_S - 0.1) == BUSY_RETRY_MS
    assert queue.offer("b", block(0), STUCK_S) is None
    assert queue.next("b", STUCK_S) == block(0)
