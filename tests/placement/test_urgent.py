"""The order in which files that lack copies are looked after."""

from hypothesis import given
from hypothesis import strategies as st

from interfiles.placement.urgent import Urgent

FILES = st.sampled_from([bytes([number]) * 32 for number in range(6)])
CHANGES = st.lists(
    st.tuples(st.sampled_from(["put", "put", "drop", "pop", "put off", "retry"]), FILES, st.integers(0, 3)),
    max_size=60,
)


@given(CHANGES)
def test_the_most_urgent_is_always_first(changes: list[tuple[str, bytes, int]]) -> None:
    urgent, waiting, put_off = Urgent(), dict[bytes, tuple[int, int]](), list[bytes]()
    for what, file_id, left in changes:
        if what == "put":
            urgent.put((left, -1, file_id))
            if file_id not in put_off:
                waiting[file_id] = left, -1
        elif what == "drop":
            urgent.drop(file_id)
            waiting.pop(file_id, None)
            put_off = [one for one in put_off if one != file_id]
        elif what == "put off":
            urgent.put_off(file_id)
            waiting.pop(file_id, None)
            put_off += [file_id] if file_id not in put_off else []
        elif what == "retry":
            assert urgent.retry(left) == put_off[:left]
            put_off = put_off[left:]
        else:
            taken = urgent.pop()
            assert (taken is None) == (not waiting)
            if taken is not None:
                assert waiting.pop(taken) <= min(waiting.values(), default=(9, 9))
    left_over = []
    while (taken := urgent.pop()) is not None:
        left_over.append(waiting.pop(taken))
    assert not waiting
    assert left_over == sorted(left_over)


def test_of_those_alike_the_first_that_came() -> None:
    urgent = Urgent()
    for name in (b"b", b"a", b"c"):
        urgent.put((1, -2, name))
    urgent.put((1, -2, b"b"))
    assert [urgent.pop() for _ in range(4)] == [b"b", b"a", b"c", None]


def test_what_is_put_off_waits_until_it_is_retried() -> None:
    urgent = Urgent()
    urgent.put_off(b"a")
    urgent.put((0, -1, b"a"))
    assert urgent.pop() is None
    urgent.retry_this(b"a")
    urgent.put((0, -1, b"a"))
    assert urgent.pop() == b"a"
