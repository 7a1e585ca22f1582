"""TLS contexts: version 1.3 alone, both ends certified, by this fleet's CA and for this purpose."""

import os
import ssl
from collections.abc import Callable
from dataclasses import replace

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from interfiles.errors import CertificateExpired, CertificateNotYetValid, StorageFailed
from interfiles.identity import contexts
from interfiles.identity.authority import LEAF_LIFE_S, Authority, new_key
from interfiles.identity.contexts import Credentials
from interfiles.units import DAY
from tests.identity.members import (
    ALICE,
    BOB,
    FLEET,
    MASTER,
    NOW,
    ca,
    credentials,
    forged,
    handshake,
    host,
    self_signed,
    trusting,
)

ALICES, BOBS = credentials(host(ALICE)), credentials(host(BOB))

EVERY = [
    pytest.param(lambda: contexts.accepting(ALICES), id="accepting"),
    pytest.param(lambda: contexts.accepting(ALICES, strangers=True), id="accepting strangers"),
    pytest.param(lambda: contexts.dialling(ALICES), id="dialling"),
    pytest.param(lambda: contexts.joining(ca().certificate), id="joining"),
    pytest.param(contexts.asking, id="asking"),
]


@pytest.mark.parametrize("make", EVERY)
def test_tls_1_3_is_all_that_is_spoken(make: Callable[[], ssl.SSLContext]) -> None:
    context = make()
    assert context.minimum_version == ssl.TLSVersion.TLSv1_3
    assert context.maximum_version in (ssl.TLSVersion.MAXIMUM_SUPPORTED, ssl.TLSVersion.TLSv1_3)
    assert context.verify_flags & ssl.VERIFY_X509_STRICT


@pytest.mark.parametrize("make", EVERY)
def test_the_cas_of_the_system_are_not_trusted(make: Callable[[], ssl.SSLContext]) -> None:
    assert len(make().get_ca_certs()) <= 1


def test_two_members_know_each_other() -> None:
    dialled, accepted = handshake(contexts.dialling(ALICES), contexts.accepting(BOBS))
    assert dialled.version() == accepted.version() == "TLSv1.3"
    found = contexts.certified(dialled), contexts.certified(accepted)
    assert [one.subject for one in found if one is not None] == [host(BOB), host(ALICE)]


def test_no_tickets_are_sent_and_no_session_is_resumed() -> None:
    dialled, accepted = handshake(contexts.dialling(ALICES), contexts.accepting(BOBS))
    accepted.write(b"x")
    assert dialled.read(1) == b"x"
    assert dialled.session is None or not dialled.session.has_ticket
    assert not dialled.session_reused
    assert contexts.accepting(BOBS).num_tickets == 0


def test_who_shows_no_certificate_is_a_stranger_where_strangers_are_let_in() -> None:
    masters = contexts.accepting(credentials(MASTER), strangers=True)
    for newcomer in (contexts.joining(ca().certificate), contexts.asking()):
        _, accepted = handshake(newcomer, masters)
        assert contexts.certified(accepted) is None
    with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
        handshake(contexts.joining(ca().certificate), contexts.accepting(credentials(MASTER)))


def test_who_asks_believes_nobody() -> None:
    for anybody in (credentials(MASTER), self_signed(), credentials(MASTER, signed_by=ca(1))):
        dialled, _ = handshake(contexts.asking(), contexts.accepting(anybody, strangers=True))
        assert contexts.certified(dialled) is None


IMPOSTORS = {
    "of another CA": lambda: credentials(host(), signed_by=ca(1)),
    "of another CA of the same name": lambda: credentials(host(), signed_by=ca(3, FLEET)),
    "self-signed": self_signed,
    "signed by a host": lambda: forged(signed_by=BOBS),
    "for no purpose of TLS": lambda: forged(uses=[ExtendedKeyUsageOID.CODE_SIGNING]),
    "a CA's own": lambda: Credentials(ca().certificate, ca().key, (ca().certificate,)),
}


@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in IMPOSTORS.items()])
@pytest.mark.parametrize("strangers", [False, True])
def test_a_certificate_that_is_not_a_members_is_refused_at_either_end(
    make: Callable[[], Credentials], strangers: bool
) -> None:
    impostor = make()
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(contexts.dialling(impostor), contexts.accepting(BOBS, strangers=strangers))
    for dialler in (contexts.dialling(BOBS), contexts.joining(ca().certificate)):
        with pytest.raises(ssl.SSLCertVerificationError):
            handshake(dialler, contexts.accepting(impostor, strangers=True))


