"""Who comes to TLS with whom; and whoever does not is told why, if it listens, and is left in bounded time."""

import random
import ssl
from collections.abc import Callable

import pytest
import trio
import trio.testing
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st

from interfiles.errors import CertificateRefused, HandshakeFailed, PeerGone, PeerSilent, TransportError, UntrustedPeer
from interfiles.identity import contexts
from interfiles.identity.contexts import Credentials
from interfiles.transport.base import Transport
from interfiles.transport.memory import MemoryNetwork
from interfiles.transport.tls import ALERT_TIMEOUT_S, TLS_HANDSHAKE_TIMEOUT_S, TlsTransport, secure
from tests.identity.members import MASTER, ca, credentials, forged, host, self_signed, trusting
from tests.transport.setups import connect, flood, receive_exactly
from tests.transport.tls_ends import (
    ACCEPTOR,
    ALICES,
    BOBS,
    DIALLER,
    Cut,
    attempt,
    both,
    cable,
    run_in_virtual_time,
    secured,
)

Clock = trio.testing.MockClock

IMPOSTORS = {
    "self-signed": self_signed,
    "of another CA": lambda: trusting(credentials(host(), signed_by=ca(1)), ca()),
    "for another purpose": lambda: forged(uses=[ExtendedKeyUsageOID.CODE_SIGNING]),
    "signed by a host": lambda: forged(signed_by=BOBS),
    "a CA's own": lambda: Credentials(ca().certificate, ca().key, (ca().certificate,)),
}
MANY = [pytest.param(make, id=name) for name, make in IMPOSTORS.items()]


def accepting() -> ssl.SSLContext:
    return contexts.accepting(BOBS)


def dialling() -> ssl.SSLContext:
    return contexts.dialling(ALICES)


async def is_closed(transport: Transport) -> bool:
    """Whether the other end of this one has closed; what it said before that is dropped."""
    with trio.move_on_after(5):
        try:
            while await transport.receive_some_into(memoryview(bytearray(1 << 16))):
                pass
            await flood(transport)
        except PeerGone:
            return True
    return False


async def first_read(end: TlsTransport | TransportError) -> Exception:
    """What the first read brings about."""
    assert isinstance(end, TlsTransport), end
    try:
        return AssertionError(f"{await end.receive_some_into(memoryview(bytearray(9)))} bytes")
    except TransportError as e:
        return e


class TestMembers:
    async def test_both_ends_learn_who_the_other_is(self) -> None:
        dialled, accepted = await secured(ALICES, BOBS)
        assert [end.certified and end.certified.subject.host_id for end in (dialled, accepted)] == ["b" * 32, "a" * 32]
        assert dialled.remote is not None
        assert dialled.remote.host == ACCEPTOR

    async def test_a_master_comes_to_tls_with_strangers_too_and_knows_them_for_that(self) -> None:
        masters = contexts.accepting(credentials(MASTER), strangers=True)
        for newcomer, believes in ((contexts.asking(), None), (contexts.joining(ca().certificate), MASTER)):
            dialled, accepted = await both(newcomer, masters, await cable())
            assert isinstance(dialled, TlsTransport)
            assert isinstance(accepted, TlsTransport)
            assert accepted.certified is None
            assert (dialled.certified and dialled.certified.subject) == believes

    async def test_what_is_sent_right_behind_the_handshake_is_not_lost(self) -> None:
        ends = await cable()

        async def dial() -> None:
            dialled = await secure(ends[0], dialling(), accepted=False)
            await dialled.send_all(b"at once")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(dial)
            accepted = await secure(ends[1], accepting(), accepted=True)
            assert await receive_exactly(accepted, 7) == b"at once"

    async def test_a_handshake_comes_about_however_its_bytes_are_cut(self) -> None:
        ends = await cable()
        await secured(ends=(Cut(ends[0], [1, 3]), Cut(ends[1], [2])))


