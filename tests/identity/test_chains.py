"""While a CA takes the place of another: who knows one of them, or both, believes whom."""

import ssl

import pytest

from interfiles.identity import contexts
from interfiles.identity.authority import Authority, new_key, public_key_of
from interfiles.identity.contexts import Credentials
from tests.identity.members import ALICE, BOB, NOW, ca, credentials, forged, handshake, host, trusting

OLD, NEW, NEWEST = ca(0), ca(1), ca(2)


def certified_by(signer: Authority, *crosses: str, host_id: str = ALICE) -> Credentials:
    """A host's, with these cross certificates behind its own."""
    key = new_key()
    leaf = signer.issue(public_key_of(key), host(host_id), now=NOW)
    return Credentials(leaf + "".join(crosses), key, ())


BY_OLD = certified_by(OLD)
BY_NEW = certified_by(NEW, OLD.cross_sign(NEW, now=NOW), host_id=BOB)


@pytest.mark.parametrize("knows", [(OLD,), (NEW,), (NEW, OLD)], ids=["old", "new", "both"])
def test_what_the_newer_ca_has_signed_is_believed_by_all(knows: tuple[Authority, ...]) -> None:
    """A host that renewed first and one that has not heard yet of the newer CA still meet, whoever dials."""
    reader = trusting(credentials(host(), signed_by=knows[0]), *knows)
    newer = trusting(BY_NEW, NEW, OLD)
    handshake(contexts.dialling(reader), contexts.accepting(newer))
    handshake(contexts.dialling(newer), contexts.accepting(reader))


def test_what_the_older_ca_has_signed_is_believed_as_long_as_that_is_trusted() -> None:
    older = trusting(BY_OLD, OLD)
    handshake(contexts.dialling(older), contexts.accepting(trusting(BY_NEW, NEW, OLD)))
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(contexts.dialling(older), contexts.accepting(trusting(BY_NEW, NEW)))


def test_without_the_cross_certificate_who_knows_only_the_older_ca_does_not_believe_the_newer() -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(contexts.dialling(trusting(certified_by(NEW), NEW, OLD)), contexts.accepting(trusting(BY_OLD, OLD)))


def test_a_cross_certificate_does_not_make_the_older_ca_one_of_the_newers() -> None:
    """It leads from the older CA to the newer one, and never back."""
    both = trusting(certified_by(OLD, OLD.cross_sign(NEW, now=NOW)), OLD)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(contexts.dialling(both), contexts.accepting(trusting(BY_NEW, NEW)))


def test_a_cross_certificate_of_a_cross_certificate_leads_nowhere() -> None:
    """The path length allows one CA below a CA: who trusts only the first does not come to trust the third."""
    crosses = NEW.cross_sign(NEWEST, now=NOW), OLD.cross_sign(NEW, now=NOW)
    third = trusting(certified_by(NEWEST, *crosses), OLD)
    with pytest.raises(ssl.SSLCertVerificationError, match="path length"):
        handshake(contexts.dialling(third), contexts.accepting(trusting(BY_OLD, OLD)))
    handshake(contexts.dialling(third), contexts.accepting(trusting(BY_NEW, NEW)))


def test_a_member_cannot_sign_members() -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(contexts.dialling(forged(signed_by=trusting(BY_OLD, OLD))), contexts.accepting(trusting(BY_OLD, OLD)))


def test_a_member_cannot_sign_a_ca_that_signs_members() -> None:
    sub_ca = forged(names=[], is_ca=True, signed_by=trusting(BY_OLD, OLD))
    member = forged(signed_by=sub_ca)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(contexts.dialling(member), contexts.accepting(trusting(BY_OLD, OLD)))


def test_a_ca_that_a_peer_brings_along_is_not_trusted() -> None:
    stranger = ca(9)
    brought = certified_by(stranger, stranger.certificate)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(contexts.dialling(trusting(brought, OLD)), contexts.accepting(trusting(BY_OLD, OLD)))
