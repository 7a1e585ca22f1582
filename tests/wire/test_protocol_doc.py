"""docs/protocol.md says what the code does: tables, limits, sequences and the example."""

import re
from typing import get_args

import pytest

from interfiles.identity.token import JoinToken
from interfiles.wire.codec import Message
from interfiles.wire.framing import encode_frame
from interfiles.wire.handshake_messages import HELLO, WELCOME, Conversation, Role
from interfiles.wire.peer_messages import Ask
from interfiles.wire.session import MAY_SAY, End
from tests.wire.protocol_tables import DOCUMENT, EXAMPLE_TOKEN, blocks, renewed, report_tables
from tests.wire.values import message_types, tag_of

TEXT = DOCUMENT.read_text(encoding="utf-8")
PROSE = re.sub(r"<!-- made: (\w+) -->.*?<!-- end: \1 -->", "", TEXT, flags=re.DOTALL)

# Who talks to whom in the sequences: dialler and acceptor, and their conversation.
PAIRS: dict[tuple[str, str], Conversation] = {
    ("caller", "client"): "control",
    ("caller", "master"): "admin",
    ("client", "master"): "fleet",
    ("client", "server"): "swarm",
}


def test_the_made_parts_are_those_of_the_code() -> None:
    assert renewed(TEXT) == TEXT, "run `python -m tests.wire.protocol_tables`"


@pytest.mark.parametrize("kind", [pytest.param(kind, id=kind.__name__) for kind in message_types()])
def test_every_message_says_what_it_answers_or_is_answered_by(kind: type[Message]) -> None:
    unasked = {"Failure", "Complaint", "Have", "Withdrawn", "Handout", "Forget", "Progress", "TrackerContent"}
    unasked |= {"Revoked", "Prefer"}
    text = kind.__doc__ or ""
    assert re.search(r"Answers (`\w+`|any request)|Answered by `\w+`|`?Result`? ", text) or kind.__name__ in unasked


def test_every_message_stands_in_the_document_once() -> None:
    headings = re.findall(r"^#### \d+ (\w+)$", TEXT, flags=re.MULTILINE)
    assert sorted(headings) == sorted(kind.__name__ for kind in message_types())


def sequence_lines() -> list[tuple[str, str, str]]:
    found = []
    for block in re.findall(r"```text\n(.*?)```", PROSE, flags=re.DOTALL):
        for line in block.splitlines():
            match = re.match(r"(\w+) -> (\w+)   (\w+)(?: {2,}\S|$)", line)
            assert match, line
            found.append((match[1], match[2], match[3]))
    return found


@pytest.mark.parametrize(("sender", "receiver", "name"), sequence_lines())
def test_the_sequences_keep_to_the_rules(sender: str, receiver: str, name: str) -> None:
    end: End = "dialler" if (sender, receiver) in PAIRS else "acceptor"
    conversation = PAIRS[(sender, receiver) if end == "dialler" else (receiver, sender)]
    greeting: tuple[type[Message], ...] = HELLO.accepted if end == "dialler" else WELCOME.accepted
    said = {kind for key, rules in MAY_SAY.items() if key[:2] == (conversation, end) for kind in rules.accepted}
    assert name in {kind.__name__ for kind in (*said, *greeting)}


def test_the_table_of_who_may_say_what_is_the_one_that_the_code_goes_by() -> None:
    """Read back from the document, not from what made it."""
    rows = re.findall(r"^\| (\w+) \| (dialler|acceptor) \| `(\w+)` \| (.*) \|$", TEXT, flags=re.MULTILINE)
    told = {(conversation, end, role): names.split(", ") for conversation, end, role, names in rows}
    assert len(rows) == len(told)
    assert told == {
        key: [f"{tag_of(kind)} {kind.__name__}" for kind in rules.accepted] for key, rules in MAY_SAY.items()
    }


def test_every_role_is_told() -> None:
    assert re.findall(r"^- `(\w+)`: ", PROSE, flags=re.MULTILINE) == list(get_args(Role))


def test_the_example_token_reads_as_the_table_says() -> None:
    (text,) = re.findall(r"^    (IF1-[A-Z2-7-]+)$", TEXT, flags=re.MULTILINE)
    assert JoinToken.decode(text) == EXAMPLE_TOKEN


def test_names_in_the_prose_are_names_of_the_protocol() -> None:
    known = {kind.__name__ for kind in message_types()} | set(
        re.findall(r"^#### (\w+)$", report_tables(), re.MULTILINE)
    )
    assert set(re.findall(r"`([A-Z][a-z]\w+)`", PROSE)) <= known


def test_words_in_the_prose_are_words_of_the_protocol() -> None:
    made = "\n".join(blocks().values())
    for word in re.findall(r"`([a-z][a-z_-]+)`", PROSE):
        assert f"`{word}`" in made or word in {*get_args(Conversation), *get_args(Role), "made", "end", "bin"}, word


def test_the_conversations_are_all_there() -> None:
    assert re.findall(r"^\| `(\w+)` \|", PROSE, flags=re.MULTILINE) == list(get_args(Conversation))


def test_the_example_is_the_frame_it_says() -> None:
    assert encode_frame(Ask([2, 3])).hex(" ") in TEXT


RFCS = {"4648", "5280"}


def test_limits_are_named_in_the_table_alone() -> None:
    """So that no number in the prose can go stale; what stays are tags, modes, versions and RFCs."""
    numbers = re.findall(
        r"(?<![\w.-])\d+(?:,\d+)*(?: (?:[KM]iB|bytes|seconds|s|ms)\b)?", re.sub(r"(?m)^    .*$", "", PROSE)
    )
    assert set(numbers) <= {"0600", "0660", "0", "1", "2", "3", "1 MiB"} | RFCS


def test_a_document_without_markers_is_noticed() -> None:
    with pytest.raises(ValueError, match="the markers of limits are missing"):
        renewed(TEXT.replace("<!-- made: limits -->", ""))