class TestImpostors:
    @pytest.mark.parametrize("make", MANY)
    @pytest.mark.parametrize("strangers", [False, True])
    async def test_one_that_dials_is_refused_and_told(
        self, make: Callable[[], Credentials], strangers: bool, autojump_clock: Clock
    ) -> None:
        """A master lets in who shows nothing, but nobody who shows something false."""
        ends = await cable()
        dialled, accepted = await both(contexts.dialling(make()), contexts.accepting(BOBS, strangers=strangers), ends)
        assert isinstance(accepted, UntrustedPeer)
        assert "the other end's certificate is not of this fleet" in str(accepted)
        refused = await first_read(dialled)
        assert isinstance(refused, CertificateRefused), refused
        assert "the other end does not accept this end's certificate" in str(refused)
        assert await is_closed(ends[0])

    @pytest.mark.parametrize("make", MANY)
    async def test_one_that_is_dialled_is_refused_and_told(
        self, make: Callable[[], Credentials], autojump_clock: Clock
    ) -> None:
        ends = await cable()
        dialled, accepted = await both(dialling(), contexts.accepting(make()), ends)
        assert isinstance(dialled, UntrustedPeer)
        assert isinstance(accepted, CertificateRefused), accepted
        assert await is_closed(ends[1])

    async def test_one_without_a_certificate_is_refused_and_told(self, autojump_clock: Clock) -> None:
        ends = await cable()
        dialled, accepted = await both(contexts.joining(ca().certificate), accepting(), ends)
        assert isinstance(accepted, UntrustedPeer)
        assert "shows no certificate" in str(accepted)
        assert isinstance(await first_read(dialled), CertificateRefused)
        assert await is_closed(ends[0])

    async def test_the_refused_end_that_sends_first_is_told_when_it_reads(self, autojump_clock: Clock) -> None:
        dialled, accepted = await both(contexts.dialling(self_signed()), accepting(), await cable())
        assert isinstance(accepted, UntrustedPeer)
        assert isinstance(dialled, TlsTransport)
        with pytest.raises(PeerGone):
            await flood(dialled)
        assert isinstance(await first_read(dialled), CertificateRefused)

    async def test_a_member_that_names_nobody_is_refused(self, autojump_clock: Clock) -> None:
        ends = await cable()
        dialled, _ = await both(dialling(), contexts.accepting(forged(names=[])), ends)
        assert isinstance(dialled, UntrustedPeer)
        dns = forged(names=[x509.DNSName("master")])
        for found in await both(contexts.dialling(dns), contexts.accepting(dns), await cable()):
            assert isinstance(found, UntrustedPeer)

    async def test_words_of_a_refusal_are_for_a_person(self, autojump_clock: Clock) -> None:
        _, accepted = await both(contexts.dialling(self_signed()), accepting(), await cable())
        assert str(accepted).isprintable()
        assert "_" not in str(accepted)


def old_tls(protocol: int) -> ssl.SSLContext:
    made = ssl.SSLContext(protocol)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    made.maximum_version = ssl.TLSVersion.TLSv1_2
    contexts._load(made, ALICES)
    return made


