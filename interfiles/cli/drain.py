"""The commands that empty a host before it is switched off, for the master's host: hosts drain and hosts undrain."""

from typing import TYPE_CHECKING, Annotated, Final

import typer

from interfiles.cli import output, phrases
from interfiles.cli.call import on_master
from interfiles.cli.options import JsonOption, StateOption, examples
from interfiles.cli.progress import StatusLine
from interfiles.errors import INTERRUPTED, DaemonUnreachable, Refused, printable

if TYPE_CHECKING:
    from interfiles.administration import Admin
    from interfiles.wire.admin_reports import HostDrainReport

LOOK_S: Final = 1.0  # between two looks at how far a drain is
TELL_S: Final = 30.0  # between two lines that tell it where there is no terminal

_LEFT: Final = "Waiting; Ctrl-C leaves it draining."

HostArgument = Annotated[str, typer.Argument(metavar="HOST", help="Its name or id.", show_default=False)]


def register(hosts_app: typer.Typer) -> None:
    """Add the commands to `interfiles hosts`."""
    hosts_app.command(
        name="drain",
        short_help="Have what a host holds copied to others, to switch it off.",
        epilog=examples(
            "interfiles hosts drain render-07           until it can be switched off",
            "interfiles hosts drain render-07 --detach  in the background",
        ),
    )(drain_host)
    hosts_app.command(name="undrain", epilog=examples("interfiles hosts undrain render-07"))(undrain_host)


def drain_host(
    host: HostArgument,
    detach: Annotated[bool, typer.Option("--detach", help="Return at once; the master goes on.")] = False,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Have everything that a host holds copied to others, then say that it can be switched off; on the master's host.

    It is given no more copies until `interfiles hosts undrain`. Ctrl-C leaves it draining.
    """
    drain = Drain(host, tells=not as_json)
    try:
        with drain.line:
            report = on_master(state, drain.begin if detach else drain.follow)
    except KeyboardInterrupt as e:
        output.tell(_interrupted(drain.report))
        raise typer.Exit(INTERRUPTED) from e
    if as_json:
        output.emit_json(report)
    elif detach:
        output.emit(phrases.drains(report))
    else:
        output.emit(phrases.drained(report))


def undrain_host(host: HostArgument, state: StateOption = None, as_json: JsonOption = False) -> None:
    """Let a host be given copies again; run it on the master's host."""
    report = on_master(state, lambda admin: admin.undrain_host(host))
    if as_json:
        output.emit_json(report)
    else:
        output.emit(f"{printable(report.name)} does not drain: it is given copies as any other host.")


class Drain:
    """A drain that is begun and watched. `report`: what the master said last, None before its first answer.

    `tells`: where there is no terminal, say now and then how many files are left.
    """

    def __init__(self, host: str, *, tells: bool = True) -> None:
        self.report: HostDrainReport | None = None
        self.line = StatusLine()
        self._host = host
        self._tells = tells
        self._told = ""
        self._told_left = (0, 0)  # files and bytes
        self._told_at = 0.0

    async def begin(self, admin: "Admin") -> "HostDrainReport":
        """Begin it, and say what it waits for.

        Raises:
          UnknownHost: no host goes by this.
        """
        self.report = await admin.drain_host(self._host)
        self._remark(phrases.drain_waits(self.report), "It goes on by itself.")
        return self.report

    async def follow(self, admin: "Admin") -> "HostDrainReport":
        """Begin it, and watch it until the host can be switched off, over restarts of the master.

        Raises:
          UnknownHost: no host goes by this, or it was removed meanwhile.
          Refused: somebody has ended it.
        """
        import trio

        self._told_at = trio.current_time()  # what takes no longer than until the first line is told by its end
        self.report = report = await admin.drain_host(self._host)
        while report.to_move != 0:
            self.line.show(f"{printable(report.name)}  {phrases.left_to_move(report)}")
            self._tell_progress(report, trio.current_time())
            self._remark(phrases.drain_waits(report), _LEFT)
            self.report = report = await self._look_again(admin, report.host)
            if not report.draining:
                raise Refused(
                    f"{printable(report.name)} does not drain any more: somebody has ended that with `hosts undrain`"
                )
        return report

    async def _look_again(self, admin: "Admin", host_id: str) -> "HostDrainReport":
        import trio

        while True:
            await trio.sleep(LOOK_S)
            try:
                return await admin.drain_host(host_id, only_look=True)
            except DaemonUnreachable:
                self._remark("the master is away", _LEFT)

    def _tell_progress(self, report: "HostDrainReport", now: float) -> None:
        """Say how much is left, if that is not as much as when it was said last, and not too often."""
        left = (report.to_move or 0, report.left_bytes)
        if self.line.is_shown or not self._tells or report.to_move is None or left == self._told_left:
            return
        if now - self._told_at >= TELL_S:
            self._told_left, self._told_at = left, now
            self.line.remark(f"interfiles: {printable(report.name)} has {phrases.left_to_move(report)}.")

    def _remark(self, why: str, what_now: str) -> None:
        """Say once what is waited for; figures in it may change meanwhile."""
        kind = why.partition(";")[0]
        if why and kind != self._told:
            self.line.remark(f"interfiles: {why}. {what_now}")
        self._told = kind


def _interrupted(report: "HostDrainReport | None") -> str:
    if report is None:
        return "Interrupted before the master answered."
    name = printable(report.name)
    return (
        f"Interrupted: {name} goes on draining. Watch it with interfiles hosts drain {name}, end it with interfiles "
        f"hosts undrain {name}."
    )
