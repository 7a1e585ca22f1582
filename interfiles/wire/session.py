"""What each end says first, and who may say what then.

The dialler sends `Hello` with the range of versions it speaks; the acceptor picks the newest that both know and sends
`Welcome`, or refuses in words with `Failure` and closes. From then on each end accepts only the messages that the table
`MAY_SAY` allows the other, by the role that the other has proved to have. What the table does not name is refused.
"""

from typing import Final, Literal

from interfiles.errors import NotPermitted, RemoteProtocolError, UnsupportedVersion, from_wire, printable
from interfiles.wire import control_messages, master_messages, peer_messages
from interfiles.wire.codec import Codec, Message
from interfiles.wire.handshake_messages import Conversation, Failure, Hello, Role, Welcome

OLDEST_VERSION: Final = 1
NEWEST_VERSION: Final = 1

End = Literal["dialler", "acceptor"]

MAY_SAY: Final[dict[tuple[Conversation, End, Role], Codec[Message]]] = {
    ("fleet", "dialler", "stranger"): master_messages.FROM_STRANGER,
    ("fleet", "dialler", "lapsed"): master_messages.FROM_LAPSED_HOST,
    ("fleet", "dialler", "host"): master_messages.FROM_CLIENT,
    ("fleet", "acceptor", "stranger"): master_messages.FROM_UNVERIFIED_MASTER,
    ("fleet", "acceptor", "master"): master_messages.FROM_MASTER,
    ("swarm", "dialler", "host"): peer_messages.FROM_FETCHER,
    ("swarm", "acceptor", "host"): peer_messages.FROM_SERVER,
    ("control", "dialler", "local"): control_messages.FROM_CLI,
    ("control", "acceptor", "local"): control_messages.FROM_DAEMON,
    ("admin", "dialler", "local"): control_messages.FROM_ADMIN,
    ("admin", "acceptor", "local"): control_messages.FROM_MASTER,
}

_CALLED: Final[dict[Role, str]] = {
    "stranger": "who shows no certificate of this fleet",
    "lapsed": "a host whose certificate has expired",
    "host": "a host",
    "master": "a master",
    "local": "a user of this machine",
}


def rules_for(conversation: Conversation, end: End, role: Role) -> Codec[Message]:
    """What an end of a conversation may say in its role.

    Raises:
      NotPermitted: nothing at all.
    """
    try:
        return MAY_SAY[conversation, end, role]
    except KeyError as e:
        raise NotPermitted(f"{_CALLED[role]} may not be the {end} of a {conversation!r} conversation") from e


def hello(conversation: Conversation, features: tuple[str, ...] = ()) -> Hello:
    """The dialler's first message."""
    return Hello(conversation, OLDEST_VERSION, NEWEST_VERSION, list(features))


def answer(heard: Hello, conversation: Conversation, role: Role, features: tuple[str, ...] = ()) -> Welcome:
    """The acceptor's answer to `heard`, whose sender has proved to be `role`.

    Raises:
      UnsupportedVersion: no version is shared.
      RemoteProtocolError: the dialler wants another conversation.
    """
    if heard.conversation != conversation:
        raise RemoteProtocolError(f"this address is for {conversation!r} conversations, not {heard.conversation!r}")
    if heard.oldest_version > NEWEST_VERSION or heard.newest_version < OLDEST_VERSION:
        raise UnsupportedVersion(
            f"protocol versions {heard.oldest_version} to {heard.newest_version} are not among "
            f"{OLDEST_VERSION} to {NEWEST_VERSION} spoken here; install the same InterFiles on both hosts"
        )
    shared = [feature for feature in heard.features if feature in features]
    return Welcome(min(NEWEST_VERSION, heard.newest_version), role, shared)


def confirm(answered: Message) -> Welcome:
    """Check the acceptor's answer on the dialler's side.

    Raises:
      InterFilesError: the acceptor refused; the error that it named.
      UnsupportedVersion: it chose a version that was not offered.
    """
    if isinstance(answered, Failure):
        raise from_wire(answered.code, printable(answered.text))
    if not isinstance(answered, Welcome):
        raise RemoteProtocolError(f"{type(answered).__name__} came in place of Welcome")
    if not OLDEST_VERSION <= answered.version <= NEWEST_VERSION:
        raise UnsupportedVersion(
            f"the other end chose protocol version {answered.version}, "
            f"{OLDEST_VERSION} to {NEWEST_VERSION} were offered"
        )
    return answered
