"""Comparisons of single tasks with made-up intervals, as verdicts are made of."""

from __future__ import annotations

from bitsure.results import Difference

NAMES = ("accuracy", "nll", "debiased_squared_calibration_error")
Z, POWER_Z = 1.959964, 0.841621  # normal quantiles of .975 and .8


def comparison(accuracy, nll, calibration, task="t", n=1000, **fields):
    """Each metric as (value, low, high) of quantized − full; calibration that of the error around .05, whose square it is."""
    squared = tuple(0.1 * end for end in calibration)
    values = {
        name: Difference(value=value, ci_low=low, ci_high=high, n=n, **fields)
        for name, (value, low, high) in zip(NAMES, (accuracy, nll, squared), strict=True)
    }
    sides = {"baseline": 0.05**2, "quantized": 0.05**2}
    values[NAMES[2]] = values[NAMES[2]].model_copy(update=sides)
    probability = Difference(value=0.0, ci_low=-0.01, ci_high=0.01, n=n, smallest_detectable=0.02)
    return {task: values | {"true_label_prob": probability}}


def around(value, standard_error):
    return (value, value - Z * standard_error, value + Z * standard_error)


def guessing(compared, low=-0.01, standard_error=0.01):
    """The same task, on which full precision is `low` + 0.02 above guessing."""
    [(task, values)] = compared.items()
    above = Difference(value=low + 0.02, ci_low=low, ci_high=low + 0.04, standard_error=standard_error, n=1000)
    accuracy = values["accuracy"].model_copy(update={"baseline": 0.25 + low + 0.02})
    return {task: values | {"accuracy": accuracy, "baseline_accuracy_above_guessing": above}}


FINE = ((0.0, -0.009, 0.005), (0.0, -0.01, 0.019), (0.0, -0.02, 0.009))
BAD = (FINE[0], (0.5, 0.4, 0.6), FINE[2])
NOTHING = (0.0, 0.0, 0.0)
