"""Values of message fields, made from the bounds that the fields declare: any, the outermost ones, and those beyond."""

import math
import re
from collections.abc import Iterator
from functools import singledispatch
from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec import inspect as fields

from interfiles.wire.codec import Message
from interfiles.wire.fields import PEM_PATTERN
from interfiles.wire.handshake_messages import HELLO, WELCOME
from interfiles.wire.session import MAY_SAY

WIDEST_CHARACTER = "\U0010ffff"  # four bytes in UTF-8


def message_types() -> list[type[Message]]:
    """Every message of the protocol, in the order of tags."""
    found: set[type[Message]] = {*HELLO.accepted, *WELCOME.accepted}
    for rules in MAY_SAY.values():
        found.update(rules.accepted)
    return sorted(found, key=tag_of)


def tag_of(kind: type[Message]) -> int:
    tag = kind.__struct_config__.tag
    assert isinstance(tag, int)
    return tag


def struct_fields(kind: type[msgspec.Struct]) -> tuple[fields.Field, ...]:
    info = fields.type_info(kind)
    assert isinstance(info, fields.StructType)
    return info.fields


def any_message(kind: type[Message]) -> st.SearchStrategy[Message]:
    """Messages of one kind; lists stay short, so that hypothesis stays quick."""
    return st.builds(kind, *(any_value(field.type) for field in struct_fields(kind)))


@singledispatch
def any_value(info: fields.Type) -> st.SearchStrategy[Any]:
    """Values that a field of this type takes."""
    raise NotImplementedError(f"no values for {info}")


@any_value.register
def _(info: fields.Metadata) -> st.SearchStrategy[Any]:
    return any_value(info.type)


@any_value.register
def _(info: fields.IntType) -> st.SearchStrategy[Any]:
    return st.integers(info.ge, info.le)


@any_value.register
def _(info: fields.FloatType) -> st.SearchStrategy[Any]:
    return st.floats(info.ge, info.le, allow_nan=False)


@any_value.register
def _(info: fields.BoolType) -> st.SearchStrategy[Any]:
    return st.booleans()


@any_value.register
def _(info: fields.NoneType) -> st.SearchStrategy[Any]:
    return st.none()


@any_value.register
def _(info: fields.StrType) -> st.SearchStrategy[Any]:
    if info.pattern is None:
        no_surrogates = st.characters(exclude_categories=["Cs"])
        return st.text(no_surrogates, min_size=info.min_length or 0, max_size=info.max_length)
    return st.from_regex(info.pattern).filter(lambda text: len(text) <= (info.max_length or 0))


@any_value.register
def _(info: fields.BytesType) -> st.SearchStrategy[Any]:
    return st.binary(min_size=info.min_length or 0, max_size=info.max_length)


@any_value.register
def _(info: fields.LiteralType) -> st.SearchStrategy[Any]:
    return st.sampled_from(list(info.values))


@any_value.register
def _(info: fields.ListType) -> st.SearchStrategy[Any]:
    shortest = info.min_length or 0
    return st.lists(any_value(info.item_type), min_size=shortest, max_size=shortest + 3)


@any_value.register
def _(info: fields.StructType) -> st.SearchStrategy[Any]:
    return st.builds(info.cls, *(any_value(field.type) for field in info.fields))


@any_value.register
def _(info: fields.UnionType) -> st.SearchStrategy[Any]:
    return st.one_of(*(any_value(member) for member in info.types))


# Plain values, as msgpack has them: arrays for records, tags first.


def smallest(kind: type[Message]) -> list[Any]:
    """The message with every field at its lower bound."""
    return [tag_of(kind), *(_bounds(field.type)[0] for field in struct_fields(kind))]


def largest(kind: type[Message]) -> list[Any]:
    """The message with every field at its upper bound, and in its longest encoding."""
    return [tag_of(kind), *(_bounds(field.type)[1] for field in struct_fields(kind))]