def test_a_certificate_for_one_end_is_refused_at_the_other() -> None:
    only_server, only_client = (
        forged(uses=[use]) for use in (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
    )
    handshake(contexts.dialling(only_client), contexts.accepting(only_server))
    with pytest.raises(ssl.SSLCertVerificationError, match="purpose"):
        handshake(contexts.dialling(only_server), contexts.accepting(BOBS))
    with pytest.raises(ssl.SSLCertVerificationError, match="purpose"):
        handshake(contexts.dialling(BOBS), contexts.accepting(only_client))


@pytest.mark.parametrize("end", [ssl.PROTOCOL_TLS_CLIENT, ssl.PROTOCOL_TLS_SERVER], ids=["dialler", "acceptor"])
def test_an_older_tls_is_refused(end: int) -> None:
    old = ssl.SSLContext(end)
    old.check_hostname = False
    old.verify_mode = ssl.CERT_NONE
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    contexts._load(old, ALICES)
    is_dialler = end == ssl.PROTOCOL_TLS_CLIENT
    ends = (old, contexts.accepting(BOBS)) if is_dialler else (contexts.dialling(BOBS), old)
    with pytest.raises(ssl.SSLError, match=r"VERSION|PROTOCOL"):
        handshake(*ends)


class TestTime:
    """OpenSSL goes by the machine's clock, which no test can turn; so it is not asked."""

    @pytest.mark.parametrize(
        ("made_at", "error"), [(0.0, CertificateExpired), (4e9, CertificateNotYetValid)], ids=["1970", "2096"]
    )
    def test_a_certificate_of_another_time_comes_through_and_is_told_by_the_clock_that_is_given(
        self, made_at: float, error: type[Exception]
    ) -> None:
        timeless = Authority.make(FLEET, now=made_at)
        other = trusting(credentials(host(ALICE), signed_by=timeless, now=made_at), ca())
        bobs = trusting(BOBS, timeless, ca())
        for dialled, accepted in ((other, bobs), (bobs, other)):
            ends = handshake(contexts.dialling(dialled), contexts.accepting(accepted))
            found = [contexts.certified(end) for end in ends]
            (seen,) = [one for one in found if one is not None and one.subject == host(ALICE)]
            seen.check_time(made_at)
            with pytest.raises(error):
                seen.check_time(NOW)

    def test_the_times_of_a_certificate_arrive_to_the_second(self) -> None:
        dialled, _ = handshake(contexts.dialling(ALICES), contexts.accepting(BOBS))
        certified = contexts.certified(dialled)
        assert certified is not None
        assert (certified.not_before, certified.not_after) == (NOW - 3600, NOW + LEAF_LIFE_S)
        certified.check_time(NOW + 30 * DAY)


class TestDamage:
    @pytest.mark.parametrize(
        "damaged",
        [
            replace(ALICES, key=new_key()),
            replace(ALICES, key=""),
            replace(ALICES, chain=""),
            replace(ALICES, chain=ALICES.chain[:-60]),
            replace(ALICES, chain="é"),
        ],
        ids=["another key", "no key", "no certificate", "cut short", "not ASCII"],
    )
    @pytest.mark.parametrize("make", [contexts.accepting, contexts.dialling])
    def test_damaged_credentials_are_told(
        self, damaged: Credentials, make: Callable[[Credentials], ssl.SSLContext]
    ) -> None:
        with pytest.raises(StorageFailed, match="certificate or key is damaged; put its state directory back"):
            make(damaged)

    @pytest.mark.parametrize(
        "authorities",
        [(), ("",), ("x",), ("é",), (ca().certificate[:-60],)],
        ids=["none", "empty", "no PEM", "not ASCII", "cut short"],
    )
    def test_damaged_cas_are_told(self, authorities: tuple[str, ...]) -> None:
        with pytest.raises(StorageFailed, match="certificate of the fleet's CA is damaged"):
            contexts.dialling(replace(ALICES, authorities=authorities))

    def test_no_key_is_left_on_the_disk_or_in_an_open_file(self) -> None:
        before = os.listdir("/proc/self/fd")
        contexts.dialling(ALICES)
        with pytest.raises(StorageFailed):
            contexts.dialling(replace(ALICES, key=""))
        assert len(os.listdir("/proc/self/fd")) == len(before)
