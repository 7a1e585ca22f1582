"""The registry: who is up, who holds what, and whose handouts a change touches."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from interfiles.errors import RemoteProtocolError, UnknownHost
from interfiles.placement import registry as registry_module
from interfiles.placement.host_facts import Copies
from interfiles.placement.registry import Registry
from interfiles.wire.master_messages import MAX_HEARTBEAT_HOLDINGS, PAGE_ROWS, Holding, HoldingState

HEARTBEAT_S = 10.0
GRACE_S = 120.0
FILE = b"f" * 32
OTHER = b"o" * 32


def holding(state: HoldingState, pieces: int = 0, file_id: bytes = FILE) -> Holding:
    return Holding(file_id, state, pieces, 0, 0, "", False)


def fleet(*names: str, now: float = 0.0) -> Registry:
    """A registry in which hosts of these names, also their ids, are up."""
    made = Registry(heartbeat_s=HEARTBEAT_S, grace_s=GRACE_S)
    for name in names:
        made.admit(name, name, "", f"{name}:4851", heard_at=now)
        made.register(name, name, "", f"{name}:4851", now)
    return made


def states(registry: Registry, now: float) -> dict[str, str]:
    rows, _ = registry.host_page(0, now)
    return {row.name: row.state for row in rows}


class TestHosts:
    def test_a_host_is_up_from_its_registration_on(self) -> None:
        registry = Registry(heartbeat_s=HEARTBEAT_S, grace_s=GRACE_S)
        registry.admit("a", "a", "", "", heard_at=-500)
        registry.admit("b", "b", "", "", heard_at=-50)
        assert states(registry, 0) == {"a": "gone", "b": "suspect"}
        registry.register("a", "a", "rack-1", "10.0.0.1:4851", 0)
        assert states(registry, 0) == {"a": "live", "b": "suspect"}
        assert registry.host_page(0, 0)[0][0].address == "10.0.0.1:4851"

    def test_a_silent_host_is_suspect_after_two_missed_heartbeats_and_gone_after_the_grace_time(self) -> None:
        registry = fleet("a", "b")
        registry.hear("b", 21)
        registry.expire(21)
        assert states(registry, 21) == {"a": "live", "b": "live"}
        registry.expire(23)
        assert states(registry, 23) == {"a": "suspect", "b": "live"}
        registry.hear("b", 120)
        assert states(registry, 120) == {"a": "suspect", "b": "live"}
        assert states(registry, 121) == {"a": "gone", "b": "live"}

    def test_a_host_that_loses_its_connection_is_suspect_at_once(self) -> None:
        registry = fleet("a")
        registry.lose("a")
        assert states(registry, 0.1) == {"a": "suspect"}

    def test_a_host_that_is_heard_again_is_live_again(self) -> None:
        registry = fleet("a")
        registry.apply("a", [holding("complete", 4)], replace=True)
        assert registry.expire(23) == {FILE}
        assert registry.expire(24) == set()
        assert registry.hear("a", 25) == {FILE}
        assert registry.hear("a", 26) == set()
        assert states(registry, 25) == {"a": "live"}

    def test_a_host_that_was_removed_is_not_known(self) -> None:
        registry = fleet("a", "b")
        registry.apply("a", [holding("complete", 4)], replace=True)
        assert registry.remove("a") == {FILE}
        assert registry.remove("a") == set()
        assert registry.holders(FILE) == []
        with pytest.raises(UnknownHost):
            registry.register("a", "a", "", "", 0)

    def test_pages_go_by_name_to_the_end(self) -> None:
        registry = fleet(*(f"host-{number:03}" for number in reversed(range(PAGE_ROWS + 3))))
        first, more = registry.host_page(0, 0)
        rest, none_more = registry.host_page(PAGE_ROWS, 0)
        assert [row.name for row in first + rest] == [f"host-{number:03}" for number in range(PAGE_ROWS + 3)]
        assert (more, none_more) == (True, False)
        assert registry.host_page(10_000, 0) == ([], False)

    def test_a_row_has_what_a_person_wants_to_know(self) -> None:
        registry = fleet("a")
        registry.set_room("a", used=220, free=1400)
        registry.apply("a", [holding("complete", 4), holding("fetching", 1, OTHER)], replace=True)
        (row,), _ = registry.host_page(0, 7.5)
        assert (row.files, row.used, row.free, row.last_seen_s, row.state) == (1, 220, 1400, 7.5, "live")


class TestHoldings:
    def test_a_change_of_state_or_the_first_piece_touches_the_file_and_progress_does_not(self) -> None:
        registry = fleet("a")
        for told, touched in (
            (holding("waiting"), {FILE}),
            (holding("fetching"), {FILE}),
            (holding("fetching", 1), {FILE}),
            (holding("fetching", 99), set()),
            (holding("complete", 100), {FILE}),
            (holding("complete", 100), set()),
            (holding("none"), {FILE}),
            (holding("none"), set()),
        ):
            assert registry.apply("a", [told], replace=False) == touched
            registry.check_invariants()

    def test_replacing_drops_what_is_not_named(self) -> None:
        registry = fleet("a")
        registry.apply("a", [holding("complete", 4), holding("complete", 4, OTHER)], replace=True)
        assert registry.apply("a", [holding("complete", 4)], replace=True) == {OTHER}
        assert registry.holders(OTHER) == []
        registry.check_invariants()

    def test_a_host_of_many_files_that_announces_them_anew_keeps_them_until_it_has_told_all(self) -> None:
        registry = fleet("a")
        files = [number.to_bytes(32, "big") for number in range(MAX_HEARTBEAT_HOLDINGS + 2)]
        all_held = [holding("complete", 4, file_id) for file_id in files]
        full, rest = all_held[:MAX_HEARTBEAT_HOLDINGS], all_held[MAX_HEARTBEAT_HOLDINGS:]
        registry.apply("a", full, replace=True)
        assert not registry.room("a", 0).is_known, "more is to come"
        registry.apply("a", rest, replace=False)
        assert registry.apply("a", full, replace=True) == set()
        assert len(registry.files_of("a")) == MAX_HEARTBEAT_HOLDINGS + 2
        assert registry.room("a", 0).is_known
        registry.check_invariants()
        assert registry.apply("a", rest[:1], replace=False) == {files[-1]}
        assert registry.files_of("a") == files[:-1]
        registry.check_invariants()

    def test_copies_are_counted_without_hosts_whose_copies_do_not_count(self) -> None:
        registry = fleet("a", "b", "c", "d")
        registry.apply("a", [holding("complete", 4)], replace=True)
        registry.apply("b", [holding("complete", 4)], replace=True)
        registry.apply("c", [holding("fetching", 1)], replace=True)
        registry.apply("d", [holding("waiting", 0)], replace=True)
        assert registry.copies([FILE, OTHER], ()) == {FILE: Copies(2, 1), OTHER: Copies(0, 0)}
        assert registry.copies([FILE], {"a"})[FILE] == Copies(1, 1)
        assert registry.copies([FILE], {"c", "d"})[FILE] == Copies(2, 0)

    def test_who_has_changed_is_told_once(self) -> None:
        registry = fleet("a", "b", "c")
        assert registry.changed(0) == {"a", "b", "c"}
        assert registry.changed(0) == set()
        registry.hear("a", 1)
        registry.apply("b", [holding("complete", 4)], replace=False)
        registry.set_room("c", used=0, free=10)
        assert registry.changed(1) == {"c", "b"}, "it has announced all, and c has other room"
        registry.set_room("c", used=4, free=10)
        registry.apply("b", [holding("none")], replace=False)
        assert registry.changed(2) == set()
        registry.lose("a")
        registry.set_draining("b", True)
        registry.remove("c")
        assert registry.changed(3) == {"a", "b", "c"}
        assert registry.changed(3 + GRACE_S / 2) == set()
        assert registry.changed(4 + GRACE_S) == {"a"}, "it is gone by now"
        assert registry.changed(5 + GRACE_S) == set()

    def test_forgetting_a_file_names_who_had_some_of_it(self) -> None:
        registry = fleet("a", "b", "c")
        registry.apply("a", [holding("complete", 4)], replace=True)
        registry.apply("b", [holding("fetching", 1)], replace=True)
        registry.apply("c", [holding("waiting")], replace=True)
        assert registry.forget_file(FILE) == ["a", "b"]
        assert registry.forget_file(FILE) == []
        assert registry.holders(FILE) == []
        registry.check_invariants()

    def test_too_many_holdings_are_refused_and_nothing_is_applied(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(registry_module, "MAX_HOLDINGS", 2)
        registry = fleet("a")
        registry.apply("a", [holding("complete", 4), holding("complete", 4, OTHER)], replace=True)
        third = b"t" * 32
        with pytest.raises(RemoteProtocolError, match="a announces more than 2 files"):
            registry.apply(
                "a", [holding("none"), holding("complete", 4, third), holding("complete", 1, b"x" * 32)], replace=False
            )
        assert registry.holders(FILE) == ["a"]
        registry.apply("a", [holding("none"), holding("complete", 4, third)], replace=False)
        assert registry.holders(third) == ["a"]

    def test_a_holder_page_has_the_hosts_own_words(self) -> None:
        registry = fleet("b", "a")
        registry.apply("b", [Holding(FILE, "fetching", 7, 1_100, 0, "one peer is slow", False)], replace=True)
        registry.apply("a", [holding("complete", 9)], replace=True)
        rows, more = registry.holder_page(FILE, 0, 3.0)
        assert [row.name for row in rows] == ["a", "b"]
        assert rows[1].holding == Holding(FILE, "fetching", 7, 1_100, 0, "one peer is slow", False)
        assert not more
        assert registry.holder_page(FILE, 1, 3.0)[0][0].name == "b"


class TestSwarms:
    def test_members_can_be_dialled_and_fetchers_want_to(self) -> None:
        registry = fleet("whole", "part", "idle", "paused", "stuck", "damaged", "spoilt", "down")
        for host, told in (
            ("whole", holding("complete", 4)),
            ("part", holding("fetching", 2)),
            ("idle", holding("waiting")),
            ("paused", holding("paused", 3)),
            ("stuck", holding("paused", 0)),
            ("damaged", holding("damaged", 3)),
            ("spoilt", holding("damaged", 0)),
            ("down", holding("complete", 4)),
        ):
            registry.apply(host, [told], replace=True)
        registry.lose("down")
        some = dict.fromkeys(["part", "idle", "paused", "damaged"], False)
        assert registry.members(FILE) == {"whole": True, **some}
        assert registry.fetchers(FILE) == ["part", "idle"]

    def test_a_host_that_comes_or_goes_touches_all_that_it_holds(self) -> None:
        registry = fleet("a")
        registry.apply("a", [holding("complete", 4), holding("paused", 1, OTHER)], replace=True)
        assert registry.lose("a") == {FILE, OTHER}
        assert registry.lose("a") == set()
        assert registry.register("a", "a", "", "a:4851", 1) == {FILE, OTHER}

    def test_absent_holders_are_named_only_while_nobody_that_is_up_has_anything(self) -> None:
        registry = fleet("asker", "part", "whole", "late")
        registry.apply("asker", [holding("waiting", 0)], replace=True)
        registry.apply("part", [holding("fetching", 2)], replace=True)
        registry.apply("whole", [holding("complete", 4)], replace=True)
        registry.apply("late", [holding("complete", 4)], replace=True)
        registry.hear("late", 5)
        assert registry.absent(FILE, "asker", 10) == []
        for host in ("part", "whole", "late"):
            registry.lose(host)
        absent = [(holder.name, holder.last_seen_s) for holder in registry.absent(FILE, "asker", 10)]
        assert absent == [("late", 5), ("whole", 10), ("part", 10)]
        assert registry.absent(OTHER, "asker", 10) == []

    def test_what_the_asker_has_itself_is_no_source(self) -> None:
        registry = fleet("asker", "gone")
        registry.apply("asker", [holding("waiting", 3)], replace=True)
        registry.apply("gone", [holding("complete", 4)], replace=True)
        registry.lose("gone")
        assert [holder.name for holder in registry.absent(FILE, "asker", 0)] == ["gone"]


HOSTS = ["a", "b", "c"]
FILES = [bytes([number]) * 32 for number in range(4)]
holdings = st.lists(
    st.builds(
        holding,
        st.sampled_from(["fetching", "waiting", "paused", "damaged", "complete", "none"]),
        st.integers(min_value=0, max_value=3),
        st.sampled_from(FILES),
    ),
    max_size=5,
)


class RegistryMachine(RuleBasedStateMachine):
    """Any sequence of events keeps the registry consistent, and everything that changes is reported as touched."""

    def __init__(self) -> None:
        super().__init__()
        self.registry = Registry(heartbeat_s=HEARTBEAT_S, grace_s=GRACE_S)
        self.now = 0.0
        self.admitted: set[str] = set()
        self.held: dict[str, dict[bytes, Holding]] = {}

    def swarms(self) -> dict[bytes, tuple[dict[str, bool], list[str]]]:
        return {file_id: (self.registry.members(file_id), self.registry.fetchers(file_id)) for file_id in FILES}

    def checked(self, before: dict[bytes, tuple[dict[str, bool], list[str]]], touched: set[bytes]) -> None:
        after = self.swarms()
        assert {file_id for file_id in FILES if before[file_id] != after[file_id]} <= touched

    @rule(host=st.sampled_from(HOSTS))
    def admit(self, host: str) -> None:
        if host not in self.admitted:
            self.admitted.add(host)
            self.held[host] = {}
            self.registry.admit(host, host, "", "", heard_at=self.now)

    @precondition(lambda self: self.admitted)
    @rule(data=st.data(), event=st.sampled_from(["register", "hear", "lose", "remove"]))
    def happen(self, data: st.DataObject, event: str) -> None:
        host = data.draw(st.sampled_from(sorted(self.admitted)))
        before = self.swarms()
        match event:
            case "register":
                touched = self.registry.register(host, host, "", f"{host}:1", self.now)
            case "hear":
                touched = self.registry.hear(host, self.now)
            case "lose":
                touched = self.registry.lose(host)
            case _:
                touched = self.registry.remove(host)
                self.admitted.discard(host)
                del self.held[host]
        self.checked(before, touched)

    @precondition(lambda self: self.admitted)
    @rule(data=st.data(), told=holdings, replace=st.booleans())
    def announce(self, data: st.DataObject, told: list[Holding], replace: bool) -> None:
        host = data.draw(st.sampled_from(sorted(self.admitted)))
        before = self.swarms()
        self.checked(before, self.registry.apply(host, told, replace=replace))
        if replace:
            self.held[host] = {}
        self.held[host].update({one.file_id: one for one in told})

    @rule(file_id=st.sampled_from(FILES))
    def forget(self, file_id: bytes) -> None:
        self.registry.forget_file(file_id)
        for held in self.held.values():
            held.pop(file_id, None)

    @rule(seconds=st.sampled_from([1.0, 15.0, 130.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        before = self.swarms()
        self.checked(before, self.registry.expire(self.now))

    @invariant()
    def consistent(self) -> None:
        self.registry.check_invariants()
        for file_id in FILES:
            held = {host: one.get(file_id) for host, one in self.held.items()}
            expected = {host for host, one in held.items() if one is not None and one.state != "none"}
            assert set(self.registry.holders(file_id)) == expected
            assert set(self.registry.fetchers(file_id)) <= set(self.registry.members(file_id))


TestRegistryMachine = RegistryMachine.TestCase
