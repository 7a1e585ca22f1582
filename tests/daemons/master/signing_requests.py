"""Signing requests: those of hosts that want to be somebody else, and those that are none."""

from collections.abc import Callable

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from interfiles.identity.authority import load_key, new_key, request_for

_NOBODY = x509.Name([])
_ED25519 = bytes.fromhex("06032b6570")


def asking_for(key: str, *uris: str, common_name: str = "") -> bytes:
    """A request that asks to be named so, and to be a CA."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]) if common_name else _NOBODY
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    if uris:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])
        builder = builder.add_extension(names, critical=True)
    return builder.sign(load_key(key), None).public_bytes(Encoding.DER)


def _of_another_kind(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed448.Ed448PrivateKey) -> bytes:
    algorithm = None if isinstance(key, ed448.Ed448PrivateKey) else hashes.SHA256()
    return x509.CertificateSigningRequestBuilder().subject_name(_NOBODY).sign(key, algorithm).public_bytes(Encoding.DER)


def _wrongly_signed() -> bytes:
    request = bytearray(request_for(new_key()))
    request[-1] ^= 1
    return bytes(request)


def _for_the_key_of_another() -> bytes:
    """The public key of somebody else, who has shown it, and a signature by one's own."""
    own, stolen = request_for(new_key()), load_key(new_key()).public_key().public_bytes_raw()
    at = own.index(_ED25519) + len(_ED25519) + 3
    return own[:at] + stolen + own[at + 32 :]


MALFORMED: dict[str, Callable[[], bytes]] = {
    "noise": lambda: b"\x00" * 100,
    "cut short": lambda: request_for(new_key())[:-1],
    "longer": lambda: request_for(new_key()) + b"\x00",
    "PEM": lambda: b"-----BEGIN CERTIFICATE REQUEST-----\n",
    "RSA": lambda: _of_another_kind(rsa.generate_private_key(65537, 2048)),
    "P-256": lambda: _of_another_kind(ec.generate_private_key(ec.SECP256R1())),
    "Ed448": lambda: _of_another_kind(ed448.Ed448PrivateKey.generate()),
    "an unknown algorithm": lambda: request_for(new_key()).replace(_ED25519, bytes.fromhex("06032b6501")),
    "another version": lambda: request_for(new_key()).replace(b"\x02\x01\x00", b"\x02\x01\x07", 1),
    "wrongly signed": _wrongly_signed,
    "the key of another": _for_the_key_of_another,
}
