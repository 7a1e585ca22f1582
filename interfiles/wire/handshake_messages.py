"""The first exchange on every connection, whatever the conversation."""

from typing import Annotated, Literal

from msgspec import Meta

from interfiles.wire.codec import Codec, Message
from interfiles.wire.fields import Code, Text

Role = Literal["stranger", "lapsed", "host", "master", "local"]
"""What an end has proved to be.

`stranger`: nothing (it has no certificate, or it was not looked at); `lapsed`: a host whose certificate has expired;
`host`, `master`: a member of this fleet; `local`: a user of this machine whom the socket's owner lets in.
"""
Conversation = Literal["fleet", "swarm", "control", "admin"]
ProtocolVersion = Annotated[int, Meta(ge=1, le=65535, description="protocol version")]
Feature = Annotated[str, Meta(max_length=32, description="word")]
Features = Annotated[list[Feature], Meta(max_length=32)]


class Hello(Message, frozen=True, tag=1):
    """The dialler's first message: which conversation it wants, and the range of protocol versions that it speaks.

    Answered by `Welcome` or `Failure`. Who the dialler is, its certificate says; a caller on a Unix socket, the kernel.
    """

    conversation: Conversation
    oldest_version: ProtocolVersion
    newest_version: ProtocolVersion
    features: Features


class Welcome(Message, frozen=True, tag=2):
    """Answers `Hello`: the version in force, what the dialler has proved to be, and which of its features are shared.

    Only now does the dialler know what became of its certificate.
    """

    version: ProtocolVersion
    role: Role
    features: Features


class Failure(Message, frozen=True, tag=3):
    """The last message on a connection: why it ends, in words. Allowed from the acceptor at any time."""

    code: Code
    text: Text


HELLO = Codec(Hello)
WELCOME: Codec[Message] = Codec(Welcome, Failure)
