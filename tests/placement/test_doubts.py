"""Copies that do not count because their hosts could not show a piece."""

from interfiles.placement.doubts import ASK_AGAIN_S, DOUBT_S, MAX_DOUBTS, Doubt, Doubts
from interfiles.placement.orders import MEND_S

FILE, OTHER = b"f" * 32, b"o" * 32
DOUBT = Doubt(FILE, "liar", 7)


def test_a_copy_counts_again_once_its_host_shows_the_piece() -> None:
    doubts = Doubts()
    assert doubts.note(DOUBT, 0)
    assert set(doubts.hosts(FILE)) == {"liar"}
    assert set(doubts.hosts(OTHER)) == set()
    assert not doubts.end(Doubt(FILE, "liar", 8)), "it may well have another"
    assert not doubts.end(Doubt(FILE, "other", 7))
    assert doubts.end(DOUBT)
    assert set(doubts.hosts(FILE)) == set()
    assert not doubts.end(DOUBT)


def test_it_is_asked_again_and_again_for_the_piece_that_it_could_not_show_first() -> None:
    doubts = Doubts()
    doubts.note(DOUBT, 0)
    assert doubts.to_ask(ASK_AGAIN_S - 1) is None
    assert doubts.to_ask(ASK_AGAIN_S) == DOUBT
    assert doubts.to_ask(ASK_AGAIN_S + 1) is None, "it has had its turn"
    assert not doubts.note(Doubt(FILE, "liar", 8), ASK_AGAIN_S + 2), "that is no news"
    assert doubts.expire(DOUBT_S + 1) == set()
    assert doubts.to_ask(2 * ASK_AGAIN_S + 2) == DOUBT


def test_who_cannot_be_asked_any_more_is_believed_in_the_end() -> None:
    doubts = Doubts()
    doubts.note(DOUBT, 0)
    assert doubts.expire(2 * DOUBT_S) == set(), "nobody has asked it again yet"
    assert doubts.to_ask(2 * DOUBT_S) == DOUBT
    assert doubts.expire(2 * DOUBT_S) == {FILE}
    assert set(doubts.hosts(FILE)) == set()
    assert doubts.note(DOUBT, 2 * DOUBT_S), "it had counted again"


def test_a_host_has_some_time_to_find_out_and_begin_to_mend() -> None:
    doubts = Doubts()
    doubts.note(DOUBT, 0)
    assert doubts.is_fresh(FILE, "liar", MEND_S - 1)
    assert not doubts.is_fresh(OTHER, "liar", 0)
    assert doubts.age(MEND_S - 1) == set()
    doubts.note(DOUBT, MEND_S - 1)
    assert not doubts.is_fresh(FILE, "liar", MEND_S), "what is said again is no news"
    assert doubts.age(MEND_S) == {FILE}
    assert doubts.age(MEND_S) == set()
    doubts.end(DOUBT)
    doubts.note(DOUBT, 100)
    assert doubts.is_fresh(FILE, "liar", 100)
    doubts.end(DOUBT)
    assert doubts.age(1000) == set()


def test_each_of_many_has_its_turn() -> None:
    doubts, asked = Doubts(), set[bytes]()
    files = [bytes([number]) * 32 for number in range(20)]
    for number, file_id in enumerate(files):
        doubts.note(Doubt(file_id, "liar", 0), number)
    for now in range(0, int(40 * ASK_AGAIN_S), 120):  # as in a small fleet: five in the time until one is due again
        if (doubt := doubts.to_ask(now)) is not None:
            asked.add(doubt.file_id)
            doubts.note(doubt, now)
        doubts.expire(now)
    assert asked == set(files)
    assert all(set(doubts.hosts(file_id)) == {"liar"} for file_id in files)


def test_another_copy_is_not_doubted() -> None:
    doubts = Doubts()
    for file_id in (FILE, OTHER):
        doubts.note(Doubt(file_id, "liar", 1), 0)
        doubts.note(Doubt(file_id, "other", 1), 0)
    doubts.trust("liar", [FILE])
    assert (set(doubts.hosts(FILE)), set(doubts.hosts(OTHER))) == ({"other"}, {"liar", "other"})
    doubts.forget_host("other")
    assert (set(doubts.hosts(FILE)), set(doubts.hosts(OTHER))) == (set(), {"liar"})
    doubts.forget_file(OTHER)
    assert set(doubts.hosts(OTHER)) == set()


def test_of_too_many_the_oldest_is_forgotten() -> None:
    doubts = Doubts()
    for number in range(MAX_DOUBTS + 1):
        doubts.note(Doubt(number.to_bytes(32, "big"), "liar", 0), 0)
    assert set(doubts.hosts((0).to_bytes(32, "big"))) == set()
    assert set(doubts.hosts((1).to_bytes(32, "big"))) == {"liar"}
