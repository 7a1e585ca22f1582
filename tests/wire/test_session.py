"""Greetings: who may speak to whom, in which version; and who may say what from then on."""

import msgpack
import pytest

from interfiles.errors import InvalidToken, Refused, RemoteProtocolError, UnsupportedVersion
from interfiles.wire.codec import Codec, Message
from interfiles.wire.handshake_messages import HELLO, WELCOME, Conversation, Failure, Hello, Welcome
from interfiles.wire.session import CONVERSATIONS, NEWEST_VERSION, Identity, answer, confirm, hello
from tests.wire.values import message_types, smallest

HOST, OTHER_HOST = "a" * 32, "b" * 32
FLEET, OTHER_FLEET = "c" * 32, "d" * 32
MASTER = Identity(FLEET, HOST, ("fast", "small"))


def greeting(
    *, conversation: Conversation = "fleet", oldest: int = 1, newest: int = 1, fleet: str = "", features: str = ""
) -> Hello:
    return Hello(conversation, oldest, newest, fleet, OTHER_HOST, features.split())


@pytest.mark.parametrize(("oldest", "newest"), [(1, 1), (1, 2), (1, 65535)])
def test_the_newest_shared_version_is_chosen(oldest: int, newest: int) -> None:
    assert answer(greeting(oldest=oldest, newest=newest), "fleet", MASTER).version == 1


@pytest.mark.parametrize(("oldest", "newest"), [(2, 2), (2, 65535), (65535, 65535), (2, 1)])
def test_no_shared_version_is_refused_in_words(oldest: int, newest: int) -> None:
    with pytest.raises(UnsupportedVersion, match=f"versions {oldest} to {newest} .*; install the same InterFiles"):
        answer(greeting(oldest=oldest, newest=newest), "fleet", MASTER)


@pytest.mark.parametrize("wanted", CONVERSATIONS)
@pytest.mark.parametrize("offered", CONVERSATIONS)
def test_a_conversation_is_held_only_where_it_is_offered(wanted: Conversation, offered: Conversation) -> None:
    if wanted == offered:
        assert answer(greeting(conversation=wanted, fleet=FLEET), offered, MASTER) == Welcome(1, FLEET, HOST, [])
    else:
        with pytest.raises(RemoteProtocolError, match=f"for '{offered}' conversations, not '{wanted}'"):
            answer(greeting(conversation=wanted), offered, MASTER)


def test_a_host_of_another_fleet_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="fleet dddd is not this fleet, cccc"):
        answer(greeting(fleet=OTHER_FLEET), "fleet", MASTER)


def test_a_peer_without_a_fleet_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="fleet none is not this fleet, cccc"):
        answer(greeting(conversation="swarm"), "swarm", MASTER)


@pytest.mark.parametrize(("theirs", "ours"), [("", FLEET), (FLEET, ""), ("", ""), (FLEET, FLEET)])
def test_whoever_belongs_to_no_fleet_yet_may_speak(theirs: str, ours: str) -> None:
    assert answer(greeting(fleet=theirs), "fleet", Identity(ours, HOST)).fleet == ours


def test_shared_features_are_those_of_both() -> None:
    assert answer(greeting(features="new fast"), "fleet", MASTER).features == ["fast"]


def test_hello_says_who_speaks() -> None:
    assert hello("swarm", MASTER) == Hello("swarm", 1, NEWEST_VERSION, FLEET, HOST, ["fast", "small"])


def test_a_welcome_is_confirmed() -> None:
    welcome = Welcome(1, FLEET, HOST, [])
    assert confirm(welcome) is welcome


@pytest.mark.parametrize("version", [2, 65535])
def test_a_version_that_was_not_offered_is_refused(version: int) -> None:
    with pytest.raises(UnsupportedVersion, match=f"chose protocol version {version}, 1 to 1 were offered"):
        confirm(Welcome(version, FLEET, HOST, []))


def test_a_failure_becomes_the_error_that_it_names() -> None:
    with pytest.raises(InvalidToken, match=r"^spent \\x1b\[2J$"):
        confirm(Failure("invalid-token", "spent \x1b[2J"))


def test_a_failure_of_a_newer_version_is_a_refusal() -> None:
    with pytest.raises(Refused, match="on strike"):
        confirm(Failure("strike", "on strike"))


def test_another_message_in_place_of_welcome_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="Hello came in place of Welcome"):
        confirm(greeting())


# Who may say what. Names that two conversations use for different messages carry the conversation.
MAY_SAY = {
    "handshake dialler": "Hello",
    "handshake acceptor": "Welcome Failure",
    "fleet dialler": "Enrol Register Heartbeat Publish Resolve ListHolders fleet.ListFiles fleet.ListHosts"
    " fleet.Remove",
    "fleet acceptor": "Enrolled Registered Heard Published Resolved HolderPage FilePage HostPage Removed RequestFailed"
    " Handout Forget Failure",
    "swarm dialler": "Open Request Cancel Complaint",
    "swarm acceptor": "Bitfield Have Piece Busy NotFound Withdrawn Failure",
    "control dialler": "Upload Download Stat control.ListFiles control.ListHosts Status control.Remove Verify Pause"
    " Resume Wait TreeDescription HandedFiles HandedPlace",
    "control acceptor": "Progress Result TrackerContent DescribeTree HandFiles HandPlace Failure",
    "admin dialler": "MakeToken RemoveHost",
    "admin acceptor": "Progress Result TrackerContent Failure",
}
AMBIGUOUS = {"ListFiles", "ListHosts", "Remove"}
SPEAKERS: dict[str, Codec[Message]] = {
    "handshake dialler": HELLO,  # type: ignore[dict-item]  # it decodes a Hello, which is a Message
    "handshake acceptor": WELCOME,
    **{f"{name} dialler": rules.from_dialler for name, rules in CONVERSATIONS.items()},
    **{f"{name} acceptor": rules.from_acceptor for name, rules in CONVERSATIONS.items()},
}


def name_of(kind: type[Message]) -> str:
    if kind.__name__ not in AMBIGUOUS:
        return kind.__name__
    return f"{'fleet' if kind.__module__.endswith('master_messages') else 'control'}.{kind.__name__}"


def test_the_table_names_every_message_and_nothing_else() -> None:
    assert SPEAKERS.keys() == MAY_SAY.keys()
    named = {name for names in MAY_SAY.values() for name in names.split()}
    assert named == {name_of(kind) for kind in message_types()}


@pytest.mark.parametrize("speaker", MAY_SAY)
@pytest.mark.parametrize("kind", [pytest.param(kind, id=name_of(kind)) for kind in message_types()])
def test_a_message_is_taken_exactly_from_whom_may_say_it(kind: type[Message], speaker: str) -> None:
    header, codec = msgpack.packb(smallest(kind)), SPEAKERS[speaker]
    if name_of(kind) in MAY_SAY[speaker].split():
        assert type(codec.decode(header)) is kind
    else:
        with pytest.raises(RemoteProtocolError, match="is not allowed here"):
            codec.decode(header)
