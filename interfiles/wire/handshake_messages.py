"""The first exchange on every connection, whatever the conversation."""

from typing import Annotated, Literal

from msgspec import Meta

from interfiles.wire.codec import Codec, Message
from interfiles.wire.fields import Code, FleetId, HostIdOrNone, Text

Conversation = Literal["fleet", "swarm", "control", "admin"]
ProtocolVersion = Annotated[int, Meta(ge=1, le=65535, description="protocol version")]
Feature = Annotated[str, Meta(max_length=32, description="word")]
Features = Annotated[list[Feature], Meta(max_length=32)]


class Hello(Message, frozen=True, tag=1):
    """The dialler's first message: which conversation it wants, and the range of protocol versions that it speaks.

    Answered by `Welcome` or `Failure`. `host_id` and `fleet` are empty where there is none to tell (the CLI, a host
    that has not joined).
    """

    conversation: Conversation
    oldest_version: ProtocolVersion
    newest_version: ProtocolVersion
    fleet: FleetId
    host_id: HostIdOrNone
    features: Features


class Welcome(Message, frozen=True, tag=2):
    """Answers `Hello`: the version in force, who answers, and which of the dialler's features it shares."""

    version: ProtocolVersion
    fleet: FleetId
    host_id: HostIdOrNone
    features: Features


class Failure(Message, frozen=True, tag=3):
    """The last message on a connection: why it ends, in words. Allowed from the acceptor at any time."""

    code: Code
    text: Text


HELLO = Codec(Hello)
WELCOME: Codec[Message] = Codec(Welcome, Failure)
