"""Who is not whom he would like to be taken for: what each shows, and what he is told or said to be."""

import ssl
from collections.abc import Callable
from dataclasses import dataclass

from interfiles.errors import (
    CertificateExpired,
    CertificateNotYetValid,
    CertificateRefused,
    InterFilesError,
    NotAdmitted,
    UntrustedPeer,
)
from interfiles.identity import contexts
from interfiles.identity.contexts import Credentials
from interfiles.identity.subject import Subject
from tests.daemons.client.certificates import (
    CA,
    MASTER_SUBJECT,
    OTHER_CA,
    credentials,
    expired,
    host_credentials,
    not_yet_valid,
    self_signed,
)


@dataclass(frozen=True)
class Impostor:
    """`shown`: its certificate, if it is to be taken for this host. `when_dialled`: the error of who dials it, with
    words of that; `when_dialling`: the error that it meets itself; None where it is no impostor then.
    """

    shown: Callable[[Subject], Credentials]
    when_dialled: type[InterFilesError]
    words: str
    when_dialling: type[InterFilesError] | None


IMPOSTORS = {
    "another CA's": Impostor(
        lambda subject: credentials(subject, OTHER_CA), UntrustedPeer, "is not of this fleet", CertificateRefused
    ),
    "self-signed": Impostor(self_signed, UntrustedPeer, "is not of this fleet", CertificateRefused),
    "expired": Impostor(
        expired, CertificateExpired, r"the certificate of host \w+ of fleet f1f1 expired 10 d ago", CertificateExpired
    ),
    "not yet valid": Impostor(
        not_yet_valid, CertificateNotYetValid, r"is good only 1 d 2\dh? h from now", CertificateNotYetValid
    ),
    "another host's": Impostor(
        lambda _: host_credentials("somebody else"),
        UntrustedPeer,
        r"answers host \w+ of fleet f1f1, not host \w+ of fleet f1f1",
        None,
    ),
    "the master's": Impostor(
        lambda _: credentials(MASTER_SUBJECT), UntrustedPeer, "answers the master of fleet f1f1, not host", NotAdmitted
    ),
    "the CA's own": Impostor(
        lambda _: Credentials(CA.certificate, CA.key, (CA.certificate,)),
        UntrustedPeer,
        "is not of this fleet: unsuitable certificate purpose",
        CertificateRefused,
    ),
}


def without_certificate() -> ssl.SSLContext:
    """How somebody dials who has no certificate."""
    return contexts.joining(CA.certificate)


def of_version_1_2() -> ssl.SSLContext:
    """How somebody dials who has a good certificate, and speaks no TLS newer than 1.2."""
    made = contexts.dialling(host_credentials("old"))
    made.minimum_version = made.maximum_version = ssl.TLSVersion.TLSv1_2
    return made
