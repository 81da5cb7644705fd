"""What a rung asks, what came of it, and how it is told."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from imnetprep.reports.parts import Sample


class Sign(StrEnum):
    """What a gate looks at."""

    PIXELS = "pixels"
    GRADIENT = "gradient"
    DEAD = "dead outputs"
    FIRST_LOSS = "first loss"
    LOSS = "loss"
    ANSWERS = "answers"
    VALIDATION = "validation"


class Gate(NamedTuple):
    """A figure and its limit, in words, and whether it is on the right side of it."""

    sign: Sign
    text: str
    is_met: bool


class Verdict(StrEnum):
    """How a rung ended."""

    OK = "ok"
    FAILURE = "failed"
    NOT_TRIED = "not tried"


@dataclass(frozen=True)
class Outcome:
    """What came of a rung.

    `losses`: of each step, which `loss_limit` judges. `views`: images as the network saw them.
    `causes`: what usually is wrong where a gate is not met, the likeliest first.
    """

    rung: str
    losses: Sequence[float] = ()
    loss_limit: float = math.nan
    gates: Sequence[Gate] = ()
    causes: Sequence[str] = ()
    views: Sequence[Sample] = ()

    @property
    def verdict(self) -> Verdict:
        """Whether all gates are met."""
        if not self.gates:
            return Verdict.NOT_TRIED
        return Verdict.OK if all(gate.is_met for gate in self.gates) else Verdict.FAILURE

    @property
    def steps(self) -> int:
        """How many steps were taken."""
        return len(self.losses)

    def as_json(self) -> dict[str, Any]:
        """The verdict with its figures; a loss that is NaN or infinite is null."""
        return {
            "rung": self.rung,
            "verdict": str(self.verdict),
            "steps": self.steps,
            "gates": [gate._asdict() for gate in self.gates],
            "causes": list(self.causes),
            "losses": [loss if math.isfinite(loss) else None for loss in self.losses],
        }
