"""How urgent a download is, beside others."""

from typing import Final, Literal

Priority = Literal["low", "normal", "high"]

WEIGHTS: Final[dict[Priority, float]] = {"low": 0.25, "normal": 1.0, "high": 4.0}  # of what there is to share: 1:4:16
