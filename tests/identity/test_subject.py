"""Whom a certificate names: exactly one way to write each, and nothing that only looks like one."""

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from interfiles.errors import CertificateExpired, CertificateNotYetValid, UntrustedPeer
from interfiles.identity import contexts
from interfiles.identity.subject import Certified, Subject
from tests.identity.members import ALICE, BOB, FLEET, MASTER, NOW, credentials, forged, handshake, host

fleets = st.text("0123456789abcdef", min_size=1, max_size=32)
host_ids = st.text("0123456789abcdef", min_size=32, max_size=32)
subjects = st.one_of(
    st.builds(Subject, fleets, st.just("master")), st.builds(Subject, fleets, st.just("host"), host_ids)
)
HOST_URI = f"interfiles://{FLEET}/host/{ALICE}"


@given(subjects)
def test_a_subject_survives_being_written(subject: Subject) -> None:
    assert Subject.parse(subject.uri) == subject


@given(subjects, subjects)
def test_two_subjects_are_never_written_alike(one: Subject, other: Subject) -> None:
    assert (one.uri == other.uri) == (one == other)


@given(st.text(max_size=80))
def test_any_other_text_names_nobody(text: str) -> None:
    with pytest.raises(UntrustedPeer, match="neither a master nor a host of a fleet"):
        Subject.parse(text)


@given(st.text(min_size=1, max_size=3), st.integers(0, len(HOST_URI)))
def test_a_name_with_something_put_in_is_never_the_same_name(extra: str, at: int) -> None:
    try:
        assert Subject.parse(HOST_URI[:at] + extra + HOST_URI[at:]) != host()
    except UntrustedPeer:
        pass


HOSTILE = {
    "upper case scheme": HOST_URI.replace("interfiles", "INTERFILES"),
    "upper case id": f"interfiles://{FLEET}/host/{'A' * 32}",
    "upper case role": f"interfiles://{FLEET}/MASTER",
    "another scheme": f"https://{FLEET}/master",
    "no scheme": f"//{FLEET}/master",
    "another role": f"interfiles://{FLEET}/admin",
    "both roles": f"interfiles://{FLEET}/master/host/{ALICE}",
    "no fleet": "interfiles:///master",
    "long fleet": f"interfiles://{'f' * 33}/master",
    "a fleet of another alphabet": "interfiles://xyz/master",
    "digits of another script": f"interfiles://{FLEET}/host/{'٣' * 32}",
    "short id": f"interfiles://{FLEET}/host/{'a' * 31}",
    "long id": f"interfiles://{FLEET}/host/{'a' * 33}",
    "no id": f"interfiles://{FLEET}/host/",
    "newline": HOST_URI + "\n",
    "newline before": "\n" + HOST_URI,
    "NUL": HOST_URI + "\0",
    "NUL and more": f"{HOST_URI}\0.example.org",
    "slash": HOST_URI + "/",
    "query": HOST_URI + "?x",
    "fragment": f"interfiles://{FLEET}/master#x",
    "escape": f"interfiles://{FLEET}/%6daster",
    "dots": f"interfiles://{FLEET}/x/../master",
    "user": f"interfiles://x@{FLEET}/master",
    "port": f"interfiles://{FLEET}:1/master",
    "white space": f" {HOST_URI}",
    "empty": "",
}


@pytest.mark.parametrize("uri", [pytest.param(uri, id=name) for name, uri in HOSTILE.items()])
def test_what_only_looks_like_a_name_is_none(uri: str) -> None:
    with pytest.raises(UntrustedPeer):
        Subject.parse(uri)


def uri(text: str) -> x509.GeneralName:
    return x509.UniformResourceIdentifier(text)


NAMES: dict[str, list[x509.GeneralName]] = {
    "only a DNS name": [x509.DNSName("master")],
    "a DNS name that looks like a URI": [x509.DNSName(HOST_URI)],
    "an e-mail address that looks like one": [x509.RFC822Name(f"{FLEET}/master@example.org")],
    "two hosts": [uri(HOST_URI), uri(host(BOB).uri)],
    "the same host twice": [uri(HOST_URI), uri(HOST_URI)],
    "a host and the master": [uri(HOST_URI), uri(MASTER.uri)],
    "a host and a web page": [uri(HOST_URI), uri("https://example.org/")],
    **{name: [uri(text)] for name, text in HOSTILE.items() if text.isascii()},
}


@pytest.mark.parametrize("names", [pytest.param(names, id=name) for name, names in NAMES.items()])
def test_a_certificate_that_the_ca_has_signed_names_its_owner_in_that_way_alone(names: list[x509.GeneralName]) -> None:
    dialled, _ = handshake(contexts.dialling(credentials(host(BOB))), contexts.accepting(forged(names=names)))
    with pytest.raises(UntrustedPeer, match="neither a master nor a host of a fleet"):
        contexts.certified(dialled)


def test_bytes_of_no_encoding_name_nobody() -> None:
    name = HOST_URI.encode() + b"\xff\xfe"
    san = b"\x30" + bytes([len(name) + 2]) + b"\x86" + bytes([len(name)]) + name
    peer = contexts.accepting(forged(names=san))
    dialled, _ = handshake(contexts.dialling(credentials(host(BOB))), peer)
    with pytest.raises(UntrustedPeer, match="neither a master nor a host of a fleet"):
        contexts.certified(dialled)


def test_names_of_other_kinds_beside_it_change_nothing() -> None:
    names = [x509.DNSName("master"), uri(HOST_URI), x509.RFC822Name("root@example.org")]
    dialled, _ = handshake(contexts.dialling(credentials(host(BOB))), contexts.accepting(forged(names=names)))
    certified = contexts.certified(dialled)
    assert certified is not None
    assert certified.subject == host()


class TestTime:
    CERTIFIED = Certified(host(), NOW, NOW + 100.0)

    @pytest.mark.parametrize("after_s", [0.0, 50.0, 100.0])
    def test_from_the_first_to_the_last_second_it_is_good(self, after_s: float) -> None:
        self.CERTIFIED.check_time(NOW + after_s)

    def test_one_that_has_expired_says_by_how_much(self) -> None:
        with pytest.raises(
            CertificateExpired, match=r"host aaaaaaaa of fleet f1ee expired 2 min ago .* set the clocks"
        ):
            self.CERTIFIED.check_time(NOW + 220.0)
        with pytest.raises(CertificateExpired):
            self.CERTIFIED.check_time(NOW + 100.001)

    def test_one_of_the_future_says_by_how_much(self) -> None:
        with pytest.raises(
            CertificateNotYetValid, match=r"good only 1 h from now .* set the clocks of both hosts right"
        ):
            self.CERTIFIED.check_time(NOW - 3600.0)
        with pytest.raises(CertificateNotYetValid):
            self.CERTIFIED.check_time(NOW - 0.001)

    def test_the_master_is_called_so(self) -> None:
        with pytest.raises(CertificateExpired, match="of the master of fleet f1ee"):
            Certified(MASTER, NOW, NOW).check_time(NOW + 1)
