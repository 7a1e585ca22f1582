"""The one connection to the master: register, announce, ask, and hear what it pushes.

The link is made again for ever when it breaks; transfers do not depend on it. What the host holds is announced whole
after each registration and as changes from then on, so a master that lost its memory knows all within a heartbeat.
"""

from __future__ import annotations

import itertools
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar

import structlog
import trio

from daemons.client.notice import Notice
from daemons.supervision import Backoff, first_leaf, supervise
from interfiles.errors import (
    CertificateRefused,
    InterFilesError,
    MasterUnreachable,
    NotAdmitted,
    NotPermitted,
    PeerSilent,
    ProtocolError,
    RemoteProtocolError,
    TransportError,
    from_wire,
    printable,
)
from interfiles.manifest import FileId
from interfiles.transport.base import Address
from interfiles.transport.message_stream import MessageStream, greet
from interfiles.wire import master_messages as m
from interfiles.wire.codec import Message
from interfiles.wire.handshake_messages import Failure

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from daemons.client.announcer import Announcer, Forget, Inbox, Publication
    from daemons.client.fleet_network import FleetNetwork
    from daemons.client.membership import Membership
    from interfiles.transport.reach import Reach

REGISTER_TIMEOUT_S: Final = 10.0
REQUEST_TIMEOUT_S: Final = 30.0
MIN_HEARTBEAT_S: Final = 0.5  # whatever the master says
MAX_HEARTBEAT_S: Final = 300.0
STABLE_S: Final = 5.0  # a link that lasts no longer is made again less and less often, though it was made
MISSED_HEARTBEATS: Final = 2  # so many unanswered, and the link is made anew
COALESCE_S: Final = 0.05  # changes that come together are announced together
PROGRESS_S: Final = 2.0  # how often the piece counts of running downloads are announced, for `stat` to show
BACKOFF_FLOOR_S: Final = 0.2
BACKOFF_CAP_S: Final = 10.0  # or a heartbeat's length: a master that is back hears from everybody within two
PUBLISH_RETRY_S: Final = 10.0
RENEWAL_CHECK_S: Final = 600.0  # the wall clock may be set meanwhile
RENEWAL_RETRY_S: Final = 60.0
STORE_RETRY_S: Final = 60.0  # what a full disk did not take
MAX_REQUESTS: Final = 64  # under way at once
MAX_UNSENT: Final = 64

log = structlog.get_logger()
M = TypeVar("M", bound=Message)


@dataclass(slots=True)
class _Call:
    done: trio.Event = field(default_factory=trio.Event)
    answer: Message | None = None
    payload: bytes = b""


