"""Signing requests: whose key it is, and whatever else one says is not looked at."""

from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from interfiles.errors import RemoteProtocolError
from interfiles.identity.authority import load_key, new_key, public_key_of, read_certificate, read_request, request_for
from interfiles.identity.subject import Subject
from interfiles.wire.fields import SigningRequest
from tests.identity.members import BOB, FLEET, MASTER, NOW, ca, host

KEY = new_key()
REQUEST = request_for(KEY)
Builder = x509.CertificateSigningRequestBuilder


def raw(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def der(request: x509.CertificateSigningRequest) -> bytes:
    return request.public_bytes(serialization.Encoding.DER)


def empty() -> Builder:
    return Builder().subject_name(x509.Name([]))


def test_a_request_tells_whose_key_it_is() -> None:
    assert read_request(REQUEST) == public_key_of(KEY)
    (limits,) = SigningRequest.__metadata__  # type: ignore[attr-defined]
    assert limits.max_length > 4 * len(REQUEST)


def naming(subject: Subject) -> Builder:
    uri = x509.UniformResourceIdentifier(subject.uri)
    return empty().add_extension(x509.SubjectAlternativeName([uri]), critical=True)


@pytest.mark.parametrize(
    "asked",
    [
        naming(MASTER),
        naming(host(BOB)),
        empty().add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True),
        Builder().subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{FLEET} master")])),
    ],
    ids=["the master", "another host", "a CA", "a name"],
)
def test_a_request_that_asks_for_more_gets_what_it_would_get(asked: Builder) -> None:
    request = der(asked.sign(load_key(KEY), None))
    certificate = ca().issue(read_request(request), host(), now=NOW)
    assert read_certificate(certificate).subject == host()
    loaded = x509.load_pem_x509_certificate(certificate.encode())
    assert loaded.subject == x509.Name([])
    assert not loaded.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_somebody_elses_key_cannot_be_asked_for() -> None:
    own, others = load_key(new_key()), load_key(KEY)
    stolen = der(empty().sign(own, None)).replace(raw(own), raw(others))
    with pytest.raises(RemoteProtocolError, match="a signing request is not signed by its own key"):
        read_request(stolen)


@pytest.mark.parametrize(
    "request_of",
    [
        lambda: empty().sign(rsa.generate_private_key(65537, 2048), hashes.SHA256()),
        lambda: empty().sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()),
        lambda: empty().sign(ed448.Ed448PrivateKey.generate(), None),
    ],
    ids=["RSA", "EC", "Ed448"],
)
def test_another_kind_of_key_is_refused(request_of: Callable[[], x509.CertificateSigningRequest]) -> None:
    with pytest.raises(RemoteProtocolError, match="another kind of key than Ed25519"):
        read_request(der(request_of()))


def test_a_request_with_a_key_that_nobody_knows_or_of_another_version_is_malformed() -> None:
    """Both were errors of another type, and so logged as bugs of the master."""
    oid, version = b"\x06\x03\x2b\x65\x70", b"\x02\x01\x00"
    assert oid in REQUEST
    for changed in (REQUEST.replace(oid, b"\x06\x03\x2b\x65\x7f", 1), REQUEST.replace(version, b"\x02\x01\x07", 1)):
        with pytest.raises(RemoteProtocolError, match=f"a signing request of {len(REQUEST)} bytes is malformed"):
            read_request(changed)


@pytest.mark.parametrize("hostile", [b"", b"\x00", b"\x30\x84\xff\xff\xff\xff", b"\x30" * 1024, REQUEST + b"\x00"])
def test_what_is_no_request_is_refused(hostile: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        read_request(hostile)


@given(st.binary(max_size=1024))
def test_noise_is_refused(noise: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        read_request(noise)


@given(st.integers(0, len(REQUEST) - 1), st.integers(1, 255))
def test_a_changed_byte_never_gives_another_key_nor_another_error(at: int, flip: int) -> None:
    changed = REQUEST[:at] + bytes([REQUEST[at] ^ flip]) + REQUEST[at + 1 :]
    try:
        assert read_request(changed) == public_key_of(KEY)
    except RemoteProtocolError:
        pass


@pytest.mark.parametrize("length", range(len(REQUEST)))
def test_a_request_that_is_cut_short_is_refused(length: int) -> None:
    with pytest.raises(RemoteProtocolError):
        read_request(REQUEST[:length])
