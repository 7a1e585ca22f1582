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

from interfiles import errors, geometry, manifest
from interfiles.transport import message_stream, plain
from interfiles.wire import codec, control_messages, framing, master_messages, peer_messages, reports, session
from interfiles.wire.codec import Message, Part
from interfiles.wire.handshake_messages import HELLO, WELCOME
from interfiles.wire.session import CONVERSATIONS
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
    ("a block, and so a `Request`", geometry.BLOCK_BYTES, "bytes"),
    ("a manifest", manifest.MAX_MANIFEST_BYTES, "bytes"),
    ("rows of a page", master_messages.PAGE_ROWS, "rows"),
    ("holdings of a `Heartbeat`", master_messages.MAX_HEARTBEAT_HOLDINGS, "holdings"),
    ("to connect", plain.CONNECT_TIMEOUT_S, "seconds"),
    ("to greet, and to answer a greeting", message_stream.HANDSHAKE_TIMEOUT_S, "seconds"),
    ("from the first byte of a frame to the last of its header", message_stream.HEADER_TIMEOUT_S, "seconds"),
    ("for a payload other than a block, beside the next line", message_stream.PAYLOAD_TIMEOUT_S, "seconds"),
    ("slowest such payload", message_stream.MIN_PAYLOAD_BYTES_PER_S, "bytes a second"),
    ("for the peer to take any bytes that are sent to it", plain.STALL_TIMEOUT_S, "seconds"),
    ("for the peer to close after a `Failure`", message_stream.CLOSE_TIMEOUT_S, "seconds"),
]

Speakers = dict[type[Message], str]
HANDSHAKE: Final[Speakers] = {
    **dict.fromkeys(HELLO.accepted, "dialler"),
    **dict.fromkeys(WELCOME.accepted, "acceptor"),
}
FLEET: Final[Speakers] = {
    **dict.fromkeys(master_messages.FROM_CLIENT.accepted, "client"),
    **dict.fromkeys(master_messages.FROM_MASTER.accepted, "master"),
}
SWARM: Final[Speakers] = {
    **dict.fromkeys(peer_messages.FROM_FETCHER.accepted, "fetcher"),
    **dict.fromkeys(peer_messages.FROM_SERVER.accepted, "server"),
}
CONTROL: Final[Speakers] = {
    **dict.fromkeys(control_messages.FROM_CLI.accepted, "caller (control)"),
    **dict.fromkeys(control_messages.FROM_ADMIN.accepted, "caller (admin)"),
    **dict.fromkeys(control_messages.FROM_DAEMON.accepted, "daemon"),
}


def blocks() -> dict[str, str]:
    """Every made part of the document, by the name in its markers."""
    return {
        "limits": limits_table(),
        "numbers": numbers_table(),
        "handshake": messages(HANDSHAKE),
        "fleet": messages(FLEET),
        "swarm": messages(SWARM),
        "control": messages(CONTROL),
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


def numbers_table() -> str:
    """Which end may say which message in which conversation."""
    rows = [("handshake", listed(HELLO.accepted), listed(WELCOME.accepted))]
    rows += [
        (name, listed(rules.from_dialler.accepted), listed(rules.from_acceptor.accepted))
        for name, rules in CONVERSATIONS.items()
    ]
    return table(("conversation", "the dialler may say", "the acceptor may say"), rows)


def listed(kinds: Iterable[type[Message]]) -> str:
    return ", ".join(f"{tag_of(kind)} {kind.__name__}" for kind in kinds)


def messages(speakers: Speakers) -> str:
    """A section for each message, then one for each record that stands in them."""
    own = speakers.keys() if speakers is HANDSHAKE else speakers.keys() - HANDSHAKE.keys()
    kinds = [kind for kind in message_types() if kind in own]
    sections = [message_section(kind, speakers[kind]) for kind in kinds]
    sections += [record_section(part) for part in records(kinds)]
    return "\n\n".join(sections)


def message_section(kind: type[Message], speaker: str) -> str:
    payload = f"Payload: at most {quantity(kind.max_payload, 'bytes')}." if kind.max_payload else "No payload."
    return f"#### {tag_of(kind)} {kind.__name__}\n\nFrom the {speaker}. {payload}\n\n{described(kind)}"


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
    kinds = [kind for kind in vars(reports).values() if isinstance(kind, type) and issubclass(kind, reports.Report)]
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
    found = sorted(descendants(errors.InterFilesError), key=lambda error: error.code)
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
