"""The commands about who belongs to the fleet, for the master's host: token and ca."""

import re
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from interfiles.cli import output, reports
from interfiles.cli.call import on_master
from interfiles.cli.options import JsonOption, StateOption, examples
from interfiles.errors import UsageError, printable
from interfiles.units import HOUR, format_count, format_duration, parse_duration
from interfiles.wire.control_messages import MAX_TOKEN_USES
from interfiles.wire.fields import HOST_NAME_PATTERN

if TYPE_CHECKING:
    from interfiles.wire.admin_reports import AuthorityReport, TokenReport

token_app = typer.Typer(
    help="Make a join token for new hosts, on the master's host; it alone goes to stdout. Or list and revoke tokens.",
    short_help="Make a join token for new hosts, on the master's host.",
    rich_markup_mode=None,
    invoke_without_command=True,
    epilog=examples(
        "interfiles token                     good for 1 h, any number of hosts",
        "interfiles token --ttl 10m --uses 1",
        "interfiles token --name render-07    good for one host, which is called that",
        'interfiles client --join "$TOKEN"    on the host that joins',
        "interfiles token list                who joined by which, and when",
        "interfiles token revoke 3f2a         lets nobody else in by it",
    ),
)
ca_app = typer.Typer(
    help="Show the fleet's certificate authority (CA), on the master's host, or put another in its place.",
    short_help="Show or rotate the fleet's CA, on the master's host.",
    rich_markup_mode=None,
    invoke_without_command=True,
    epilog=examples(
        "interfiles ca           which CAs are trusted, and which hosts need them",
        "interfiles ca rotate    a new CA; hosts renew their certificates by themselves",
        "interfiles ca retire    end the trust in the older one now",
    ),
)


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.add_typer(token_app, name="token")
    app.add_typer(ca_app, name="ca")


@token_app.callback()
def token(
    context: typer.Context,
    ttl: Annotated[
        float | None,
        typer.Option(
            metavar="T",
            parser=parse_duration,
            help="How long it is good: 10m, 1h, 30d [default: 1h].",
            show_default=False,
        ),
    ] = None,
    uses: Annotated[
        int | None,
        typer.Option(min=1, max=MAX_TOKEN_USES, metavar="N", help="How many hosts may join by it [default: any]."),
    ] = None,
    name: Annotated[str, typer.Option(help="Good for one host, which is called NAME.", show_default=False)] = "",
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a join token for new hosts, on the master's host; it alone goes to stdout. Or list and revoke tokens."""
    if context.invoked_subcommand is not None:
        return
    if name and re.fullmatch(HOST_NAME_PATTERN, name) is None:
        raise UsageError(f"name '{printable(name)}' may have letters, digits, '.', '_' and '-' only, at most 63")
    ttl_s = HOUR if ttl is None else ttl
    report = on_master(state, lambda admin: admin.make_token(ttl_s=ttl_s, uses=uses, name=name))
    if as_json:
        output.emit_json(report)
        return
    output.emit(report.token)
    if output.is_terminal(sys.stdout):
        output.tell(_how_to_join(report, ttl_s))


@token_app.command(name="list")
def list_tokens(state: StateOption = None, as_json: JsonOption = False) -> None:
    """List the tokens of the last 30 days, and who joined by each. Their secrets are not kept."""
    tokens = on_master(state, lambda admin: admin.tokens())
    if as_json:
        output.emit_json(tokens)
    elif tokens:
        output.emit_lines(reports.token_lines(tokens, output.Screen.of(sys.stdout)))
    else:
        output.tell("There are no tokens; `interfiles token` makes one.")


@token_app.command(name="revoke", epilog=examples("interfiles token revoke 3f2a"))
def revoke_token(
    token_id: Annotated[
        str, typer.Argument(metavar="ID", help="Its id, or the start of it: see `token list`.", show_default=False)
    ],
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let nobody else in by a token. Hosts that joined by it stay: `interfiles hosts remove` takes one out."""
    report = on_master(state, lambda admin: admin.revoke_token(token_id))
    if as_json:
        output.emit_json(report)
    else:
        joined = format_count(report.used, "host has", "hosts have")
        output.emit(f"Revoked token {printable(report.id)}; {joined} joined by it.")


@ca_app.callback()
def authorities(context: typer.Context, state: StateOption = None, as_json: JsonOption = False) -> None:
    """Show the fleet's certificate authority (CA), on the master's host, or put another in its place."""
    if context.invoked_subcommand is None:
        _show(on_master(state, lambda admin: admin.authorities()), as_json=as_json)


@ca_app.command(name="rotate")
def rotate_authority(state: StateOption = None, as_json: JsonOption = False) -> None:
    """Make a new CA. Hosts renew their certificates within a minute, or when they are back; then the old one is gone.

    Tokens that were made before keep working until then.
    """
    _show(on_master(state, lambda admin: admin.rotate_authority()), as_json=as_json)


@ca_app.command(name="retire")
def retire_authority(state: StateOption = None, as_json: JsonOption = False) -> None:
    """Trust the newest CA only, at once: a host that has no certificate of it yet must join anew."""
    _show(on_master(state, lambda admin: admin.retire_authority()), as_json=as_json)


def _show(found: "list[AuthorityReport]", *, as_json: bool) -> None:
    if as_json:
        output.emit_json(found)
    else:
        output.emit_lines(reports.authority_lines(found, output.Screen.of(sys.stdout)))


def _how_to_join(report: "TokenReport", ttl_s: float) -> str:
    if report.name:
        count = f"the host {printable(report.name)}"
    else:
        count = "any number of hosts" if report.uses is None else format_count(report.uses, "host")
    return f"Good for {format_duration(ttl_s)} and {count}; on each: interfiles client --join TOKEN"
