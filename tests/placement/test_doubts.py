"""Copies that do not count because their hosts could not show a piece."""

from interfiles.placement.doubts import ASK_AGAIN_S, DOUBT_S, Doubt, Doubts

FILE, OTHER = b"f" * 32, b"o" * 32
DOUBT = Doubt(FILE, "liar", 7)


def test_a_copy_counts_again_once_its_host_shows_the_piece() -> None:
    doubts = Doubts()
    assert doubts.note(DOUBT, 0)
    assert doubts.hosts(FILE, 1) == ["liar"]
    assert doubts.hosts(OTHER, 1) == []
    assert not doubts.end(Doubt(FILE, "liar", 8)), "it may well have another"
    assert not doubts.end(Doubt(FILE, "other", 7))
    assert doubts.end(DOUBT)
    assert doubts.hosts(FILE, 1) == []
    assert not doubts.end(DOUBT)


def test_it_is_asked_again_and_again() -> None:
    doubts = Doubts()
    doubts.note(DOUBT, 0)
    assert doubts.to_ask(ASK_AGAIN_S - 1) is None
    assert doubts.to_ask(ASK_AGAIN_S) == DOUBT
    assert doubts.to_ask(ASK_AGAIN_S + 1) is None, "others have their turn"
    assert not doubts.note(DOUBT, ASK_AGAIN_S + 2), "that is no news"
    assert doubts.hosts(FILE, DOUBT_S + 1) == ["liar"]
    assert doubts.to_ask(2 * ASK_AGAIN_S + 2) == DOUBT


def test_what_cannot_be_asked_for_any_more_is_forgotten_in_the_end() -> None:
    doubts = Doubts()
    doubts.note(DOUBT, 0)
    assert doubts.to_ask(DOUBT_S - 1) == DOUBT
    assert doubts.hosts(FILE, DOUBT_S) == []
    assert doubts.to_ask(DOUBT_S + ASK_AGAIN_S) is None
    assert doubts.note(DOUBT, DOUBT_S + ASK_AGAIN_S), "it had counted again"


def test_another_copy_is_not_doubted() -> None:
    doubts = Doubts()
    for file_id in (FILE, OTHER):
        doubts.note(Doubt(file_id, "liar", 1), 0)
        doubts.note(Doubt(file_id, "other", 1), 0)
    doubts.trust("liar", [FILE])
    assert (doubts.hosts(FILE, 1), doubts.hosts(OTHER, 1)) == (["other"], ["liar", "other"])
    doubts.forget_host("other")
    assert (doubts.hosts(FILE, 1), doubts.hosts(OTHER, 1)) == ([], ["liar"])
    doubts.forget_file(OTHER)
    assert doubts.hosts(OTHER, 1) == []
