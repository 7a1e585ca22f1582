"""Who does not hold what it claims: judged by what several hosts make of the same piece and the same key.

Hosts that are asked for the BLAKE3 of a piece, keyed with a nonce that nobody could know before, must have the piece at
hand to answer. The master has no content, so it cannot tell by itself which answer is right; but a host that holds the
piece checks it against the manifest before it answers, so of answers that differ the one that most give is the right
one. The idea of keyed challenges is that of proofs of retrievability (Juels and Kaliski, 2007), without their codes.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

MAX_ASKED: Final = 3  # hosts, of one piece: two that agree outvote a third


@dataclass(frozen=True, slots=True)
class Verdict:
    """`failed`: hosts that have not shown the piece. `is_open`: answers differ, and none is given by most."""

    failed: frozenset[str]
    is_open: bool


def judge(digests: Mapping[str, bytes]) -> Verdict:
    """Compare the digests that hosts gave; an empty one stands for an answer that was not given or did not come."""
    silent = {host for host, digest in digests.items() if not digest}
    votes = Counter(digest for digest in digests.values() if digest).most_common(2)
    if len(votes) == 2 and votes[0][1] == votes[1][1]:
        return Verdict(frozenset(silent), is_open=True)
    wrong = {host for host, digest in digests.items() if digest and digest != votes[0][0]}
    return Verdict(frozenset(silent | wrong), is_open=False)
