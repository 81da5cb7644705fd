"""Gates of trainings that were cut short: what guesses reach is the measure of what was learned."""

import math

import numpy as np
from numpy.typing import NDArray

from imnetprep.ladder.outcome import Gate, Sign
from imnetprep.recipes.recipe import Recipe
from imnetprep.training.meters import Score, luck_limit


def guess_loss(labels: NDArray[np.int32], recipe: Recipe) -> float:
    """The loss of a network that knows nothing but how often each class comes among `labels`."""
    counts = np.bincount(labels)
    shares = counts[counts > 0] / len(labels)
    if recipe.balance != "none":
        return math.log(len(shares))
    return float(-(shares * np.log(shares)).sum())


def loss_gate(loss: float, limit: float) -> Gate:
    """Is the loss finite and under its limit, if it has one?"""
    rest = f", to be under {limit:.3g}" if math.isfinite(limit) else ""
    return Gate(Sign.LOSS, f"loss {loss:.3g}{rest}", math.isfinite(loss) and loss < limit)


def validation_gate(score: Score, labels: NDArray[np.int32]) -> Gate:
    """Is a network right more often than one that always names the largest class of `labels`?"""
    share = float(np.bincount(labels).max() / len(labels))
    limit = luck_limit(score.images, share=share)
    text = f"right on {score.top1} of {score.images} validation images"
    if limit is None:
        return Gate(Sign.VALIDATION, f"{text}, too few to tell more", is_met=True)
    return Gate(Sign.VALIDATION, f"{text}, to be over {limit:.0f} (chance)", score.top1 > limit)
