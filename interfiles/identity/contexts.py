"""TLS as fleets use it: version 1.3 alone, both ends certified by the fleet's CA.

OpenSSL checks signatures, chains and key usage; *not* the times of certificates, which `Certified.check_time` does with
the clock that it is given. So a host whose certificate has expired can still prove its key to the master, which renews
it; a wrong clock is named in the error; and tests can let years pass.
"""

import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from interfiles.errors import StorageFailed, UntrustedPeer
from interfiles.identity.subject import Certified, Subject

_NO_CHECK_TIME: Final = 0x200000  # X509_V_FLAG_NO_CHECK_TIME of OpenSSL's x509_vfy.h
_NAMES_NOBODY: Final = "its certificate names neither a master nor a host of a fleet"
_NO_TICKETS: Final = 0  # sessions are not resumed; and tickets that nobody reads can block a connection (trio #819)


@dataclass(frozen=True, slots=True)
class Credentials:
    """How one proves who one is, and whom one believes. All in PEM.

    `chain`: the certificate, behind it what others may need to verify it; `key`: its private key; `authorities`: the
    CAs that one trusts, the newest first.
    """

    chain: str
    key: str = field(repr=False)
    authorities: Sequence[str]


def accepting(credentials: Credentials, *, strangers: bool = False) -> ssl.SSLContext:
    """For the end that is dialled. `strangers`: who shows no certificate is let in too, to be told apart by that.

    Raises:
      StorageFailed: the credentials are damaged.
    """
    made = _context(ssl.PROTOCOL_TLS_SERVER, credentials)
    made.num_tickets = _NO_TICKETS
    made.verify_mode = ssl.CERT_OPTIONAL if strangers else ssl.CERT_REQUIRED
    return made


def dialling(credentials: Credentials) -> ssl.SSLContext:
    """For the end that dials as a member of the fleet.

    Raises:
      StorageFailed: the credentials are damaged.
    """
    return _context(ssl.PROTOCOL_TLS_CLIENT, credentials)


def joining(authority: str) -> ssl.SSLContext:
    """For a host that is no member yet and knows its fleet's CA."""
    made = _context(ssl.PROTOCOL_TLS_CLIENT, None)
    _trust(made, [authority])
    return made


def asking() -> ssl.SSLContext:
    """For a host that knows nothing yet: it believes nobody, and may only ask for the CA's certificate."""
    made = _context(ssl.PROTOCOL_TLS_CLIENT, None)
    made.verify_mode = ssl.CERT_NONE
    return made


def certified(tls: ssl.SSLObject) -> Certified | None:
    """What the other end's verified certificate says; None where it showed none.

    Raises:
      UntrustedPeer: it names no member of a fleet.
    """
    try:
        shown = tls.getpeercert()
    except ValueError as e:  # bytes that are no text
        raise UntrustedPeer(_NAMES_NOBODY) from e
    if not shown:
        return None
    names = shown.get("subjectAltName", ())
    assert isinstance(names, tuple)
    uris = [name[1] for name in names if name[0] == "URI"]
    if len(uris) != 1:
        raise UntrustedPeer(_NAMES_NOBODY)
    begins, ends = (ssl.cert_time_to_seconds(str(shown[at])) for at in ("notBefore", "notAfter"))
    raw = tls.getpeercert(binary_form=True)
    assert raw is not None
    return Certified(Subject.parse(str(uris[0])), begins, ends, ssl.DER_cert_to_PEM_cert(raw))


def _context(protocol: int, credentials: Credentials | None) -> ssl.SSLContext:
    made = ssl.SSLContext(protocol)
    made.check_hostname = False  # members go by ids, not by names of hosts
    made.verify_mode = ssl.CERT_REQUIRED
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.verify_flags |= ssl.VERIFY_X509_STRICT
    made.verify_flags |= _NO_CHECK_TIME
    if credentials is not None:
        _load(made, credentials)
        _trust(made, credentials.authorities)
    return made


def _load(context: ssl.SSLContext, credentials: Credentials) -> None:
    """The standard library takes a key from a file only: one in memory that has no name."""
    descriptor = os.memfd_create("interfiles", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(f"{credentials.key}\n{credentials.chain}".encode())
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    except (ssl.SSLError, OSError) as e:
        raise StorageFailed("this daemon's certificate or key is damaged; put its state directory back") from e
    finally:
        os.close(descriptor)


def _trust(context: ssl.SSLContext, authorities: Sequence[str]) -> None:
    try:
        if not authorities:
            raise ValueError("no CA to trust")
        for authority in authorities:  # one by one: beside a good one, text of any other kind would go unnoticed
            context.load_verify_locations(cadata=authority)
    except (ssl.SSLError, ValueError, TypeError) as e:  # TypeError: it is not even ASCII
        raise StorageFailed("a certificate of the fleet's CA is damaged; put the state directory back") from e
