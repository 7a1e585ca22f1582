"""The test fleet's CA, and certificates of every kind that somebody might show."""

import datetime as dt
from collections.abc import Iterable
from functools import cache

import trio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from daemons.client.fleet_network import FleetNetwork
from interfiles.identity.authority import LEAF_LIFE_S, Authority, digest, load_key, new_key, public_key_of
from interfiles.identity.contexts import Credentials
from interfiles.identity.subject import Subject
from interfiles.identity.token import JoinToken
from interfiles.storage.records import Identity
from interfiles.transport.memory import MemoryNetwork
from interfiles.transport.reach import Reach
from interfiles.units import DAY
from tests.daemons.client.setting import EPOCH, FLEET, MASTER, id_of

CA = Authority.make(FLEET, now=EPOCH)
OTHER_CA = Authority.make(FLEET, now=EPOCH)  # anybody can make one that goes by our fleet's id

TOKEN_ID, SECRET = b"token id", b"a secret of none"
MASTER_SUBJECT = Subject(FLEET, "master")


def host_subject(name: str) -> Subject:
    return Subject(FLEET, "host", id_of(name))


@cache
def credentials(
    subject: Subject,
    authority: Authority = CA,
    *,
    began_at: float = EPOCH,
    life_s: float = LEAF_LIFE_S,
    trusted: Authority = CA,
) -> Credentials:
    """A certificate that this CA has signed, and its key; whoever has it trusts the test fleet's CA, or `trusted`."""
    key = new_key()
    leaf = authority.issue(public_key_of(key), subject, now=began_at, life_s=life_s)
    return Credentials(leaf, key, (trusted.certificate,))


def host_credentials(name: str) -> Credentials:
    """What an honest host of the fleet shows."""
    return credentials(host_subject(name))


def self_signed(subject: Subject) -> Credentials:
    """A certificate that nobody has signed but its own key."""
    text = new_key()
    key = load_key(text)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "self")])
    begins = dt.datetime.fromtimestamp(EPOCH, dt.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + dt.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(subject.uri)]), critical=True)
        .sign(key, None)
    )
    return Credentials(made.public_bytes(Encoding.PEM).decode(), text, (CA.certificate,))


def expired(subject: Subject) -> Credentials:
    """One whose thirty days were over ten days ago."""
    return credentials(subject, began_at=EPOCH - 40 * DAY)


def not_yet_valid(subject: Subject) -> Credentials:
    """One made by a clock that is two days ahead."""
    return credentials(subject, began_at=EPOCH + 2 * DAY)


def join_token(*masters: str, authority: Authority = CA) -> JoinToken:
    """A token that the test fleet's master has made."""
    return JoinToken(masters or (str(MASTER),), TOKEN_ID, SECRET, digest(authority.certificate))


def identity(name: str = "tested") -> Identity:
    """What a host that has joined keeps."""
    shown = host_credentials(name)
    return Identity(FLEET, id_of(name), name, "", shown.key, shown.chain, (CA.certificate,), (str(MASTER),))


def fleet_network(
    network: MemoryNetwork, name: str, ip: str, *, shown: Credentials | None = None, revoked: Iterable[str] = ()
) -> FleetNetwork:
    """The network as this host's daemon would use it."""
    return FleetNetwork(
        network.host(ip),
        shown or host_credentials(name),
        Reach([MASTER]),
        wall_clock=lambda: EPOCH + trio.current_time(),
        revoked=revoked,
    )
