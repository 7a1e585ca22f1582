"""Who answers in the master's place when a host joins gets nothing; and what is said of clocks that differ."""

import base64

import pytest
from trio.testing import MockClock

from interfiles.errors import CertificateExpired, CertificateNotYetValid, InterFilesError, UntrustedPeer
from interfiles.identity.contexts import Credentials
from interfiles.units import DAY, HOUR
from interfiles.wire import master_messages as m
from tests.conftest import LogRecords
from tests.daemons.client.certificates import (
    CA,
    MASTER_SUBJECT,
    OTHER_CA,
    SECRET,
    credentials,
    host_credentials,
    join_token,
    self_signed,
)
from tests.daemons.client.scripted_master import Master, joined
from tests.daemons.client.setting import DAEMON_IP, MASTER_IP


def gives_nothing_away(records: LogRecords) -> bool:
    """No record has the token or its secret, in whatever form."""
    text = repr(records.records)
    token = join_token().encode()
    forms = [SECRET.hex(), SECRET.decode(), repr(SECRET), base64.b64encode(SECRET).decode(), *token.split("-")[1:4]]
    return not any(form in text for form in forms)


async def test_a_man_in_the_middle_with_a_ca_of_his_own_is_told_nothing(
    master: Master, log_records: LogRecords, autojump_clock: MockClock
) -> None:
    master.authorities = [OTHER_CA]
    with pytest.raises(UntrustedPeer) as caught:
        await joined(master.network)
    assert str(caught.value) == (
        "what answers at 10.0.0.254:4850 is not the master that made this token (its CA is another one), so it was not "
        "shown the secret; check the address, or get a new token with `interfiles token`"
    )
    assert [message for message, _ in master.heard] == [m.GetAuthorities()]
    assert gives_nothing_away(log_records)


IMPOSTORS: dict[str, tuple[Credentials, str]] = {
    "by a CA of his own": (credentials(MASTER_SUBJECT, OTHER_CA), "the other end's certificate is not of this fleet"),
    "self-signed": (self_signed(MASTER_SUBJECT), "the other end's certificate is not of this fleet"),
    "a host's": (host_credentials("taken over"), "answers host .* of fleet f1f1, no master"),
}


@pytest.mark.parametrize(("shown", "words"), IMPOSTORS.values(), ids=IMPOSTORS)
async def test_a_man_in_the_middle_who_passes_the_true_ca_on_is_told_nothing_either(
    master: Master, log_records: LogRecords, shown: Credentials, words: str, autojump_clock: MockClock
) -> None:
    master.shown = shown
    with pytest.raises(UntrustedPeer, match=words):
        await joined(master.network)
    assert [message for message, _ in master.heard] == [m.GetAuthorities()], "which everybody may ask"
    assert gives_nothing_away(log_records)


async def test_he_may_offer_other_cas_beside_the_true_one(master: Master, autojump_clock: MockClock) -> None:
    master.authorities = [OTHER_CA, CA]  # and so prove himself by his own
    with pytest.raises(UntrustedPeer, match="not of this fleet"):
        await joined(master.network)
    assert not master.messages(m.Enrol)


async def test_who_only_listens_sees_neither_secret_nor_key_nor_name(
    master: Master, log_records: LogRecords, autojump_clock: MockClock
) -> None:
    seen = bytearray()

    def watch(data: bytes) -> bytes:
        seen.extend(data)
        return data

    for ip in (DAEMON_IP, MASTER_IP):
        master.network.tap(ip, lambda _: watch)
    made = await joined(master.network)
    assert master.messages(m.Enrol)
    assert len(seen) > 2000
    for hidden in (SECRET, b"rack-a", made.host_id.encode(), made.chain.encode()[100:200]):
        assert hidden not in seen
    assert gives_nothing_away(log_records)


CLOCKS: dict[str, tuple[float, type[InterFilesError], str]] = {
    "far ahead": (40 * DAY, CertificateExpired, "the certificate of the master of fleet f1f1 expired 10 d ago"),
    "a little too far ahead": (30 * DAY + HOUR, CertificateExpired, "expired 1 h ago by the clock of the host that"),
    "behind": (-2 * DAY, CertificateNotYetValid, "is good only 1 d 23 h from now by the clock of the host that checks"),
}


@pytest.mark.parametrize(("ahead_s", "error", "words"), CLOCKS.values(), ids=CLOCKS)
async def test_a_clock_that_is_wrong_is_named_before_the_secret_is_sent(
    master: Master, ahead_s: float, error: type[InterFilesError], words: str, autojump_clock: MockClock
) -> None:
    with pytest.raises(error) as caught:
        await joined(master.network, clock_ahead_s=ahead_s)
    assert words in str(caught.value)
    assert "set the clocks" in str(caught.value)
    assert not master.messages(m.Enrol)


@pytest.mark.parametrize("ahead_s", [29 * DAY, -0.9 * HOUR])
async def test_a_clock_that_is_a_little_wrong_is_no_matter(
    master: Master, ahead_s: float, autojump_clock: MockClock
) -> None:
    assert await joined(master.network, clock_ahead_s=ahead_s)
