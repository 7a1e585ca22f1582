"""Certificates that no master of the fleet has issued, as those have them who would like to be let in."""

import datetime as dt
from collections.abc import Callable, Sequence

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from interfiles.identity.authority import Authority, load_key, new_key, public_key_of
from interfiles.identity.contexts import Credentials
from interfiles.identity.subject import Subject
from tests.daemons.master.scripted import EPOCH, Fleet

ELSEWHERE = "e15e"


def of_another_fleet(fleet: Fleet, subject: Subject) -> Credentials:
    """A member of another fleet, of the id that one of this fleet has; it trusts its own CA."""
    other = Authority.make(ELSEWHERE, now=EPOCH)
    return fleet.mint(Subject(ELSEWHERE, subject.role, subject.host_id), signer=other, trusted=other)


def by_another_ca(fleet: Fleet, subject: Subject) -> Credentials:
    """All as it should be, but for who has signed it."""
    return fleet.mint(subject, signer=Authority.make(fleet.fleet_id, now=EPOCH))


def by_a_ca_of_the_same_name(fleet: Fleet, subject: Subject) -> Credentials:
    """The forger's CA is called what the fleet's own is called, and comes along in the chain."""
    own, key = fleet.authorities()[0], new_key()
    name = x509.load_pem_x509_certificate(own.certificate.encode()).subject
    forged = Authority(_certificate([], public_key_of(key), name, name, key, is_ca=True), key)
    made = fleet.mint(subject, signer=forged)
    return Credentials(made.chain + forged.certificate, made.key, made.authorities)


def by_itself(fleet: Fleet, subject: Subject) -> Credentials:
    """Self-signed."""
    key, nobody = new_key(), x509.Name([])
    made = _certificate([subject.uri], public_key_of(key), nobody, nobody, key)
    return Credentials(made, key, [fleet.authorities()[0].certificate])


def by_a_host(fleet: Fleet, subject: Subject) -> Credentials:
    """A member signs another's certificate with its own key; the chain is whole."""
    own = fleet.mint(Subject(fleet.fleet_id, "host", "ab" * 16))
    name, key = x509.Name([]), new_key()
    made = _certificate([subject.uri], public_key_of(key), name, name, own.key)
    return Credentials(made + own.chain, key, own.authorities)


def naming(fleet: Fleet, *uris: str) -> Credentials:
    """What the fleet's own CA would never sign: any names."""
    own, key = fleet.authorities()[0], new_key()
    issuer = x509.load_pem_x509_certificate(own.certificate.encode()).subject
    made = _certificate(list(uris), public_key_of(key), x509.Name([]), issuer, own.key)
    return Credentials(made, key, [own.certificate])


FORGED: dict[str, Callable[[Fleet, Subject], Credentials]] = {
    made.__name__.replace("_", " "): made
    for made in (of_another_fleet, by_another_ca, by_a_ca_of_the_same_name, by_itself, by_a_host)
}


def _certificate(
    uris: Sequence[str],
    key: Ed25519PublicKey,
    subject: x509.Name,
    issuer: x509.Name,
    issuer_key: str,
    *,
    is_ca: bool = False,
) -> str:
    """As `Authority` makes them, for whoever asks."""
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(dt.datetime.fromtimestamp(int(EPOCH) - 3600, dt.UTC))
        .not_valid_after(dt.datetime.fromtimestamp(int(EPOCH) + 86_400, dt.UTC))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public_key_of(issuer_key)), critical=False)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(not is_ca, False, False, False, False, is_ca, is_ca, False, False), critical=True)
    )
    if uris:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])
        made = made.add_extension(names, critical=True)
    return made.sign(load_key(issuer_key), None).public_bytes(Encoding.PEM).decode()