def _bounds(info: fields.Type) -> tuple[Any, Any]:
    match info:
        case fields.Metadata():
            return _bounds(info.type)
        case fields.IntType():
            return info.ge, info.le
        case fields.FloatType(ge=float() | int() as ge, le=float() | int() as le):
            return float(ge), float(le)
        case fields.BoolType():
            return False, True
        case fields.StrType():
            return _texts(info)
        case fields.BytesType():
            return bytes(info.min_length or 0), b"\xff" * (info.max_length or 0)
        case fields.LiteralType():
            words = sorted(info.values, key=lambda word: len(str(word)))
            return words[0], words[-1]
        case fields.ListType():
            low, high = _bounds(info.item_type)
            return [low] * (info.min_length or 0), [high] * (info.max_length or 0)
        case fields.StructType():
            pairs = [_bounds(field.type) for field in info.fields]
            return [low for low, _ in pairs], [high for _, high in pairs]
        case fields.UnionType():
            members = [member for member in info.types if not isinstance(member, fields.NoneType)]
            assert len(members) == 1
            return None, _bounds(members[0])[1]
        case _:
            raise NotImplementedError(f"no bounds for {info}")


def _texts(info: fields.StrType) -> tuple[str, str]:
    """The shortest text of this type, and one of its longest."""
    length = info.max_length or 0
    if info.pattern is None:
        return "a" * (info.min_length or 0), WIDEST_CHARACTER * length
    candidates = ["", "a", "a" * 32, "a" * length, "a" * (length - len(":65535")) + ":65535"]
    fitting = sorted((text for text in candidates if re.search(info.pattern, text)), key=len)
    return fitting[0], fitting[-1]


@singledispatch
def beyond(info: fields.Type) -> Iterator[Any]:
    """Values that a field of this type must refuse: just out of bounds, and of every other type."""
    raise NotImplementedError(f"nothing beyond {info}")


@beyond.register
def _(info: fields.Metadata) -> Iterator[Any]:
    return beyond(info.type)


@beyond.register
def _(info: fields.IntType) -> Iterator[Any]:
    assert info.ge is not None
    assert info.le is not None
    yield from (info.ge - 1, info.le + 1, 2**64 - 1, -(2**63), True, False, 1.0, "1", b"1", None, [1])


@beyond.register
def _(info: fields.FloatType) -> Iterator[Any]:
    assert info.ge is not None
    assert info.le is not None
    yield from (
        info.ge - 1e-9,
        info.ge - 1,
        info.le * 1.01,
        2**63,
        math.nan,
        math.inf,
        -math.inf,
        True,
        "1",
        b"1",
        None,
        [1.0],
    )


@beyond.register
def _(info: fields.BoolType) -> Iterator[Any]:
    yield from (0, 1, 1.0, "true", b"", None, [True])


@beyond.register
def _(info: fields.StrType) -> Iterator[Any]:
    assert info.max_length is not None
    yield from (0, 1.0, True, b"a", None, ["a"], "a" * (info.max_length + 1))
    if info.min_length:
        yield ""
    if info.pattern:
        yield from ("\x1b[2J", "é", "a\0")
        if info.pattern != PEM_PATTERN:  # the one text of several lines
            yield from ("\n", "a\n", "0" * 32 + "\n", "a b")


@beyond.register
def _(info: fields.BytesType) -> Iterator[Any]:
    assert info.max_length is not None
    yield from (0, "a", "", None, [b"a"], bytes(info.max_length + 1), "A" * info.max_length)
    if info.min_length:
        yield bytes(info.min_length - 1)


@beyond.register
def _(info: fields.LiteralType) -> Iterator[Any]:
    yield from (0, True, None, "", f"{info.values[0]}\n", str(info.values[0]).upper())


@beyond.register
def _(info: fields.ListType) -> Iterator[Any]:
    assert info.max_length is not None
    low, _ = _bounds(info.item_type)
    yield from (0, "", b"", None, [low] * (info.max_length + 1))
    if info.min_length:
        yield [low] * (info.min_length - 1)
    for item in beyond(info.item_type):
        yield [item]


@beyond.register
def _(info: fields.StructType) -> Iterator[Any]:
    low, _ = _bounds(info)
    yield from (0, "", None, [], low[:-1], [*low, 0])
    for at, field in enumerate(info.fields):
        for item in beyond(field.type):
            yield [*low[:at], item, *low[at + 1 :]]


@beyond.register
def _(info: fields.UnionType) -> Iterator[Any]:
    for member in info.types:
        if not isinstance(member, fields.NoneType):
            yield from (value for value in beyond(member) if value is not None)
