"""The parts of docs/protocol.md that are made from the code; `python -m tests.wire.protocol_tables` renews them."""

import inspect
import re
import sys
from collections.abc import Iterable
from functools import singledispatch
from pathlib import Path
from typing import Final

import msgspec
from msgspec import inspect as fields

from daemons.client import membership
from interfiles import errors, geometry, manifest
from interfiles.identity import authority, token
from interfiles.identity.subject import Subject
from interfiles.transport import message_stream, plain, tls
from interfiles.wire import admin_reports, codec, framing, master_messages, reports, session
from interfiles.wire.codec import Message, Part
from interfiles.wire.handshake_messages import HELLO, WELCOME, Conversation
from interfiles.wire.session import MAY_SAY, End
from tests.wire.values import message_types, struct_fields, tag_of

DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "protocol.md"

# (what, value, unit)
LIMITS: Final[list[tuple[str, float, str]]] = [
    ("header of a frame", framing.MAX_HEADER_BYTES, "bytes"),
    ("payload of a frame", framing.MAX_PAYLOAD_BYTES, "bytes"),
    ("items of an array in a header", codec.MAX_ARRAY_ITEMS, "items"),
    ("a text or byte string in a header", codec.MAX_STRING_BYTES, "bytes"),
    ("oldest protocol version spoken", session.OLDEST_VERSION, ""),
    ("newest protocol version spoken", session.NEWEST_VERSION, ""),
    ("smallest piece size, a power of two", geometry.MIN_PIECE_BYTES, "bytes"),
    ("largest piece size, a power of two", geometry.MAX_PIECE_BYTES, "bytes"),
    ("pieces of a file", geometry.MAX_PIECES, "pieces"),
    ("a block of a piece", geometry.BLOCK_BYTES, "bytes"),
    ("a manifest", manifest.MAX_MANIFEST_BYTES, "bytes"),
    ("rows of a page", master_messages.PAGE_ROWS, "rows"),
    ("holdings of a `Heartbeat`", master_messages.MAX_HEARTBEAT_HOLDINGS, "holdings"),
    ("CAs of a fleet", master_messages.MAX_AUTHORITIES, "certificates"),
    ("hosts of a `Revoked`", master_messages.MAX_REVOKED, "hosts"),
    ("to connect", plain.CONNECT_TIMEOUT_S, "seconds"),
    ("for the TLS handshake", tls.TLS_HANDSHAKE_TIMEOUT_S, "seconds"),
    ("to greet, and to answer a greeting", message_stream.HANDSHAKE_TIMEOUT_S, "seconds"),
    ("from the first byte of a frame to the last of its header", message_stream.HEADER_TIMEOUT_S, "seconds"),
    ("for a payload other than a block, beside the next line", message_stream.PAYLOAD_TIMEOUT_S, "seconds"),
    ("slowest such payload", message_stream.MIN_PAYLOAD_BYTES_PER_S, "bytes a second"),
    ("for the peer to take any bytes that are sent to it", plain.STALL_TIMEOUT_S, "seconds"),
    ("for the peer to close after a `Failure`", message_stream.CLOSE_TIMEOUT_S, "seconds"),
]

# What the ends of each conversation are called: dialler and acceptor.
ENDS: Final[dict[Conversation, dict[End, str]]] = {
    "fleet": {"dialler": "client", "acceptor": "master"},
    "swarm": {"dialler": "fetcher", "acceptor": "server"},
    "control": {"dialler": "caller", "acceptor": "daemon"},
    "admin": {"dialler": "caller", "acceptor": "daemon"},
}
GREETING: Final = (*HELLO.accepted, *WELCOME.accepted)

EXAMPLE_TOKEN: Final = token.JoinToken(("10.0.0.5:4850",), bytes(range(8)), bytes(range(16)), bytes(range(32)))


def blocks() -> dict[str, str]:
    """Every made part of the document, by the name in its markers."""
    return {
        "limits": limits_table(),
        "certificates": certificate_table(),
        "token": token_table(),
        "numbers": numbers_table(),
        "handshake": messages(),
        "fleet": messages("fleet"),
        "swarm": messages("swarm"),
        "control": messages("control", "admin"),
        "reports": report_tables(),
        "codes": code_table(),
    }


def limits_table() -> str:
    return table(("limit", "value"), ((what, quantity(value, unit)) for what, value, unit in LIMITS))


def quantity(value: float, unit: str) -> str:
    """A number with its unit, and its size in powers of two where that reads better: `1,048,576 bytes (1 MiB)`."""
    shown = f"{value:,.10g}" if isinstance(value, float) else f"{value:,}"
    if unit == "bytes" and value % 1024 == 0:
        scale = "MiB" if value % (1 << 20) == 0 else "KiB"
        shown += f" bytes ({int(value) >> (20 if scale == 'MiB' else 10)} {scale})"
        return shown
    return f"{shown} {unit}".rstrip()


