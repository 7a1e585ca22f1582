"""Join tokens: what is printed reads back, and whatever is mistyped is refused before it is used."""

import base64

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from interfiles.errors import NOT_PERMITTED, InvalidToken
from interfiles.identity.token import MAX_MASTERS, PREFIX, JoinToken, hash_secret

TOKEN = JoinToken(("10.0.0.5:4850",), bytes(range(8)), b"sixteen byte key", bytes(range(100, 132)))
HEAD = b"\x02" + bytes(8 + 16 + 32)  # layout, id, secret and digest

addresses = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=255)
tokens = st.builds(
    JoinToken,
    st.lists(addresses, min_size=1, max_size=MAX_MASTERS).map(tuple),
    st.binary(min_size=8, max_size=8),
    st.binary(min_size=16, max_size=16),
    st.binary(min_size=32, max_size=32),
)


def written(content: bytes) -> str:
    """A token with a right checksum over any content."""
    return PREFIX + base64.b32encode(content + blake3(content).digest(4)).decode().rstrip("=")


@given(tokens)
def test_a_token_reads_back(token: JoinToken) -> None:
    assert JoinToken.decode(token.encode()) == token


def test_a_token_is_upper_case_groups_of_sixteen() -> None:
    prefix, *groups = TOKEN.encode().split("-")
    assert prefix == "IF1"
    assert [len(group) for group in groups[:-1]] == [16] * (len(groups) - 1)
    assert TOKEN.encode() == TOKEN.encode().upper()


def test_white_space_case_and_hyphens_do_not_matter() -> None:
    text = TOKEN.encode()
    for variant in (f"  {text}\n", text.lower(), text[:30] + "\n  " + text[30:], PREFIX + text[4:].replace("-", "")):
        assert JoinToken.decode(variant) == TOKEN


def test_every_single_wrong_character_is_noticed() -> None:
    text = TOKEN.encode()
    for at, right in enumerate(text):
        for wrong in "A2Z7018 ":
            changed = text[:at] + wrong + text[at + 1 :]
            if wrong != right and not (right == "-" and wrong == " " and at > 3):
                with pytest.raises(InvalidToken):
                    JoinToken.decode(changed)


def test_every_cut_token_is_noticed() -> None:
    text = TOKEN.encode()
    for length in range(len(text)):
        with pytest.raises(InvalidToken):
            JoinToken.decode(text[:length])


@given(st.text(max_size=100))
def test_any_text_is_refused_in_a_sentence(text: str) -> None:
    for attempt in (text, PREFIX + text):
        with pytest.raises(InvalidToken, match=r"; copy the whole line that `interfiles token` printed$"):
            JoinToken.decode(attempt)


@pytest.mark.parametrize(
    "content",
    [
        b"\x02",
        HEAD[:-1],
        HEAD,
        HEAD + b"\x00",
        HEAD + b"\x01\x05abcd",
        HEAD + b"\x01\x04abcdX",
        HEAD + b"\x01\x04ab\xff\xfe",
        HEAD + b"\x01\x02\x1b[",
        HEAD + b"\x01\x00",
        HEAD + bytes([MAX_MASTERS + 1]) + b"\x01a" * (MAX_MASTERS + 1),
    ],
    ids=[
        "nothing",
        "a digest cut short",
        "no count",
        "no master",
        "short address",
        "bytes after",
        "not ASCII",
        "control",
        "empty address",
        "too many masters",
    ],
)
def test_hostile_content_with_a_right_checksum_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidToken, match="not one that `interfiles token` prints"):
        JoinToken.decode(written(content))


@pytest.mark.parametrize("layout", [0, 1, 3, 255])
def test_another_layout_is_told_from_a_mistyped_token(layout: int) -> None:
    with pytest.raises(InvalidToken, match="made by another InterFiles; install the same version on this host"):
        JoinToken.decode(written(bytes([layout]) + bytes(80)))


def test_a_huge_text_is_refused_at_once() -> None:
    with pytest.raises(InvalidToken, match="not a join token"):
        JoinToken.decode(PREFIX + "A" * 10_000_000)


def test_the_secret_is_never_shown() -> None:
    assert "sixteen" not in repr(TOKEN)
    with pytest.raises(InvalidToken) as caught:
        JoinToken.decode(TOKEN.encode()[:-1])
    assert TOKEN.encode()[4:20] not in str(caught.value)
    assert caught.value.exit_code == NOT_PERMITTED


@pytest.mark.parametrize(
    ("masters", "token_id", "secret", "authority"),
    [
        ((), bytes(8), bytes(16), bytes(32)),
        (("a:1",) * (MAX_MASTERS + 1), bytes(8), bytes(16), bytes(32)),
        (("",), bytes(8), bytes(16), bytes(32)),
        (("a" * 256,), bytes(8), bytes(16), bytes(32)),
        (("höst:1",), bytes(8), bytes(16), bytes(32)),
        (("a:1",), bytes(7), bytes(16), bytes(32)),
        (("a:1",), bytes(8), bytes(17), bytes(32)),
        (("a:1",), bytes(8), bytes(16), bytes(20)),
    ],
)
def test_fields_out_of_bounds_make_no_token(
    masters: tuple[str, ...], token_id: bytes, secret: bytes, authority: bytes
) -> None:
    with pytest.raises(ValueError, match=r"master|bytes"):
        JoinToken(masters, token_id, secret, authority)


def test_the_stored_hash_is_not_the_secret_nor_its_plain_hash() -> None:
    assert len(hash_secret(TOKEN.secret)) == 32
    assert hash_secret(TOKEN.secret) != blake3(TOKEN.secret).digest()
    assert hash_secret(TOKEN.secret) != hash_secret(bytes(16))