class TestOtherProtocols:
    async def test_tls_1_2_is_refused_at_either_end(self) -> None:
        dialled, accepted = await both(old_tls(ssl.PROTOCOL_TLS_CLIENT), accepting(), await cable())
        assert type(accepted) is type(dialled) is HandshakeFailed
        assert "do not come to TLS 1.3 (unsupported protocol)" in str(accepted)
        dialled, accepted = await both(dialling(), old_tls(ssl.PROTOCOL_TLS_SERVER), await cable())
        assert type(accepted) is type(dialled) is HandshakeFailed

    @pytest.mark.parametrize(
        ("said", "reason"),
        [
            (b"GET / HTTP/1.1\r\nHost: master\r\n\r\n", "http request"),
            (b"CONNECT master:443 HTTP/1.1\r\n\r\n", "https proxy request"),
            (b"SSH-2.0-OpenSSH_9.9\r\n", "wrong version number"),
            (b"\x00\x00\x00\x0d\x00\x00\x00\x00\x94\x41\x03\xce\x00", ""),
            (b"\x16\x03\x01\xff\xff" + bytes(100), ""),
            (bytes(1 << 18), ""),
        ],
        ids=["HTTP", "proxy", "SSH", "a frame without TLS", "long record", "zeros"],
    )
    async def test_a_dialler_that_says_something_else_is_closed_at_once(
        self, autojump_clock: Clock, said: bytes, reason: str
    ) -> None:
        ends = await cable()
        await ends[0].send_all(said[: 200 << 10])
        accepted = await attempt(secure(ends[1], accepting(), accepted=True))
        assert type(accepted) is HandshakeFailed, accepted
        assert reason in str(accepted)
        assert trio.current_time() <= ALERT_TIMEOUT_S
        assert await is_closed(ends[0])

    @pytest.mark.parametrize("said", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-x\r\n", bytes(100)])
    async def test_an_acceptor_that_says_something_else_is_closed_at_once(
        self, autojump_clock: Clock, said: bytes
    ) -> None:
        ends = await cable()
        await ends[1].send_all(said)
        assert type(await attempt(secure(ends[0], dialling(), accepted=False))) is HandshakeFailed
        assert trio.current_time() == 0
        assert await is_closed(ends[1])

    @given(st.binary(min_size=1, max_size=300), st.booleans(), st.booleans())
    @settings(max_examples=150)
    def test_noise_ends_in_a_typed_error_in_bounded_time(self, noise: bytes, is_dialler: bool, leaves: bool) -> None:
        async def shake() -> None:
            ends = await cable()
            own, other = (ends[0], ends[1]) if is_dialler else (ends[1], ends[0])
            await other.send_all(noise)
            if leaves:
                other.close()
            context = dialling() if is_dialler else accepting()
            found = await attempt(secure(own, context, accepted=not is_dialler))
            assert isinstance(found, HandshakeFailed | PeerGone | PeerSilent)
            assert trio.current_time() <= TLS_HANDSHAKE_TIMEOUT_S
            with pytest.raises(PeerGone, match="this end closed the connection"):
                await own.send_all(b"x")

        run_in_virtual_time(shake)

    async def test_a_hello_without_end_is_given_up_early(self) -> None:
        """Its length would be 16 MiB: what is buffered of a handshake stays small."""
        ends, sent = await cable(), 0

        async def send() -> None:
            nonlocal sent
            record = b"\x16\x03\x01\x40\x00" + b"\x01\xff\xff\xff\x03\x03" + bytes((1 << 14) - 6)
            try:
                while True:
                    await ends[0].send_all(record)
                    sent += len(record)
            except PeerGone:
                pass

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            assert type(await attempt(secure(ends[1], accepting(), accepted=True))) is HandshakeFailed
        assert sent < 1 << 20


@pytest.fixture
async def hello() -> bytes:
    """What a dialler says first."""
    ends = await cable()
    with trio.move_on_after(0.01):
        await secure(ends[0], dialling(), accepted=False)
    return await receive_exactly(ends[1], 10_000)


class TestTime:
    @pytest.mark.parametrize("accepted", [False, True], ids=["dialler", "acceptor"])
    async def test_silence_is_left_in_time(self, autojump_clock: Clock, accepted: bool) -> None:
        ends = await cable()
        context = accepting() if accepted else dialling()
        found = await attempt(secure(ends[accepted], context, accepted=accepted))
        assert isinstance(found, PeerSilent)
        assert str(found) == "no TLS handshake within 10 s"
        assert trio.current_time() == TLS_HANDSHAKE_TIMEOUT_S
        assert await is_closed(ends[not accepted])

    async def test_a_byte_now_and_then_is_left_in_time_too(self, autojump_clock: Clock, hello: bytes) -> None:
        ends, began = await cable(), trio.current_time()

        async def trickle() -> None:
            try:
                for byte in hello:
                    await ends[0].send_all(bytes([byte]))
                    await trio.sleep(1)
            except PeerGone:
                pass

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trickle)
            assert isinstance(await attempt(secure(ends[1], accepting(), accepted=True)), PeerSilent)
            assert trio.current_time() - began == pytest.approx(TLS_HANDSHAKE_TIMEOUT_S)

    async def test_one_that_reads_nothing_of_the_handshake_is_left_in_time(
        self, autojump_clock: Clock, hello: bytes
    ) -> None:
        ends, began = await cable(window_bytes=1), trio.current_time()
        with trio.move_on_after(0.5):
            await ends[0].send_all(hello)
        found = await attempt(secure(ends[1], accepting(), accepted=True))
        assert isinstance(found, PeerSilent)
        assert trio.current_time() - began <= TLS_HANDSHAKE_TIMEOUT_S + 1

    @pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.99, 1.0])
    async def test_a_dialler_that_leaves_in_the_middle_is_gone(
        self, autojump_clock: Clock, hello: bytes, part: float
    ) -> None:
        ends, began = await cable(), trio.current_time()
        await ends[0].send_all(hello[: int(len(hello) * part)])
        ends[0].close()
        found = await attempt(secure(ends[1], accepting(), accepted=True))
        assert isinstance(found, PeerGone)
        assert trio.current_time() == began

    async def test_an_acceptor_that_leaves_in_the_middle_is_gone(self, autojump_clock: Clock) -> None:
        ends = await cable()

        async def accept() -> None:
            await receive_exactly(ends[1], 5)
            ends[1].close()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept)
            assert isinstance(await attempt(secure(ends[0], dialling(), accepted=False)), PeerGone)
        assert trio.current_time() == 0

    @pytest.mark.parametrize("accepted", [False, True], ids=["dialler", "acceptor"])
    async def test_a_cancelled_handshake_closes_the_connection(self, autojump_clock: Clock, accepted: bool) -> None:
        ends = await cable()
        with trio.move_on_after(1) as scope:
            await secure(ends[accepted], accepting() if accepted else dialling(), accepted=accepted)
        assert scope.cancelled_caught
        assert await is_closed(ends[not accepted])

    async def test_a_broken_connection_is_gone(self) -> None:
        network = MemoryNetwork(random.Random(1))
        ends = await connect(network, DIALLER, ACCEPTOR)

        async with trio.open_nursery() as nursery:

            async def shake() -> None:
                assert isinstance(await attempt(secure(ends[1], accepting(), accepted=True)), PeerGone)

            nursery.start_soon(shake)
            await trio.testing.wait_all_tasks_blocked()
            network.cut(DIALLER, ACCEPTOR)

    async def test_the_alert_waits_for_nobody_that_does_not_read(self, autojump_clock: Clock) -> None:
        """An impostor that never reads holds its place for two seconds more, and not for a minute."""
        ends = await cable(window_bytes=1)
        await ends[0].send_all(b"GET / HTTP/1.1\r\n\r\n")
        with trio.move_on_after(0.1):
            await flood(ends[1])
        began = trio.current_time()
        assert type(await attempt(secure(ends[1], accepting(), accepted=True))) is HandshakeFailed
        assert trio.current_time() - began <= 2
