"""What is wrong with a command line, as one sentence of ours: the command's and the daemons' parser is not our own."""

import re
from typing import Final

_OURS: Final = {
    r"valid int(eger)?( range)?": "whole number",
    r"valid float( range)?": "number",
    r"in the range (\S+)<=x<=(\S+)": r"from \1 to \2",
    r"in the range x>=(\S+)": r"\1 or more",
}


def sentence(message: str) -> str:
    """The parser's message, to stand behind `interfiles: ` and before what to do; no full stop at its end."""
    text = " ".join(message.split()).removesuffix(".")
    for theirs, ours in _OURS.items():
        text = re.sub(rf"\b{theirs}(?=$|[ .,;])", ours, text)
    return f"{text[:1].lower()}{text[1:]}"
