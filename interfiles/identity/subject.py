"""Who an end of a connection is: what a certificate says, and whether that is whom we want to talk to.

A certificate names its owner in one URI of its subjectAltName (RFC 5280, 4.2.1.6), and nowhere else:

    interfiles://FLEET/master
    interfiles://FLEET/host/HOST-ID
"""

import re
from dataclasses import dataclass, field
from typing import Final, Literal

from interfiles.errors import CertificateExpired, CertificateNotYetValid, UntrustedPeer
from interfiles.units import format_duration

Role = Literal["master", "host"]

_URI: Final = re.compile(r"interfiles://([0-9a-f]{1,32})/(?:(master)|host/([0-9a-f]{32}))")


@dataclass(frozen=True, slots=True)
class Subject:
    """A member of a fleet: its master, or the host `host_id`. Both ids are hex digits."""

    fleet: str
    role: Role
    host_id: str = ""

    @property
    def uri(self) -> str:
        """How a certificate names it."""
        return f"interfiles://{self.fleet}/" + ("master" if self.role == "master" else f"host/{self.host_id}")

    @classmethod
    def parse(cls, uri: str) -> "Subject":
        """The reverse of `uri`.

        Raises:
          UntrustedPeer: it names nobody that way.
        """
        found = _URI.fullmatch(uri)
        if found is None:
            raise UntrustedPeer("its certificate names neither a master nor a host of a fleet")
        return cls(found[1], "master" if found[2] else "host", found[3] or "")

    def __str__(self) -> str:
        who = "the master" if self.role == "master" else f"host {self.host_id[:8]}"
        return f"{who} of fleet {self.fleet[:4]}"


@dataclass(frozen=True, slots=True)
class Certified:
    """What a certificate that the fleet's CA has signed says. Times in Unix seconds, both included.

    `certificate`: itself, in PEM.
    """

    subject: Subject
    not_before: float
    not_after: float
    certificate: str = field(default="", compare=False, repr=False)

    def check_time(self, now: float) -> None:
        """Check that the certificate is good `now`, in Unix seconds by this host's clock.

        Raises:
          CertificateExpired, CertificateNotYetValid: it is not; the sentence tells by how much.
        """
        if now > self.not_after:
            raise CertificateExpired(
                f"the certificate of {self.subject} expired {format_duration(now - self.not_after)} ago "
                "by the clock of the host that checks it; set the clocks right, or let the master renew it"
            )
        if now < self.not_before:
            raise CertificateNotYetValid(
                f"the certificate of {self.subject} is good only {format_duration(self.not_before - now)} from now "
                "by the clock of the host that checks it; set the clocks of both hosts right"
            )
