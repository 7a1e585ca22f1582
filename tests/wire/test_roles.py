"""Who may say what: every message of every conversation, in every role, at every end."""

from itertools import product
from typing import Final, get_args

import msgpack
import pytest

from interfiles.errors import NotPermitted, RemoteProtocolError
from interfiles.wire.codec import Codec, Message
from interfiles.wire.framing import FrameDecoder
from interfiles.wire.handshake_messages import HELLO, WELCOME, Conversation, Failure, Hello, Role, Welcome
from interfiles.wire.session import MAY_SAY, End, rules_for
from tests.wire.values import message_types, smallest, tag_of

Key = tuple[Conversation, End, Role]

# Written down a second time, by hand: what is allowed here is allowed on purpose. Names that two conversations use for
# different messages carry the conversation.
TO_A_HOST: Final = (
    "Authorities Enrolled Renewed Revoked Registered Heard Published Resolved HolderPage FilePage HostPage Removed"
    " ReplicasSet RequestFailed Handout Forget Order Release Challenge Failure"
)
MEANT: Final[dict[Key, str]] = {
    ("fleet", "dialler", "stranger"): "GetAuthorities Enrol",
    ("fleet", "dialler", "lapsed"): "Renew",
    ("fleet", "dialler", "host"): "Register Renew Heartbeat Publish Resolve ListHolders fleet.ListFiles fleet.ListHosts"
    " fleet.Remove fleet.SetReplicas Declined LeftOver Proof",
    ("fleet", "acceptor", "stranger"): "Authorities Failure",
    ("fleet", "acceptor", "master"): TO_A_HOST,
    ("swarm", "dialler", "host"): "Open Ask Cancel Complaint Prefer",
    ("swarm", "acceptor", "host"): "Bitfield Have Piece Busy NotFound Dropped Withdrawn Failure",
    ("control", "dialler", "local"): "Upload Download Stat control.ListFiles control.ListHosts Status control.Remove"
    " Verify Pause Resume Wait Limit control.SetReplicas WaitReplicas TreeDescription HandedFiles HandedPlace",
    ("control", "acceptor", "local"): "Progress Result TrackerContent DescribeTree HandFiles HandPlace Failure",
    ("admin", "dialler", "local"): "MakeToken RemoveHost ListTokens RevokeToken ListAuthorities RotateAuthority"
    " RetireAuthority DrainHost UndrainHost ListEvents",
    ("admin", "acceptor", "local"): "Progress Result TrackerContent Failure",
}
AMBIGUOUS: Final = {"ListFiles", "ListHosts", "Remove", "SetReplicas"}
EVERYBODY: Final[list[Key]] = list(product(get_args(Conversation), get_args(End), get_args(Role)))
KINDS: Final = message_types()


def name_of(kind: type[Message]) -> str:
    if kind.__name__ not in AMBIGUOUS:
        return kind.__name__
    return f"{'fleet' if kind.__module__.endswith('catalogue_messages') else 'control'}.{kind.__name__}"


def heard(codec: Codec[Message], kind: type[Message]) -> Message | None:
    """What a receiver with these rules makes of a message, off the wire."""
    header = msgpack.packb(smallest(kind))
    decoder = FrameDecoder(codec)
    decoder.feed(len(header).to_bytes(4, "big") + bytes(4))
    frame = decoder.feed(header)
    return frame.message if frame is not None else None


def test_the_table_is_what_was_meant() -> None:
    assert {key: " ".join(map(name_of, codec.accepted)).split() for key, codec in MAY_SAY.items()} == {
        key: names.split() for key, names in MEANT.items()
    }


def test_every_message_is_somebodys_to_say() -> None:
    said = {kind for codec in MAY_SAY.values() for kind in codec.accepted} | {Hello, Welcome}
    assert said == set(KINDS)


@pytest.mark.parametrize("key", EVERYBODY, ids=" ".join)
def test_everybody_may_say_what_the_table_names_and_nothing_else(key: Key) -> None:
    if key not in MEANT:
        with pytest.raises(NotPermitted, match=f"may not be the {key[1]} of a {key[0]!r} conversation"):
            rules_for(*key)
        return
    rules = rules_for(*key)
    for kind in KINDS:
        if name_of(kind) in MEANT[key].split():
            assert type(heard(rules, kind)) is kind
        else:
            with pytest.raises(RemoteProtocolError, match=f"^message {tag_of(kind)} is not allowed here$"):
                heard(rules, kind)


@pytest.mark.parametrize(
    ("codec", "meant"), [(HELLO, {Hello}), (WELCOME, {Welcome, Failure})], ids=["hello", "welcome"]
)
def test_before_the_greeting_is_over_nothing_else_is_heard(codec: Codec[Message], meant: set[type[Message]]) -> None:
    for kind in KINDS:
        if kind in meant:
            assert type(heard(codec, kind)) is kind
        else:
            with pytest.raises(RemoteProtocolError, match="is not allowed here"):
                heard(codec, kind)


def test_no_end_hears_the_greeting_twice() -> None:
    assert not {Hello, Welcome} & {kind for codec in MAY_SAY.values() for kind in codec.accepted}


def test_a_refusal_is_words_for_a_person() -> None:
    for key in EVERYBODY:
        if key not in MAY_SAY:
            with pytest.raises(NotPermitted) as refused:
                rules_for(*key)
            assert str(refused.value).isprintable()