def certificate_table() -> str:
    """What certificates are like."""
    fleet, host = "FLEET", "HOST-ID"
    rows = [
        ("a host's subjectAltName", f"`{Subject(fleet, 'host', host).uri}`"),
        ("the master's subjectAltName", f"`{Subject(fleet, 'master').uri}`"),
        ("life of a host's or master's", days(authority.LEAF_LIFE_S)),
        ("life of a CA's", days(authority.AUTHORITY_LIFE_S)),
        ("good already before it is made", quantity(authority.BACKDATED_S, "seconds")),
        ("renewed in its life", f"{membership.RENEWED_FROM:.0%} to {membership.RENEWED_TO:.0%}"),
        ("renewed after the CA was replaced within", quantity(membership.ROTATION_SPREAD_S, "seconds")),
    ]
    return table(("of a certificate", "value"), rows)


def days(seconds: float) -> str:
    return quantity(seconds / 86400, "days")


def token_table() -> str:
    """The bytes of a join token, and an example."""
    example = EXAMPLE_TOKEN
    rows = [
        ("layout", "1", str(token._LAYOUT)),
        ("token id", str(token.TOKEN_ID_BYTES), example.token_id.hex(" ")),
        ("secret", str(token.SECRET_BYTES), example.secret.hex(" ")),
        ("SHA-256 of the CA's certificate", str(token.DIGEST_BYTES), example.authority.hex(" ")),
        ("number of masters", "1", str(len(example.masters))),
        ("for each: length of its HOST:PORT", "1", str(len(example.masters[0]))),
        ("and the HOST:PORT, in ASCII", f"at most {token.MAX_ADDRESS_BYTES}", example.masters[0]),
        ("checksum", str(token._CHECKSUM_BYTES), token._checksum(decoded(example)).hex(" ")),
    ]
    return f"{table(('field', 'bytes', 'in the example'), rows)}\n\n    {example.encode()}"


def decoded(made: token.JoinToken) -> bytes:
    return token._content(made.encode())


def numbers_table() -> str:
    """Who may say which message in which conversation: `MAY_SAY`, and the greeting before it."""
    rows = [
        ("any, first", "dialler", "any", listed(HELLO.accepted)),
        ("any, first", "acceptor", "any", listed(WELCOME.accepted)),
    ]
    rows += [
        (conversation, end, f"`{role}`", listed(rules.accepted)) for (conversation, end, role), rules in MAY_SAY.items()
    ]
    return table(("conversation", "end", "role", "may say"), rows)


def listed(kinds: Iterable[type[Message]]) -> str:
    return ", ".join(f"{tag_of(kind)} {kind.__name__}" for kind in kinds)


def messages(*conversations: Conversation) -> str:
    """A section for each message of these, or else of the greeting; then one for each record that stands in them."""
    own = [*GREETING]
    if conversations:
        said = {kind for key, rules in MAY_SAY.items() if key[0] in conversations for kind in rules.accepted}
        own = [kind for kind in message_types() if kind in said and kind not in GREETING]
    sections = [message_section(kind) for kind in own]
    sections += [record_section(part) for part in records(own)]
    return "\n\n".join(sections)


def message_section(kind: type[Message]) -> str:
    payload = f"Payload: at most {quantity(kind.max_payload, 'bytes')}." if kind.max_payload else "No payload."
    return f"#### {tag_of(kind)} {kind.__name__}\n\nFrom the {speaker(kind)}. {payload}\n\n{described(kind)}"


def speaker(kind: type[Message]) -> str:
    """The end that says a message, and in a fleet's conversation its roles too: "client, as `host` or `lapsed`"."""
    if kind in GREETING:
        return "dialler" if kind in HELLO.accepted else "acceptor"
    said_by: dict[str, dict[str, None]] = {}  # the inner ones as ordered sets
    for (conversation, end, role), rules in MAY_SAY.items():
        if kind in rules.accepted:
            roles = said_by.setdefault(ENDS[conversation][end], {})
            roles.update({f"`{role}`": None} if conversation == "fleet" else {})
    ((name, roles),) = said_by.items()
    return f"{name}, as {' or '.join(roles)}" if roles else name


def record_section(part: type[msgspec.Struct]) -> str:
    return f"#### Record {part.__name__}\n\n{described(part)}"


def described(kind: type[msgspec.Struct]) -> str:
    """Docstring and table of fields."""
    declared = struct_fields(kind)
    if not declared:
        return f"{unwrapped(kind)}\n\nNo fields."
    rows = ((f"`{field.name}`", *type_words(field.type)) for field in declared)
    return f"{unwrapped(kind)}\n\n{table(('field', 'type', 'bounds', 'meaning'), rows)}"


def records(kinds: Iterable[type[msgspec.Struct]]) -> list[type[msgspec.Struct]]:
    """The records inside these, each once, in the order in which they are met."""
    found: dict[type[msgspec.Struct], None] = {}
    for kind in kinds:
        for field in struct_fields(kind):
            for part in records_of(field.type):
                found.update(dict.fromkeys([part, *records([part])]))
    return list(found)


