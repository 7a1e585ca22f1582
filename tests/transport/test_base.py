"""Addresses as people write them, and as they are shown again."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interfiles.errors import UsageError
from interfiles.transport.base import Address
from interfiles.wire.fields import ADDRESS_PATTERN, MAX_ADDRESS_LENGTH

hosts = st.one_of(
    st.from_regex(r"\A[A-Za-z0-9]([A-Za-z0-9._-]{0,60}[A-Za-z0-9])?\Z"),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str).filter(lambda text: "%" not in text),
)


@given(hosts, st.integers(0, 65535))
def test_an_address_survives_being_shown(host: str, port: int) -> None:
    address = Address(host, port)
    assert Address.parse(str(address)) == address
    assert re.search(ADDRESS_PATTERN, str(address))
    assert len(str(address)) <= MAX_ADDRESS_LENGTH


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("10.0.0.5:4850", "10.0.0.5", 4850),
        ("render-01.example.org:1", "render-01.example.org", 1),
        ("render-01.example.org.:1", "render-01.example.org.", 1),
        ("my_host:65535", "my_host", 65535),
        ("[::1]:0", "::1", 0),
        ("[2001:db8::5]:4850", "2001:db8::5", 4850),
        ("[::ffff:10.0.0.5]:80", "::ffff:10.0.0.5", 80),
        ("host", "host", 4850),
        ("[::1]", "::1", 4850),
        ("a" * 253 + ".:65535", "a" * 253 + ".", 65535),
    ],
)
def test_addresses_are_read(text: str, host: str, port: int) -> None:
    assert Address.parse(text, default_port=4850) == Address(host, port)


@pytest.mark.parametrize(
    "text",
    [
        *("", ":", ":4850", "host:", "host:65536", "host:99999", "host:123456", "host:-1", "host:+1", "host: 1"),
        *("host:1 ", "host:1\n", "host:٣", "ho st:1", "hóst:1", "-host:1", "host-:1", ".host:1", "host\x1b[2J:1"),
        *("::1", "::1:4850", "[::1", "::1]:1", "[::1]4850", "[]:1", "[10.0.0.5]:1", "[host]:1", "[::1%eth0]:1"),
        *("[:::1]:1", "http://host:1", "user@host:1", "host:1/path", "a:b:1", "a" * 255 + ":1"),
    ],
)
def test_what_is_no_address_is_refused_in_words(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        Address.parse(text, default_port=4850)
    assert str(refused.value).isprintable()


def test_a_port_is_needed_where_there_is_no_default() -> None:
    with pytest.raises(UsageError, match="write HOST:PORT, such as"):
        Address.parse("host")
