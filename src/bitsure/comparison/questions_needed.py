"""How many times the questions does it take until losses are shown to be within their margins?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bitsure.metrics.significance import POWER


@dataclass(frozen=True)
class Distance:
    """A true loss and a margin, as far apart as the present questions can tell.

    Attributes:
        size: The distance between them, at least 0.
        variance: The variance of the loss with the present questions; it falls with their number.
        rare: What is added to it for flips too rare to be seen; it falls with the square of their number.
    """

    size: float
    variance: float
    rare: float = 0.0

    def growth(self, errors: float) -> float:
        """Return how many times the questions make the distance this many standard errors; infinite for no distance.

        With f times the questions the variance is v / f + r / f².
        """
        if self.size == 0:
            return math.inf
        scale = (errors / self.size) ** 2
        linear = scale * self.variance
        return (linear + math.sqrt(linear**2 + 4 * scale * self.rare)) / 2

    def errors(self, growth: float) -> float:
        """Return how many standard errors the distance is with `growth` times the questions, which is above 0."""
        return self.size / math.sqrt(self.variance / growth + self.rare / growth**2)


def needed_growth(distances: Sequence[Distance], critical: float) -> float:
    """Return how many times the questions show all distances together with 80% power; infinite where no number does.

    The chances of several are multiplied as if they were independent. Those of one model's metrics go together, so that the
    power is rather higher.

    Args:
        distances: At least one.
        critical: How many standard errors the interval reaches.

    Reference: Julious 2004 for the sample size of non-inferiority; Chow, Shao & Wang 2008 for several endpoints at once.
    """
    from scipy.optimize import brentq
    from scipy.special import ndtr, ndtri

    least = max(distance.growth(errors_shown(critical)) for distance in distances)
    uncertain = [distance for distance in distances if distance.variance + distance.rare > 0]
    if len(uncertain) < 2 or math.isinf(least):
        return least
    most = max(distance.growth(critical + float(ndtri(POWER ** (1 / len(uncertain))))) for distance in uncertain)

    def missing_power(growth: float) -> float:
        return float(np.prod([ndtr(distance.errors(growth) - critical) for distance in uncertain])) - POWER

    if missing_power(least) >= 0:  # by rounding, where one distance is all that matters
        return least
    return float(brentq(missing_power, least, most, rtol=1e-6))


def errors_shown(critical: float) -> float:
    """Return how many standard errors a distance must be to be shown with 80% power; the interval reaches `critical`."""
    from scipy.special import ndtri

    return critical + float(ndtri(POWER))
