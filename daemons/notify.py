"""Telling systemd how the daemon is: readiness, status, the watchdog (the sd_notify protocol)."""

import os
import socket
from collections.abc import Mapping
from typing import Final

import structlog
import trio

from interfiles.errors import printable

log = structlog.get_logger()

_MICROSECONDS: Final = 1_000_000


class Notifier:
    """Sends state changes to the service manager; without one, every call does nothing.

    A message that cannot be sent is logged, the first time only: the daemon works on without its manager.
    """

    def __init__(self, address: str | None, *, watchdog_interval_s: float | None = None) -> None:
        """Use `address`, a socket's path or `@name` for an abstract one; ping every `watchdog_interval_s`, if given."""
        self._address = address
        self._watchdog_interval_s = watchdog_interval_s
        self._complained = False

    @classmethod
    def from_environment(cls, environ: Mapping[str, str], *, pid: int | None = None) -> "Notifier":
        """Read what systemd put into the environment: NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID."""
        return cls(
            environ.get("NOTIFY_SOCKET"),
            watchdog_interval_s=_watchdog_interval_s(environ, os.getpid() if pid is None else pid),
        )

    def ready(self) -> None:
        """The daemon serves."""
        self._send("READY=1")

    def stopping(self) -> None:
        """The daemon has begun to stop."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """Show `text`, one line, in `systemctl status`."""
        self._send(f"STATUS={printable(text)}")

    async def feed_watchdog(self) -> None:
        """Ping the watchdog from the event loop for ever; return at once if there is none.

        Run it beside the daemon's work: pings stop when the loop hangs, and systemd restarts the daemon.
        """
        if self._watchdog_interval_s is None:
            return
        while True:
            self._send("WATCHDOG=1")
            await trio.sleep(self._watchdog_interval_s)

    def _send(self, state: str) -> None:
        if self._address is None:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            # Non-blocking: a service manager that does not read must not stop the event loop.
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
                sender.sendto(state.encode(), address)
        except OSError as error:
            if not self._complained:
                self._complained = True
                log.warning("cannot notify systemd", address=self._address, state=state, reason=str(error))


def _watchdog_interval_s(environ: Mapping[str, str], pid: int) -> float | None:
    """Half of the watchdog's time, so that one late ping is no failure; None if it is not meant for this process."""
    microseconds = environ.get("WATCHDOG_USEC", "")
    if not microseconds.isdecimal() or int(microseconds) == 0:
        return None
    if environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    return int(microseconds) / _MICROSECONDS / 2
