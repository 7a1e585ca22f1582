"""A fleet's certificate authority (CA): a private key whose certificate every member trusts, and what it signs.

X.509 v3 as RFC 5280 has it, also under OpenSSL's strict checks; keys are Ed25519 (RFC 8410). Certificates are PEM text
here and everywhere, as the standard library's TLS takes them.

A CA that takes the place of another is signed by that one too (a cross certificate): who knows only the older CA still
verifies what the newer one signed, as long as the cross certificate comes along in the chain.
"""

import datetime as dt
import hashlib
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from interfiles.errors import RemoteProtocolError, StorageFailed
from interfiles.identity.subject import Certified, Subject
from interfiles.units import DAY, HOUR

LEAF_LIFE_S: Final = 30.0 * DAY
AUTHORITY_LIFE_S: Final = 3650.0 * DAY
BACKDATED_S: Final = 1.0 * HOUR  # a host whose clock is a little behind can use its certificate at once

_SERIAL_BIT: Final = 1 << 158  # serials of one length, so that certificates are too

# What `cryptography` raises over certificates and requests that are not well formed or of an unknown kind.
_MALFORMED: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.UnsupportedGeneralNameType,
)

Name = x509.Name


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA that can sign. `certificate`: its own, self-signed, PEM; `key`: PKCS#8 PEM."""

    certificate: str
    key: str = field(repr=False)

    @classmethod
    def make(cls, fleet: str, *, now: float, life_s: float = AUTHORITY_LIFE_S) -> "Authority":
        """Make a new CA, good from `now` (Unix seconds) on."""
        key = Ed25519PrivateKey.generate()
        digits = x509.random_serial_number().to_bytes(20, "big").hex()[-8:]  # so that no two CAs have one name
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"InterFiles fleet {fleet[:8]} CA {digits}")])
        made = _authority_certificate(name, key.public_key(), name, key, now, now + life_s, path_length=1)
        return cls(made, _key_text(key))

    def issue(self, public_key: Ed25519PublicKey, subject: Subject, *, now: float, life_s: float = LEAF_LIFE_S) -> str:
        """Sign a certificate for `subject`, good for `life_s` from `now`, but no longer than this CA.

        A CA whose own time is over signs what has expired already: who checks it is told by how much.
        """
        own = _load(self.certificate)
        ends = min(now + life_s, own.not_valid_after_utc.timestamp())
        builder = (
            _builder(x509.Name([]), public_key, own.subject, self._key.public_key(), now - BACKDATED_S, ends)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(subject.uri)]), critical=True)
        )
        return _text(builder.sign(self._key, None))

    def cross_sign(self, newer: "Authority", *, now: float) -> str:
        """Sign the CA that takes this one's place."""
        own, other = _load(self.certificate), _load(newer.certificate)
        ends = min(own.not_valid_after_utc.timestamp(), other.not_valid_after_utc.timestamp())
        public = public_key_of(newer.key)
        return _authority_certificate(other.subject, public, own.subject, self._key, now, ends, path_length=0)

    def check(self) -> None:
        """Check that the key is whole and the certificate's.

        Raises:
          StorageFailed: it is not.
        """
        if self._key.public_key() != _load(self.certificate).public_key():
            raise StorageFailed("it is not the key of the CA's certificate")

    @property
    def _key(self) -> Ed25519PrivateKey:
        return load_key(self.key)


def load_key(text: str) -> Ed25519PrivateKey:
    """Read a private key.

    Raises:
      StorageFailed: it is damaged.
    """
    try:
        key = serialization.load_pem_private_key(text.encode(), password=None)
    except ValueError as e:
        raise StorageFailed(f"a private key is damaged: {e}") from e
    if not isinstance(key, Ed25519PrivateKey):
        raise StorageFailed(f"a private key is of the kind {type(key).__name__}, not Ed25519")
    return key


def new_key() -> str:
    """Make a private key, PKCS#8 PEM."""
    return _key_text(Ed25519PrivateKey.generate())


def request_for(key: str) -> bytes:
    """The signing request (CSR, PKCS#10 DER) of a private key: it proves who has the key, and asks for no name."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(load_key(key), None).public_bytes(serialization.Encoding.DER)


def read_request(request: bytes) -> Ed25519PublicKey:
    """The key that a signing request proves to have; whatever names it asks for are not looked at.

    Raises:
      RemoteProtocolError: it is malformed, of another kind of key, or not signed by its key.
    """
    try:
        read = x509.load_der_x509_csr(request)
        key = read.public_key()
        if not isinstance(key, Ed25519PublicKey):
            raise RemoteProtocolError("a signing request has another kind of key than Ed25519")
        key.verify(read.signature, read.tbs_certrequest_bytes)
    except _MALFORMED as e:
        raise RemoteProtocolError(f"a signing request of {len(request)} bytes is malformed") from e
    except InvalidSignature as e:
        raise RemoteProtocolError("a signing request is not signed by its own key") from e
    return key


def public_key_of(key: str) -> Ed25519PublicKey:
    """The public half of a private key."""
    return load_key(key).public_key()


def read_certificate(text: str) -> Certified:
    """What the first certificate of a PEM text says of its owner. Signatures are not checked.

    Raises:
      StorageFailed: it is damaged.
      UntrustedPeer: it names no member of a fleet.
    """
    try:
        leaf = _load(text)
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier)
    except _MALFORMED as e:
        raise StorageFailed(f"a certificate is damaged: {e}") from e
    return Certified(Subject.parse(uri), leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp())


def is_issued_by(text: str, authority: str) -> bool:
    """Whether the first certificate of a PEM text was signed by this CA's key."""
    try:
        _load(text).verify_directly_issued_by(_load(authority))
    except (*_MALFORMED, InvalidSignature):
        return False
    return True


def is_signed_by_any(text: str, authorities: Sequence[str]) -> bool:
    """Whether one of these CAs' keys has signed the first certificate of a PEM text."""
    return any(is_issued_by(text, authority) for authority in authorities)


def digest(certificate: str) -> bytes:
    """SHA-256 of a certificate's DER: what `openssl x509 -fingerprint -sha256` shows.

    Raises:
      ValueError: the text is not one PEM certificate and nothing else. Who believes a text for its digest must not be
        made to believe a second certificate in it.
    """
    der = ssl.PEM_cert_to_DER_cert(certificate.strip())
    if ssl.DER_cert_to_PEM_cert(der).split() != certificate.split():
        raise ValueError("something beside one certificate")
    return hashlib.sha256(der).digest()


def _load(text: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(text.encode())


def _text(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_text(key: Ed25519PrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def _time(seconds: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(int(seconds), dt.UTC)


def _builder(
    subject: Name, key: Ed25519PublicKey, issuer: Name, issuer_key: Ed25519PublicKey, begins: float, ends: float
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number() | _SERIAL_BIT)
        .not_valid_before(_time(begins))
        .not_valid_after(_time(max(ends, begins + 1.0)))  # where a CA's time is over, what it signs is over too
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
    )


def _authority_certificate(
    subject: Name,
    key: Ed25519PublicKey,
    issuer: Name,
    issuer_key: Ed25519PrivateKey,
    now: float,
    ends: float,
    *,
    path_length: int,
) -> str:
    builder = (
        _builder(subject, key, issuer, issuer_key.public_key(), now - BACKDATED_S, ends)
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
    )
    return _text(builder.sign(issuer_key, None))


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
