"""Tokens: who is let in, how often and until when, and who was let in by which."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from interfiles.errors import InvalidToken, Refused, UnknownToken
from interfiles.storage import members as members_module
from interfiles.storage.catalogue import Catalogue
from interfiles.storage.tokens import KEPT_AFTER_EXPIRY_S, MAX_SHOWN_USES, Token, TokenUse
from tests.storage.fleets import HOUR, SECRET_HASH, TOKEN_ID, join, token

NEW_ONE = "; get a new one with `interfiles token` on the master's host"


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    opened = Catalogue(tmp_path / "catalogue", new_fleet_id="f1ee7", now=0)
    yield opened
    opened.close()


class TestLettingIn:
    @pytest.mark.parametrize(("token_id", "secret_hash"), [(b"another!", SECRET_HASH), (TOKEN_ID, b"x" * 32)])
    def test_an_unknown_token_and_a_wrong_secret_read_the_same(
        self, catalogue: Catalogue, token_id: bytes, secret_hash: bytes
    ) -> None:
        catalogue.tokens.add(token(name="render-07", uses=1))
        with pytest.raises(InvalidToken) as caught:
            join(catalogue, 1, token_id=token_id, secret_hash=secret_hash)
        assert str(caught.value) == "this token is not one of this master's" + NEW_ONE
        assert catalogue.members.hosts() == []

    @pytest.mark.parametrize("state", ["expired", "used up", "revoked"])
    def test_a_wrong_secret_never_learns_what_became_of_the_token(self, catalogue: Catalogue, state: str) -> None:
        catalogue.tokens.add(token(uses=1))
        if state == "used up":
            join(catalogue, 1)
        elif state == "revoked":
            catalogue.tokens.revoke(TOKEN_ID.hex(), now=1)
        with pytest.raises(InvalidToken, match="is not one of this master's"):
            join(catalogue, 2, secret_hash=b"x" * 32, now=2 * HOUR if state == "expired" else 1)

    def test_an_expired_token_says_how_old_it_is(self, catalogue: Catalogue) -> None:
        catalogue.tokens.add(token(made_at=1_000))
        join(catalogue, 1, now=1_000 + HOUR - 1)
        with pytest.raises(InvalidToken) as caught:
            join(catalogue, 2, now=1_000 + 2 * HOUR)
        assert str(caught.value) == "this token has expired (made 2 h ago, good for 1 h)" + NEW_ONE
        with pytest.raises(InvalidToken, match="has expired"):
            join(catalogue, 2, now=1_000 + HOUR)

    def test_a_token_is_good_for_as_many_hosts_as_it_says(self, catalogue: Catalogue) -> None:
        catalogue.tokens.add(token(uses=2))
        join(catalogue, 1)
        join(catalogue, 2)
        with pytest.raises(InvalidToken) as caught:
            join(catalogue, 3)
        assert str(caught.value) == "this token is used up (it was good for 2 hosts)" + NEW_ONE
        assert catalogue.members.count() == 2

    def test_a_removed_host_does_not_give_its_use_back(self, catalogue: Catalogue) -> None:
        catalogue.tokens.add(token(uses=1))
        join(catalogue, 1)
        catalogue.members.remove("render", now=1)
        with pytest.raises(InvalidToken, match=r"used up \(it was good for 1 host\)"):
            join(catalogue, 2)

    def test_a_refused_join_takes_no_use_and_is_not_audited(
        self, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        catalogue.tokens.add(token(uses=2))
        join(catalogue, 1)
        monkeypatch.setattr(members_module, "MAX_HOSTS", 1)
        with pytest.raises(Refused, match="the fleet has 1 hosts, the most there can be; remove some first"):
            join(catalogue, 2)
        assert [use.host_name for use in catalogue.tokens.uses(TOKEN_ID)] == ["render"]
        monkeypatch.undo()
        join(catalogue, 2)

    def test_a_named_token_lets_in_one_host_of_that_name(self, catalogue: Catalogue) -> None:
        catalogue.tokens.add(token(uses=1, name="render-07"))
        host = join(catalogue, 1, "as-it-likes")
        assert (host.name, host.is_named) == ("render-07", True)
        with pytest.raises(InvalidToken, match=r"used up \(it was good for 1 host\)"):
            join(catalogue, 2)

    def test_a_named_token_waits_while_another_host_has_the_name(self, catalogue: Catalogue) -> None:
        catalogue.tokens.add(token())
        catalogue.tokens.add(token(uses=1, name="render", token_id=b"named!!!"))
        join(catalogue, 1, "Render")
        with pytest.raises(Refused, match="a host called render belongs to the fleet already; remove that one first"):
            join(catalogue, 2, token_id=b"named!!!")
        catalogue.members.remove("render", now=1)
        assert join(catalogue, 2, token_id=b"named!!!").name == "render"

    def test_secrets_are_not_shown(self) -> None:
        assert "sssss" not in repr(token())


class TestAudit:
    def test_every_use_says_who_when_and_from_where(self, catalogue: Catalogue) -> None:
        catalogue.tokens.add(token())
        catalogue.tokens.add(token(token_id=b"other id", made_at=1))
        join(catalogue, 1, now=10, came_from="10.0.0.1")
        join(catalogue, 2, now=20, came_from="2001:db8::2")
        join(catalogue, 3, "other", now=20, token_id=b"other id", came_from="10.0.0.3")
        assert catalogue.tokens.uses(TOKEN_ID) == [
            TokenUse(20, f"{2:032x}", "render-2", "2001:db8::2"),
            TokenUse(10, f"{1:032x}", "render", "10.0.0.1"),
        ]
        assert [(listed.token_id, listed.used) for listed in catalogue.tokens.all()] == [
            (b"other id", 1),
            (TOKEN_ID, 2),
        ]
        catalogue.members.remove("render", now=30)
        assert len(catalogue.tokens.uses(TOKEN_ID)) == 2, "a host that was removed has joined all the same"

    def test_only_the_latest_uses_are_shown(self, catalogue: Catalogue) -> None:
        catalogue.tokens.add(token())
        for number in range(MAX_SHOWN_USES + 5):
            join(catalogue, number, f"host-{number}", now=number)
        shown = catalogue.tokens.uses(TOKEN_ID)
        assert [use.host_name for use in shown] == [f"host-{number}" for number in range(104, 4, -1)]
        assert catalogue.tokens.all()[0].used == MAX_SHOWN_USES + 5

    def test_the_audit_survives_a_restart(self, catalogue: Catalogue, tmp_path: Path) -> None:
        catalogue.tokens.add(token(uses=1, name="render-07"))
        join(catalogue, 1, now=10)
        catalogue.tokens.revoke(TOKEN_ID.hex(), now=20)
        again = Catalogue(tmp_path / "catalogue", new_fleet_id="other", now=0)
        assert again.tokens.all() == [Token(TOKEN_ID, SECRET_HASH, "render-07", 0, HOUR, 1, 1, 20)]
        assert again.tokens.uses(TOKEN_ID) == catalogue.tokens.uses(TOKEN_ID) != []
        again.close()

    def test_long_expired_tokens_are_dropped_with_the_next_one_made_and_their_uses_too(
        self, catalogue: Catalogue
    ) -> None:
        catalogue.tokens.add(token(token_id=b"ancient!"))
        catalogue.tokens.add(token(made_at=10, token_id=b"expired!"))
        join(catalogue, 1, token_id=b"ancient!")
        join(catalogue, 2, token_id=b"expired!", now=10)
        now = KEPT_AFTER_EXPIRY_S + HOUR + 5
        catalogue.tokens.add(token(made_at=now))
        assert [listed.token_id for listed in catalogue.tokens.all()] == [TOKEN_ID, b"expired!"]
        assert catalogue.tokens.uses(b"ancient!") == []
        assert len(catalogue.tokens.uses(b"expired!")) == 1
        with pytest.raises(InvalidToken, match="not one of this master's"):
            join(catalogue, 3, token_id=b"ancient!", now=now)
        with pytest.raises(InvalidToken, match="has expired"):
            join(catalogue, 3, token_id=b"expired!", now=now)
        assert catalogue.members.count() == 2


class TestRevoking:
    def test_a_revoked_token_lets_nobody_in(self, catalogue: Catalogue) -> None:
        catalogue.tokens.add(token())
        join(catalogue, 1)
        assert catalogue.tokens.revoke(TOKEN_ID.hex(), now=5).used == 1
        with pytest.raises(InvalidToken) as caught:
            join(catalogue, 2)
        assert str(caught.value) == "this token was revoked" + NEW_ONE
        assert catalogue.members.count() == 1, "who is in stays in"

    def test_it_goes_by_the_start_of_its_id_in_either_case(self, catalogue: Catalogue) -> None:
        for token_id in ("aa00000000000001", "aa00000000000002", "bb00000000000000"):
            catalogue.tokens.add(token(token_id=bytes.fromhex(token_id)))
        with pytest.raises(UnknownToken, match="2 tokens have an id that begins with aa; give more of it"):
            catalogue.tokens.revoke("aa", now=1)
        assert catalogue.tokens.revoke("AA00000000000002", now=1).token_id.hex() == "aa00000000000002"
        assert catalogue.tokens.revoke("B", now=1).token_id.hex() == "bb00000000000000"
        states = {
            listed.token_id.hex()[:2] + listed.token_id.hex()[-1]: listed.state(1) for listed in catalogue.tokens.all()
        }
        assert states == {"aa1": "good", "aa2": "revoked", "bb0": "revoked"}

    @pytest.mark.parametrize(
        ("query", "shown"),
        [("", "''"), ("cc", "'cc'"), ("IF1-ABC", "'IF1-ABC'"), ("\x1b[2J", r"'\\x1b\[2J'"), ("%", "'%'")],
    )
    def test_an_unknown_one_is_told(self, catalogue: Catalogue, query: str, shown: str) -> None:
        catalogue.tokens.add(token(token_id=bytes(8)))
        with pytest.raises(
            UnknownToken, match=f"^no token has an id that begins with {shown}; see `interfiles token li"
        ):
            catalogue.tokens.revoke(query, now=1)
        assert catalogue.tokens.all()[0].revoked_at is None

    def test_revoking_again_keeps_the_first_time(self, catalogue: Catalogue) -> None:
        catalogue.tokens.add(token())
        catalogue.tokens.revoke(TOKEN_ID.hex(), now=5)
        catalogue.tokens.revoke(TOKEN_ID.hex(), now=9)
        assert catalogue.tokens.all()[0].revoked_at == 5


def test_the_state_names_the_strongest_reason() -> None:
    fresh = token(uses=1)
    assert fresh.state(HOUR - 1) == "good"
    assert fresh.state(HOUR) == "expired"
    used = Token(TOKEN_ID, SECRET_HASH, "", 0, HOUR, 1, used=1)
    assert (used.state(0), used.state(HOUR)) == ("used up", "expired")
    revoked = Token(TOKEN_ID, SECRET_HASH, "", 0, HOUR, 1, used=1, revoked_at=1)
    assert revoked.state(2 * HOUR) == "revoked"
