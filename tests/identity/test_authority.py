"""The CA: what its certificates say, and that nobody is made to trust what it has not signed."""

import ssl
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from interfiles.errors import CertificateExpired, StorageFailed, UntrustedPeer
from interfiles.identity import authority, contexts
from interfiles.identity.authority import (
    AUTHORITY_LIFE_S,
    BACKDATED_S,
    LEAF_LIFE_S,
    Authority,
    digest,
    is_issued_by,
    load_key,
    new_key,
    public_key_of,
    read_certificate,
)
from interfiles.identity.subject import Subject
from interfiles.units import DAY
from interfiles.wire.fields import Pem
from tests.identity.members import ALICE, FLEET, NOW, ca, credentials, forged, host


def loaded(text: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(text.encode())


def issued(subject: Subject, *, by: Authority | None = None, now: float = NOW, life_s: float = LEAF_LIFE_S) -> str:
    return (by or ca()).issue(public_key_of(new_key()), subject, now=now, life_s=life_s)


@pytest.mark.parametrize("subject", [host(), Subject(FLEET, "master")], ids=str)
def test_a_certificate_names_its_owner_in_one_place(subject: Subject) -> None:
    certificate = issued(subject)
    assert read_certificate(certificate).subject == subject
    assert loaded(certificate).subject == x509.Name([])
    names = loaded(certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.critical, "as RFC 5280 wants where the subject is empty"
    assert [name.value for name in names.value] == [subject.uri]


def test_a_certificate_is_good_for_both_ends_of_tls_and_for_nothing_else() -> None:
    extensions = loaded(issued(host())).extensions
    uses = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(uses) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    usage = extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature
    assert not usage.key_cert_sign
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_a_ca_signs_members_and_one_more_ca_and_nothing_below_that() -> None:
    newer = ca(1)
    for certificate, path_length in [(ca().certificate, 1), (ca().cross_sign(newer, now=NOW), 0)]:
        extensions = loaded(certificate).extensions
        limits = extensions.get_extension_for_class(x509.BasicConstraints)
        assert (limits.critical, limits.value.ca, limits.value.path_length) == (True, True, path_length)
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
        assert (usage.key_cert_sign, usage.digital_signature) == (True, False)


def test_certificates_are_good_for_their_time_and_a_little_before() -> None:
    leaf = read_certificate(issued(host()))
    assert (leaf.not_before, leaf.not_after) == (NOW - BACKDATED_S, NOW + LEAF_LIFE_S)
    own = loaded(ca().certificate)
    assert own.not_valid_before_utc.timestamp() == NOW - BACKDATED_S
    assert own.not_valid_after_utc.timestamp() == NOW + AUTHORITY_LIFE_S


def test_no_certificate_outlives_the_ca_that_signs_it() -> None:
    short = Authority.make(FLEET, now=NOW, life_s=10.0 * DAY)
    assert read_certificate(issued(host(), by=short)).not_after == NOW + 10.0 * DAY
    for older, newer in [(short, ca()), (ca(), short)]:
        crossed = loaded(older.cross_sign(newer, now=NOW))
        assert crossed.not_valid_after_utc.timestamp() == NOW + 10.0 * DAY


def test_what_a_ca_signs_whose_time_is_over_has_expired_too() -> None:
    """By a clock that is years ahead, for instance; it was a bug's error, and stopped the master."""
    late = NOW + AUTHORITY_LIFE_S + 2 * DAY
    newer = Authority.make(FLEET, now=late)
    with pytest.raises(CertificateExpired):
        read_certificate(issued(host(), now=late)).check_time(late)
    assert loaded(ca().cross_sign(newer, now=late)).not_valid_after_utc.timestamp() < late
    assert read_certificate(issued(host(), now=late - 3 * DAY)).not_after == NOW + AUTHORITY_LIFE_S


@pytest.mark.parametrize("now", [0.0, 1e9 + 0.75, 2_524_607_999.0, 2_524_608_001.0, 4e9])
def test_any_year_will_do(now: float) -> None:
    """Times from 2050 on are written in another form."""
    made = Authority.make(FLEET, now=now)
    certified = read_certificate(issued(host(), by=made, now=now))
    assert certified.not_before <= now - BACKDATED_S
    assert certified.not_after == int(now + LEAF_LIFE_S)


def test_serial_numbers_are_unlike_and_of_one_length() -> None:
    serials = [loaded(issued(host())).serial_number for _ in range(200)]
    assert len(set(serials)) == 200
    assert {serial.bit_length() for serial in serials} == {159}, "20 bytes, positive: what RFC 5280 allows at most"
    assert len({len(issued(host())) for _ in range(20)}) == 1


def test_two_cas_of_a_fleet_never_have_one_name() -> None:
    names = {loaded(Authority.make(FLEET, now=NOW).certificate).subject.rfc4514_string() for _ in range(50)}
    assert len(names) == 50


def test_what_goes_over_the_wire_fits_into_its_field() -> None:
    (limits,) = Pem.__metadata__  # type: ignore[attr-defined]
    longest = issued(host()) + ca().cross_sign(ca(1), now=NOW)
    assert limits.max_length >= 2 * len(longest)


def test_keys_are_not_shown() -> None:
    assert "PRIVATE" not in repr(ca())
    assert "PRIVATE" not in repr(credentials(host()))


class TestReading:
    @pytest.mark.parametrize("text", ["", "x", "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", "é"])
    def test_a_damaged_certificate_is_told(self, text: str) -> None:
        with pytest.raises(StorageFailed, match="a certificate is damaged"):
            read_certificate(text)
        assert not is_issued_by(text, ca().certificate)
        assert not is_issued_by(issued(host()), text)

    @pytest.mark.parametrize(
        "names",
        [
            [],
            [x509.DNSName("master")],
            [
                x509.UniformResourceIdentifier(host().uri),
                x509.UniformResourceIdentifier(f"interfiles://{FLEET}/master"),
            ],
        ],
        ids=["none", "DNS", "two"],
    )
    def test_a_certificate_that_names_nobody_is_damaged(self, names: list[x509.GeneralName]) -> None:
        with pytest.raises(StorageFailed, match="a certificate is damaged"):
            read_certificate(forged(names=names).chain)

    def test_a_certificate_that_names_somebody_else_is_not_believed(self) -> None:
        with pytest.raises(UntrustedPeer):
            read_certificate(forged(names=[x509.UniformResourceIdentifier("https://example.org/")]).chain)

    @pytest.mark.filterwarnings("ignore:Parsed a serial number")
    def test_a_certificate_with_any_byte_changed_gives_no_other_error(self) -> None:
        der = ssl.PEM_cert_to_DER_cert(issued(host()))
        for at in range(len(der)):
            for flip in (0x01, 0x80, 0xFF):
                changed = ssl.DER_cert_to_PEM_cert(der[:at] + bytes([der[at] ^ flip]) + der[at + 1 :])
                try:
                    read_certificate(changed)
                except (StorageFailed, UntrustedPeer):
                    pass
                is_issued_by(changed, ca().certificate)

    def test_who_has_signed_is_told_by_the_key_and_not_by_the_name(self) -> None:
        certificate = issued(host())
        assert is_issued_by(certificate, ca().certificate)
        assert not is_issued_by(certificate, ca(1).certificate)
        namesake = replace(ca(1), certificate=renamed(ca(1), ca()))
        assert not is_issued_by(certificate, namesake.certificate)

    @pytest.mark.parametrize("text", ["", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
    def test_a_damaged_key_is_told_and_not_shown(self, text: str) -> None:
        with pytest.raises(StorageFailed, match="a private key is damaged"):
            load_key(text)

    def test_a_key_of_another_kind_is_told(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        text = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        with pytest.raises(StorageFailed, match="of the kind ECPrivateKey, not Ed25519"):
            load_key(text.decode())


def renamed(made: Authority, to: Authority) -> str:
    """The certificate of one CA's key, under the name of another CA."""
    name, key = loaded(to.certificate).subject, load_key(made.key)
    return authority._authority_certificate(name, key.public_key(), name, key, NOW, NOW + DAY, path_length=1)


class TestDigest:
    def test_it_is_what_openssl_shows(self) -> None:
        assert digest(ca().certificate) == loaded(ca().certificate).fingerprint(hashes.SHA256())

    def test_white_space_around_does_not_matter(self) -> None:
        assert digest(f"\n {ca().certificate}\n\n") == digest(ca().certificate)

    @pytest.mark.parametrize("fleet", ["f", "fe", "fee"], ids=["pad of none", "pad of one", "pad of two"])
    def test_a_second_certificate_cannot_hide_behind_one_with_the_right_digest(self, fleet: str) -> None:
        """Lenient decoders of base64 stop at the padding: the digest would be the first one's, the trust both's."""
        own, other = Authority.make(fleet, now=NOW).certificate, ca(2).certificate
        for text in (own.strip() + "\n" + other, own + other, other + own, own + own, own[:-30] + "=" + own[-30:]):
            with pytest.raises(ValueError, match=r"."):
                digest(text)

    def test_what_has_the_right_digest_is_one_certificate_to_tls_too(self) -> None:
        for fleet in ("f", "fe", "fee"):
            made = Authority.make(fleet, now=NOW)
            digest(made.certificate)
            assert len(contexts.joining(made.certificate).get_ca_certs()) == 1

    @pytest.mark.parametrize("text", ["", "x", "é", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"])
    def test_no_certificate_has_no_digest(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"."):
            digest(text)


def test_the_subject_key_of_the_issuer_is_named() -> None:
    own = loaded(ca().certificate).extensions.get_extension_for_oid(ExtensionOID.SUBJECT_KEY_IDENTIFIER).value
    leaf = loaded(issued(host(ALICE))).extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert isinstance(own, x509.SubjectKeyIdentifier)
    assert leaf.key_identifier == own.digest
