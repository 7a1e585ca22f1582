"""A fleet for tests: its CA, and certificates of its members and of those who only say so."""

import ssl
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import ExtendedKeyUsageOID

from interfiles.identity import authority
from interfiles.identity.authority import Authority, new_key, public_key_of
from interfiles.identity.contexts import Credentials
from interfiles.identity.subject import Subject

FLEET = "f1ee7" + "0" * 27
NOW = 1_800_000_000.0
ALICE, BOB = "a" * 32, "b" * 32
MASTER = Subject(FLEET, "master")


@cache
def ca(number: int = 0, fleet: str = FLEET) -> Authority:
    """A CA; another one for each number."""
    return Authority.make(fleet, now=NOW)


def host(host_id: str = ALICE) -> Subject:
    return Subject(FLEET, "host", host_id)


@cache
def credentials(subject: Subject, *, signed_by: Authority | None = None, now: float = NOW) -> Credentials:
    """Those of a member that trusts the CA which has signed its certificate."""
    signer, key = signed_by or ca(), new_key()
    return Credentials(signer.issue(public_key_of(key), subject, now=now), key, (signer.certificate,))


def trusting(credentials: Credentials, *authorities: Authority) -> Credentials:
    """The same member, which trusts these CAs."""
    return replace(credentials, authorities=tuple(trusted.certificate for trusted in authorities))


def forged(
    *,
    names: Sequence[x509.GeneralName] | bytes | None = None,
    uses: Sequence[x509.ObjectIdentifier] = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH),
    is_ca: bool = False,
    signed_by: Credentials | None = None,
    signer: Authority | None = None,
) -> Credentials:
    """Credentials that no `Authority` makes, though its key has signed them.

    `names`: the subjectAltName, or its DER.
    `signed_by`: the owner of this certificate has signed it, as if it were a CA.
    """
    key = new_key()
    issuer, issuer_key = (signer or ca()).certificate, authority.load_key((signer or ca()).key)
    if signed_by is not None:
        issuer, issuer_key = signed_by.chain, authority.load_key(signed_by.key)
    name = x509.load_pem_x509_certificate(issuer.encode()).subject
    builder = authority._builder(x509.Name([]), public_key_of(key), name, issuer_key.public_key(), NOW, NOW + 1e6)
    builder = builder.add_extension(x509.BasicConstraints(ca=is_ca, path_length=0 if is_ca else None), critical=True)
    builder = builder.add_extension(authority._usage(signs_certificates=is_ca), critical=True)
    if uses:
        builder = builder.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
    names = [x509.UniformResourceIdentifier(host().uri)] if names is None else names
    if isinstance(names, bytes):
        builder = builder.add_extension(
            x509.UnrecognizedExtension(x509.SubjectAlternativeName.oid, names), critical=True
        )
    elif names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
    chain = authority._text(builder.sign(issuer_key, None)) + (signed_by.chain if signed_by is not None else "")
    return Credentials(chain, key, (ca().certificate,))


def self_signed() -> Credentials:
    """A host that is its own CA."""
    key = Ed25519PrivateKey.generate()
    own = x509.Name([])
    builder = authority._builder(own, key.public_key(), own, key.public_key(), NOW, NOW + 1e6)
    builder = builder.add_extension(
        x509.SubjectAlternativeName([x509.UniformResourceIdentifier(host().uri)]), critical=True
    )
    return Credentials(authority._text(builder.sign(key, None)), authority._key_text(key), (ca().certificate,))


def handshake(dialler: ssl.SSLContext, acceptor: ssl.SSLContext) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Let two contexts shake hands, without any connection.

    Raises:
      ssl.SSLError: what either end makes of the other.
    """
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = dialler.wrap_bio(back, there), acceptor.wrap_bio(there, back, server_side=True)
    for _ in range(3):  # each says what it has to say in as many turns
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                pass
    for end in ends:
        end.do_handshake()
    return ends
