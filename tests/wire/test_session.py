"""Greetings: who may speak to whom, and in which version."""

from typing import get_args

import pytest

from interfiles.errors import InvalidToken, Refused, RemoteProtocolError, UnsupportedVersion
from interfiles.wire.handshake_messages import Conversation, Failure, Hello, Role, Welcome
from interfiles.wire.session import NEWEST_VERSION, OLDEST_VERSION, answer, confirm, hello

CONVERSATIONS = get_args(Conversation)


def greeting(*, conversation: Conversation = "fleet", oldest: int = 1, newest: int = 1, features: str = "") -> Hello:
    return Hello(conversation, oldest, newest, features.split())


@pytest.mark.parametrize(("oldest", "newest"), [(1, 1), (1, 2), (1, 65535)])
def test_the_newest_shared_version_is_chosen(oldest: int, newest: int) -> None:
    assert answer(greeting(oldest=oldest, newest=newest), "fleet", "host").version == 1


@pytest.mark.parametrize(("oldest", "newest"), [(2, 2), (2, 65535), (65535, 65535), (2, 1)])
def test_no_shared_version_is_refused_in_words(oldest: int, newest: int) -> None:
    with pytest.raises(UnsupportedVersion, match=f"versions {oldest} to {newest} .*; install the same InterFiles"):
        answer(greeting(oldest=oldest, newest=newest), "fleet", "host")


@pytest.mark.parametrize("wanted", CONVERSATIONS)
@pytest.mark.parametrize("offered", CONVERSATIONS)
def test_a_conversation_is_held_only_where_it_is_offered(wanted: Conversation, offered: Conversation) -> None:
    if wanted == offered:
        assert answer(greeting(conversation=wanted), offered, "host") == Welcome(1, "host", [])
    else:
        with pytest.raises(RemoteProtocolError, match=f"for '{offered}' conversations, not '{wanted}'"):
            answer(greeting(conversation=wanted), offered, "host")


@pytest.mark.parametrize("role", get_args(Role))
def test_the_dialler_is_told_what_it_has_proved_to_be(role: Role) -> None:
    assert answer(greeting(), "fleet", role).role == role


def test_shared_features_are_those_of_both() -> None:
    assert answer(greeting(features="new fast"), "fleet", "host", ("fast", "small")).features == ["fast"]


def test_hello_says_what_is_wanted_and_not_who_wants_it() -> None:
    """That is the certificate's to say: whoever could say it here could say anything."""
    assert hello("swarm", ("fast",)) == Hello("swarm", OLDEST_VERSION, NEWEST_VERSION, ["fast"])


def test_a_welcome_is_confirmed() -> None:
    welcome = Welcome(1, "host", [])
    assert confirm(welcome) is welcome


@pytest.mark.parametrize("version", [2, 65535])
def test_a_version_that_was_not_offered_is_refused(version: int) -> None:
    with pytest.raises(UnsupportedVersion, match=f"chose protocol version {version}, 1 to 1 were offered"):
        confirm(Welcome(version, "host", []))


def test_a_failure_becomes_the_error_that_it_names() -> None:
    with pytest.raises(InvalidToken, match=r"^spent \\x1b\[2J$"):
        confirm(Failure("invalid-token", "spent \x1b[2J"))


def test_a_failure_of_a_newer_version_is_a_refusal() -> None:
    with pytest.raises(Refused, match="on strike"):
        confirm(Failure("strike", "on strike"))


def test_another_message_in_place_of_welcome_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="Hello came in place of Welcome"):
        confirm(greeting())