class MasterLink:
    """Owner of the connection to the master."""

    def __init__(
        self,
        network: FleetNetwork,
        membership: Membership,
        reach: Reach,
        announcer: Announcer,
        forget: Forget,
        inbox: Inbox,
        *,
        listen_port: int,
        advertise: str,
        rng: Random,
    ) -> None:
        self._network = network
        self._membership = membership
        self._reach = reach
        self._announcer = announcer
        self._forget = forget
        self._inbox = inbox
        self._listen_port = listen_port
        self._advertise = advertise
        self._backoff = Backoff(rng, floor_s=BACKOFF_FLOOR_S, cap_s=BACKOFF_CAP_S)
        self._masters = itertools.cycle(membership.identity.masters)
        self._outgoing: trio.MemorySendChannel[tuple[Message, bytes]] | None = None
        self._calls: dict[int, _Call] = {}
        self._numbers = itertools.count(1)
        self._room = trio.CapacityLimiter(MAX_REQUESTS)
        self._refusal: NotPermitted | None = None
        self._sent = self._heard = 0
        self._heard_at = 0.0
        self.master = membership.identity.masters[0]
        self._renewal = Notice()
        self.note = "connecting"
        self.address = ""
        self.replicas: int | None = None
        self.hosts: int | None = None  # that could hold a copy when a file was published last

    @property
    def is_connected(self) -> bool:
        """Whether the master counts this host as registered, as far as is known."""
        return self._outgoing is not None

    async def run(self) -> None:
        """Keep the link up until cancelled."""
        expected = (TransportError, ProtocolError, InterFilesError)
        await supervise("master link", self._connect, expected=expected, backoff=self._backoff, log=log)

    async def request(
        self, make: Callable[[int], Message], answer: type[M], *, payload: bytes = b""
    ) -> tuple[M, bytes]:
        """Ask the master and wait for its answer and that answer's payload.

        Raises:
          NotPermitted: the master does not let this host in.
          MasterUnreachable: there is no link, it broke, or the answer does not come within `REQUEST_TIMEOUT_S`.
          InterFilesError: the master's refusal.
        """
        async with self._room:
            if self._outgoing is None and self._refusal is not None:
                raise self._refusal
            if self._outgoing is None:
                raise MasterUnreachable(f"the master at {self.master} is not reachable now ({self.note})")
            number, call = next(self._numbers) % 2**32, _Call()
            self._calls[number] = call
            try:
                with trio.move_on_after(REQUEST_TIMEOUT_S):
                    try:
                        await self._outgoing.send((make(number), payload))
                    except (trio.BrokenResourceError, trio.ClosedResourceError):
                        call.done.set()
                    await call.done.wait()
            finally:
                del self._calls[number]
        match call.answer:
            case None:
                raise MasterUnreachable(f"the master at {self.master} did not answer; try again")
            case m.RequestFailed(code=code, text=text):
                raise from_wire(code, printable(text))
            case found if isinstance(found, answer):
                return found, call.payload
            case other:
                raise MasterUnreachable(f"the master answered with {type(other).__name__}")

    def tell(self, message: Message) -> None:
        """Say something to the master that needs no answer; it is lost if there is no link, or no room on it."""
        if self._outgoing is not None:
            with suppress(trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
                self._outgoing.send_nowait((message, b""))

    # The connection

    async def _connect(self) -> None:
        self.master = next(self._masters)
        try:
            if not await self._talk():  # it was there to renew the certificate: now as a host that has one
                await self._talk()
        except* InterFilesError as group:
            first = first_leaf(group)
            if isinstance(first, CertificateRefused) and self._membership.identity.removed:
                first = NotAdmitted(self._membership.identity.removed)  # it was told so before, in words
            self.note = str(first)
            self._refusal = first if isinstance(first, NotPermitted) else None
            if isinstance(first, NotAdmitted):
                await self._membership.on_admitted(removed=str(first))
            raise

    async def _talk(self) -> bool:
        """Hold one conversation; return False once the certificate is renewed if it had expired."""
        transport = await self._network.dial_master(Address.parse(self.master))
        stream, welcome = await greet(transport, "fleet", "master")
        try:
            if welcome.role == "lapsed" or self._membership.renewal_due_in_s <= 0:
                await self._renew_first(stream)
            if welcome.role == "lapsed":
                return False
            registered = await self._register(stream)
            await self._membership.on_admitted(removed="")
            self._reach.locate(own=Address.parse(registered.address), master=transport.remote)
            await self._converse(stream, registered)
        finally:
            stream.close()
        return True

    async def _renew_first(self, stream: MessageStream[Message]) -> None:
        answer = await self._ask(stream, m.Renew(0, self._membership.renewal_request()))
        match answer:
            case m.Renewed():
                await self._membership.on_renewed(answer)
            case m.RequestFailed(code=code, text=text):
                raise from_wire(code, printable(text))
            case other:
                raise RemoteProtocolError(f"{type(other).__name__} came in place of Renewed")

    async def _register(self, stream: MessageStream[Message]) -> m.Registered:
        me = self._membership.identity
        answer = await self._ask(stream, m.Register(me.name, me.zone, self._advertise, self._listen_port))
        if not isinstance(answer, m.Registered):
            raise RemoteProtocolError(f"{type(answer).__name__} came in place of Registered")
        return answer

    async def _ask(self, stream: MessageStream[Message], request: Message) -> Message:
        """Ask before the conversation has begun: nothing else is under way."""
        with trio.move_on_after(REGISTER_TIMEOUT_S):
            await stream.send(request)
            answer = await stream.receive()
            if isinstance(answer, Failure):
                raise from_wire(answer.code, printable(answer.text))
            return answer
        raise PeerSilent(f"the master did not answer {type(request).__name__} within {REGISTER_TIMEOUT_S:.0f} s")

    async def _converse(self, stream: MessageStream[Message], registered: m.Registered) -> None:
        self.address, self.replicas = registered.address, registered.replicas
        outgoing, due = trio.open_memory_channel[tuple[Message, bytes]](MAX_UNSENT)
        try:
            async with outgoing, due, trio.open_nursery() as nursery:
                self._outgoing, self.note, self._refusal = outgoing, "connected", None
                log.info("registered", master=self.master, name=registered.name, address=registered.address)
                nursery.start_soon(self._write, stream, due)
                heartbeat_s = min(max(registered.heartbeat_s, MIN_HEARTBEAT_S), MAX_HEARTBEAT_S)
                self._backoff.limit(min(heartbeat_s, BACKOFF_CAP_S))
                nursery.start_soon(self._announce, outgoing, heartbeat_s)
                nursery.start_soon(self._publish)
                nursery.start_soon(self._keep_certified)
                nursery.start_soon(self._keep_stored)
                await self._read(stream)
        finally:
            self._outgoing = None
            for call in self._calls.values():
                call.done.set()

    async def _write(
        self, stream: MessageStream[Message], due: trio.MemoryReceiveChannel[tuple[Message, bytes]]
    ) -> None:
        async for message, payload in due:
            await stream.send(message, payload)

    async def _read(self, stream: MessageStream[Message]) -> None:
        registered_at = trio.current_time()
        while True:
            message = await stream.receive()
            payload = await stream.receive_payload()
            match message:
                case m.Heard(sequence=sequence):
                    if sequence > self._sent:
                        raise RemoteProtocolError(f"heartbeat {sequence} was heard, {self._sent} were sent")
                    self._heard, self._heard_at = sequence, trio.current_time()
                    if self._heard_at - registered_at >= STABLE_S:
                        self._backoff.reset()
                case m.Authorities(certificates=certificates, at_once=at_once):
                    await self._membership.on_authorities(certificates, at_once=at_once)
                    self._renewal.tell()
                case m.Revoked():
                    await self._membership.on_revoked(message)
                case m.Handout() | m.Forget() | m.Order() | m.Release() | m.Challenge():
                    await self._hear_of_files(message)
                case Failure(code=code, text=text):
                    raise from_wire(code, printable(text))
                case (
                    m.Published(request=number)
                    | m.Resolved(request=number)
                    | m.HolderPage(request=number)
                    | m.FilePage(request=number)
                    | m.HostPage(request=number)
                    | m.Removed(request=number)
                    | m.ReplicasSet(request=number)
                    | m.Renewed(request=number)
                    | m.RequestFailed(request=number)
                ):
                    if call := self._calls.get(number):  # else it was given up
                        call.answer, call.payload = message, payload
                        call.done.set()
                case other:
                    raise RemoteProtocolError(f"{type(other).__name__} came after registration")

    async def _hear_of_files(self, pushed: m.Handout | m.Forget | m.Order | m.Release | m.Challenge) -> None:
        match pushed:
            case m.Handout():
                await self._announcer.on_handout(pushed)
            case m.Forget(file_id=file_id, delete=delete):
                self._forget(FileId(file_id), delete=delete)
            case _:
                self._inbox(pushed)

    async def _announce(self, outgoing: trio.MemorySendChannel[tuple[Message, bytes]], heartbeat_s: float) -> None:
        """Heartbeats, the first of them with everything; ends the link when they go unheard."""
        self._sent, self._heard, self._heard_at = 0, 0, trio.current_time()
        seen, replace = self._announcer.announcements.count, True
        pending = self._announcer.all_holdings()
        while True:
            for batch in _batches(pending):
                self._sent += 1
                used, free = self._announcer.room()
                free = free if self._membership.is_stored else 0  # its disk is full or broken
                await outgoing.send((m.Heartbeat(self._sent, used, free, replace, batch), b""))
                replace = False
            told_at = trio.current_time()
            beat_at = told_at + heartbeat_s
            while trio.current_time() < beat_at:
                with trio.move_on_at(min(beat_at, trio.current_time() + PROGRESS_S)):
                    seen = await self._announcer.announcements.later_than(seen)
                    await trio.sleep_until(told_at + COALESCE_S)  # at once, after a while of nothing
                if pending := self._announcer.changed_holdings():
                    break
            if self._heard < self._sent and trio.current_time() - self._heard_at > MISSED_HEARTBEATS * heartbeat_s:
                raise PeerSilent(f"the master has not answered for {MISSED_HEARTBEATS} heartbeats")

    async def _publish(self) -> None:
        """Publish what the master has not confirmed, now and after each upload; what fails is tried again later."""
        retry_at: dict[FileId, float] = {}
        while True:
            seen = self._announcer.announcements.count
            for p in self._announcer.unpublished():
                if trio.current_time() < retry_at.get(p.file_id, 0.0):
                    continue
                try:
                    await self.publish(p)
                except InterFilesError as e:
                    log.warning("not published", file=p.file_id.hex()[:12], reason=str(e))
                    retry_at[p.file_id] = trio.current_time() + PUBLISH_RETRY_S
            with trio.move_on_after(PUBLISH_RETRY_S):
                await self._announcer.announcements.later_than(seen)

    async def _keep_certified(self) -> None:
        """Renew the certificate when it is due, or the CA has changed."""
        while True:
            seen = self._renewal.count
            with trio.move_on_after(min(max(self._membership.renewal_due_in_s, 0.0), RENEWAL_CHECK_S)):
                await self._renewal.later_than(seen)
            if self._membership.renewal_due_in_s > 0:
                continue
            request = self._membership.renewal_request()
            try:
                answer, _ = await self.request(lambda n: m.Renew(n, request), m.Renewed)  # noqa: B023 - called at once
                await self._membership.on_renewed(answer)
                if self._membership.renewal_due_in_s > 0:
                    continue
                log.warning("the new certificate is as old as the last: this host's or the master's clock is wrong")
            except InterFilesError as e:
                log.warning("certificate not renewed", reason=str(e))
            await trio.sleep(RENEWAL_RETRY_S)

    async def _keep_stored(self) -> None:
        while True:
            await trio.sleep(STORE_RETRY_S)
            await self._membership.store()

    async def publish(self, publication: Publication) -> m.FileInfo:
        """Put one file into the catalogue.

        Raises:
          MasterUnreachable: no answer; it is published when the master is back.
          InterFilesError: the master refuses it.
        """
        p = publication
        answer, _ = await self.request(
            lambda n: m.Publish(n, p.file_id, p.uploaded_at, p.replicas, p.expires_at, p.again),
            m.Published,
            payload=p.manifest,
        )
        self.hosts = answer.hosts
        await self._announcer.on_published(answer.info)
        return answer.info


def _batches(holdings: list[m.Holding]) -> list[list[m.Holding]]:
    """Cut into what one heartbeat may carry; at least one, which may be empty."""
    size = m.MAX_HEARTBEAT_HOLDINGS
    return [holdings[i : i + size] for i in range(0, len(holdings), size)] or [[]]
