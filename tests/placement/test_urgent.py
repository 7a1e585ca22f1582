"""The order in which files that lack copies are looked after."""

from hypothesis import given
from hypothesis import strategies as st

from interfiles.placement.urgent import Urgency, Urgent

FILES = st.sampled_from([bytes([number]) * 32 for number in range(6)])
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("put"), FILES, st.integers(0, 3), st.integers(-3, -1)),
        st.tuples(st.just("drop"), FILES, st.just(0), st.just(0)),
        st.tuples(st.just("pop"), st.just(b""), st.just(0), st.just(0)),
    ),
    max_size=60,
)


@given(CHANGES)
def test_the_most_urgent_is_always_first(changes: list[tuple[str, bytes, int, int]]) -> None:
    urgent, waiting = Urgent(), dict[bytes, Urgency]()
    for what, file_id, left, missing in changes:
        if what == "put":
            waiting[file_id] = (left, missing, file_id)
            urgent.put(waiting[file_id])
        elif what == "drop":
            waiting.pop(file_id, None)
            urgent.drop(file_id)
        else:
            first = min(waiting.values(), default=None)
            assert urgent.pop() == (first[2] if first is not None else None)
            if first is not None:
                del waiting[first[2]]
        assert len(urgent) == len(waiting)
    for urgency in sorted(waiting.values()):
        assert urgent.pop() == urgency[2]
    assert urgent.pop() is None


def test_what_has_changed_a_thousand_times_is_kept_once() -> None:
    urgent, file_id = Urgent(), b"f" * 32
    for number in range(1000):
        urgent.put((number % 2, -1, file_id))
    assert len(urgent._heap) < 100
    assert (urgent.pop(), urgent.pop()) == (file_id, None)