def records_of(info: fields.Type) -> list[type[msgspec.Struct]]:
    match info:
        case fields.Metadata():
            return records_of(info.type)
        case fields.ListType():
            return records_of(info.item_type)
        case fields.StructType():
            assert issubclass(info.cls, Part | reports.Report)
            return [info.cls]
        case _:
            return []


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


# Types in words: (type, bounds, meaning).

Words = tuple[str, str, str]


@singledispatch
def type_words(info: fields.Type) -> Words:
    raise NotImplementedError(f"no words for {info}")


@type_words.register
def _(info: fields.Metadata) -> Words:
    name, bounds, meaning = type_words(info.type)
    extra = info.extra_json_schema or {}
    return name, bounds, str(extra.get("description", meaning))


@type_words.register
def _(info: fields.IntType) -> Words:
    return "integer", f"{info.ge:,} to {info.le:,}" if info.ge is not None else "", ""


@type_words.register
def _(info: fields.FloatType) -> Words:
    return "number", f"{info.ge:,} to {info.le:,.0f}" if info.ge is not None else "", ""


@type_words.register
def _(info: fields.BoolType) -> Words:
    return "true or false", "", ""


@type_words.register
def _(info: fields.StrType) -> Words:
    bounds = between(info.min_length, info.max_length, "characters")
    if info.pattern:
        bounds = f"`{info.pattern.removeprefix('^').removesuffix(chr(92) + 'Z')}`, at most {info.max_length}"
    return "text", bounds, ""


@type_words.register
def _(info: fields.BytesType) -> Words:
    return "bytes", between(info.min_length, info.max_length, "bytes"), ""


@type_words.register
def _(info: fields.LiteralType) -> Words:
    return "text", "one of " + ", ".join(f"`{value}`" for value in info.values), ""


@type_words.register
def _(info: fields.ListType) -> Words:
    name, bounds, meaning = type_words(info.item_type)
    count = between(info.min_length, info.max_length, "items")
    return f"array of {name}", f"{count}, each {bounds}" if count and bounds else count, meaning


@type_words.register
def _(info: fields.DictType) -> Words:
    return f"map of {type_words(info.key_type)[0]} to {type_words(info.value_type)[0]}", "", ""


@type_words.register
def _(info: fields.StructType) -> Words:
    return f"record {info.cls.__name__}", "", ""


@type_words.register
def _(info: fields.UnionType) -> Words:
    (member,) = (member for member in info.types if not isinstance(member, fields.NoneType))
    name, bounds, meaning = type_words(member)
    return f"{name}, or nil", bounds, meaning


def between(low: int | None, high: int | None, unit: str) -> str:
    if high is None:
        return ""
    return f"exactly {high} {unit}" if low == high else f"{low or 0:,} to {high:,} {unit}"


def report_tables() -> str:
    found = {**vars(reports), **vars(admin_reports)}.values()
    kinds = [kind for kind in found if isinstance(kind, type) and issubclass(kind, reports.Report)]
    return "\n\n".join(
        f"#### {kind.__name__}\n\n{unwrapped(kind)}\n\n{table(('field', 'type'), report_rows(kind))}"
        for kind in kinds
        if kind is not reports.Report
    )


def unwrapped(kind: type[msgspec.Struct]) -> str:
    """The docstring, a line a paragraph."""
    assert kind.__doc__, f"{kind.__name__} has no docstring"
    return re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.cleandoc(kind.__doc__))


def report_rows(kind: type[msgspec.Struct]) -> Iterable[tuple[str, ...]]:
    for field in struct_fields(kind):
        name, bounds, _ = type_words(field.type)
        yield f"`{field.name}`", f"{name}, {bounds}" if bounds else name


def code_table() -> str:
    """The error that each code word stands for."""
    every = [
        error for error in descendants(errors.InterFilesError) if error.__module__ == errors.__name__
    ]  # not a test's
    found = sorted(every, key=lambda error: error.code)
    return table(("code", "meaning"), ((f"`{error.code}`", (error.__doc__ or "").split("\n")[0]) for error in found))


def descendants(base: type[errors.InterFilesError]) -> list[type[errors.InterFilesError]]:
    return [base, *(found for child in base.__subclasses__() for found in descendants(child))]


def renewed(document: str) -> str:
    """The document with its made parts made anew.

    Raises:
      ValueError: the markers of a part are missing.
    """
    for name, block in blocks().items():
        begin, end = f"<!-- made: {name} -->", f"<!-- end: {name} -->"
        before, found, rest = document.partition(begin)
        _, also_found, after = rest.partition(end)
        if not found or not also_found:
            raise ValueError(f"the markers of {name} are missing")
        document = f"{before}{begin}\n\n{block}\n\n{end}{after}"
    return document


if __name__ == "__main__":
    DOCUMENT.write_text(renewed(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
    sys.stdout.write(f"renewed {DOCUMENT.name}\n")
