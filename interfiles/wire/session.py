"""Version negotiation: what each end says first, and what the other makes of it.

The dialler sends `Hello` with the range of versions it speaks; the acceptor picks the newest that both know and sends
`Welcome`, or refuses in words with `Failure` and closes. From then on each end accepts only the messages that its
conversation's table allows from the other: see `CONVERSATIONS`.
"""

from dataclasses import dataclass
from typing import Final

from interfiles.errors import RemoteProtocolError, UnsupportedVersion, from_wire, printable
from interfiles.wire import control_messages, master_messages, peer_messages
from interfiles.wire.codec import Codec, Message
from interfiles.wire.handshake_messages import Conversation, Failure, Hello, Welcome

OLDEST_VERSION: Final = 1
NEWEST_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Rules:
    """Who may say what in a conversation, once it is welcomed."""

    from_dialler: Codec[Message]
    from_acceptor: Codec[Message]


CONVERSATIONS: Final[dict[Conversation, Rules]] = {
    "fleet": Rules(master_messages.FROM_CLIENT, master_messages.FROM_MASTER),
    "swarm": Rules(peer_messages.FROM_FETCHER, peer_messages.FROM_SERVER),
    "control": Rules(control_messages.FROM_CLI, control_messages.FROM_DAEMON),
    "admin": Rules(control_messages.FROM_ADMIN, control_messages.FROM_MASTER),
}


@dataclass(frozen=True, slots=True)
class Identity:
    """Who an end is: fleet and host id as hex text, empty where there is none."""

    fleet: str = ""
    host_id: str = ""
    features: tuple[str, ...] = ()


def hello(conversation: Conversation, identity: Identity) -> Hello:
    """The dialler's first message."""
    return Hello(
        conversation, OLDEST_VERSION, NEWEST_VERSION, identity.fleet, identity.host_id, list(identity.features)
    )


def answer(heard: Hello, conversation: Conversation, identity: Identity) -> Welcome:
    """The acceptor's answer to `heard`.

    Raises:
      UnsupportedVersion: no version is shared.
      RemoteProtocolError: the dialler wants another conversation, or belongs to another fleet.
    """
    if heard.conversation != conversation:
        raise RemoteProtocolError(f"this address is for {conversation!r} conversations, not {heard.conversation!r}")
    if heard.oldest_version > NEWEST_VERSION or heard.newest_version < OLDEST_VERSION:
        raise UnsupportedVersion(
            f"protocol versions {heard.oldest_version} to {heard.newest_version} are not among "
            f"{OLDEST_VERSION} to {NEWEST_VERSION} spoken here; install the same InterFiles on both hosts"
        )
    is_newcomer = conversation != "swarm" and not heard.fleet  # peers have joined, a host that enrols has not
    if identity.fleet and heard.fleet != identity.fleet and not is_newcomer:
        raise RemoteProtocolError(f"fleet {heard.fleet[:4] or 'none'} is not this fleet, {identity.fleet[:4]}")
    shared = [feature for feature in heard.features if feature in identity.features]
    return Welcome(min(NEWEST_VERSION, heard.newest_version), identity.fleet, identity.host_id, shared)


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
