"""One tree of errors for daemons, wire, CLI and the Python API.

Every class carries a `code`, the word that stands for it on the wire, and an `exit_code`, what the CLI ends with. The
message is one sentence for a person: what happened, with its numbers, and what to do. `ProtocolError` and
`TransportError` say whose fault a broken conversation is: *local* is a bug of ours, *remote* is the peer's doing.
"""

import unicodedata
from typing import ClassVar, Final

DONE: Final = 0
USAGE: Final = 2
UNREACHABLE: Final = 3
UNKNOWN: Final = 4
INVALID: Final = 5
UNAVAILABLE: Final = 6
NOT_PERMITTED: Final = 7
NO_SPACE: Final = 8
REFUSED: Final = 9
INTERRUPTED: Final = 130


class InterFilesError(Exception):
    """Base of all errors that InterFiles raises on purpose; `str(error)` is the sentence shown to a person."""

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = REFUSED


class UsageError(InterFilesError):
    """The caller asked for something that makes no sense as it stands."""

    code = "usage"
    exit_code = USAGE


class DaemonUnreachable(InterFilesError):
    """No daemon answers on the socket or address."""

    code = "daemon-unreachable"
    exit_code = UNREACHABLE


class UnknownFile(InterFilesError):
    """No file goes by this id, prefix or name."""

    code = "unknown-file"
    exit_code = UNKNOWN


class AmbiguousFile(UnknownFile):
    """Several files go by this id prefix or name."""

    code = "ambiguous-file"


class UnknownHost(InterFilesError):
    """No host goes by this id or name."""

    code = "unknown-host"
    exit_code = UNKNOWN


class UnknownToken(InterFilesError):
    """No join token goes by this id."""

    code = "unknown-token"
    exit_code = UNKNOWN


class InvalidManifest(InterFilesError):
    """A manifest is malformed, inconsistent or unsafe."""

    code = "invalid-manifest"
    exit_code = INVALID


class InvalidTrackerFile(InterFilesError):
    """A tracker file is empty, damaged, of another version or hostile."""

    code = "invalid-tracker-file"
    exit_code = INVALID


class VerificationFailed(InterFilesError):
    """Content does not match its hashes."""

    code = "verification-failed"
    exit_code = INVALID


class ContentChanged(VerificationFailed):
    """A file on disk is no longer what was hashed."""

    code = "content-changed"


class NoSource(InterFilesError):
    """No reachable host holds what is needed."""

    code = "no-source"
    exit_code = UNAVAILABLE


class TimedOut(InterFilesError):
    """The time that the caller gave is over."""

    code = "timed-out"
    exit_code = UNAVAILABLE


class NotPermitted(InterFilesError):
    """The caller, a path's permissions or a secret does not allow it."""

    code = "not-permitted"
    exit_code = NOT_PERMITTED


class InvalidToken(NotPermitted):
    """A join token is malformed, unknown, spent or expired."""

    code = "invalid-token"


class NotAdmitted(NotPermitted):
    """The master does not know this host, or has removed it."""

    code = "not-admitted"


class CertificateExpired(NotPermitted):
    """A certificate's time is over; its host can still have it renewed by the master."""

    code = "certificate-expired"


class CertificateNotYetValid(NotPermitted):
    """A certificate's time has not begun: one of the two clocks is wrong."""

    code = "certificate-not-yet-valid"


class NoSpace(InterFilesError):
    """A disk or quota has less room than the work needs."""

    code = "no-space"
    exit_code = NO_SPACE


class Refused(InterFilesError):
    """The daemon refuses for a reason that has no class of its own."""

    code = "refused"


class PathNotFound(Refused):
    """A path that should be read is not there, or is of a kind that cannot be sent."""

    code = "path-not-found"
    exit_code = USAGE


class DestinationExists(Refused):
    """Something else is already where the download should go."""

    code = "destination-exists"


class StateInUse(Refused):
    """Another daemon works in this state directory."""

    code = "state-in-use"


class AddressInUse(Refused):
    """Another program listens on this address or socket."""

    code = "address-in-use"


class AlreadyJoined(Refused):
    """This host belongs to a fleet already."""

    code = "already-joined"


class NotJoined(Refused):
    """This host belongs to no fleet yet."""

    code = "not-joined"


class MasterUnreachable(Refused):
    """The client daemon has no connection to its master now."""

    code = "master-unreachable"
    exit_code = UNREACHABLE


class RateLimited(Refused):
    """Too many tries in too short a time; waiting helps."""

    code = "rate-limited"


class StorageFailed(Refused):
    """The operating system refused to read or write."""

    code = "storage-failed"


class ProtocolError(InterFilesError):
    """A conversation broke its rules."""

    code = "protocol"


class LocalProtocolError(ProtocolError):
    """We tried to send what the protocol forbids: a bug on this side."""

    code = "local-protocol"


class RemoteProtocolError(ProtocolError):
    """The peer sent what the protocol forbids: ends that connection and nothing else."""

    code = "remote-protocol"


class UnsupportedVersion(RemoteProtocolError):
    """The two ends share no protocol version."""

    code = "unsupported-version"


class TransportError(InterFilesError):
    """A connection cannot be made or goes no further."""

    code = "transport"
    exit_code = UNREACHABLE


class ConnectFailed(TransportError):
    """Nobody answers at the address, or not in time."""

    code = "connect-failed"


class PeerGone(TransportError):
    """The peer closed or broke the connection."""

    code = "peer-gone"


class PeerSilent(TransportError):
    """The peer owes an answer and does not give it in time."""

    code = "peer-silent"


class HandshakeFailed(TransportError):
    """The two ends did not come to a TLS connection."""

    code = "handshake-failed"


class UntrustedPeer(HandshakeFailed):
    """The other end's certificate is none of this fleet's, or not that of whom we meant to reach."""

    code = "untrusted-peer"


class CertificateRefused(HandshakeFailed):
    """The other end does not accept our certificate, or wants one where we have none."""

    code = "certificate-refused"


def _descendants(base: type[InterFilesError]) -> list[type[InterFilesError]]:
    return [base] + [found for child in base.__subclasses__() for found in _descendants(child)]


_BY_CODE: Final = {cls.code: cls for cls in _descendants(InterFilesError)}


def from_wire(code: str, message: str) -> InterFilesError:
    """Make the error that `code` names; an unknown code, from a newer version, becomes `Refused`."""
    return _BY_CODE.get(code, Refused)(message)


_UNPRINTABLE_CATEGORIES: Final = frozenset({"Cc", "Cf", "Co", "Cs", "Zl", "Zp"})


def printable(text: str) -> str:
    r"""Escape what could move a terminal's cursor or reorder a line: `evil\x1b[2J` and bidirectional marks alike.

    Letters of every script stay as they are; the backslash is left alone, so ordinary names read as they were written.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escape(c) if unicodedata.category(c) in _UNPRINTABLE_CATEGORIES else c for c in text)


def _escape(character: str) -> str:
    number = ord(character)
    if number <= 0xFF:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number <= 0xFFFF else f"\\U{number:08x}"
