"""The page's section on texts: how far next-token probabilities moved, as llama-perplexity prints it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bitsure.base.decimals import with_ends
from bitsure.metrics.fidelity import CHANGE_PERCENTILES, PROBABILITY_CHANGE
from bitsure.report.tables import interval, number, significant
from bitsure.results import Comparison, Difference

KL = "kl_divergence"
COLUMNS = ("text", "over tokens", "KL divergence, nats", "Δp of the true token")
ROWS = {"": "mean", "_rms": "root mean square", "_max": "maximum"}  # end of a metric's name → the row's heading
ROWS |= {
    f"_{ending}": "median" if share == 0.5 else f"{100 * share:g}%"
    for ending, share in sorted(CHANGE_PERCENTILES.items(), key=lambda item: -item[1])
}
ROWS |= {"_min": "minimum"}


@dataclass(frozen=True)
class FidelitySection:
    """What the page says of texts."""

    sentences: list[str]
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def fidelity_section(comparison: Comparison | None) -> FidelitySection | None:
    """Return the section; None where no text was compared over the whole vocabulary."""
    texts = {task: values for task, values in (comparison or {}).items() if "same_top_token" in values}
    if not texts:
        return None
    rows = [
        (
            task,
            heading,
            significant(values.get(f"{KL}{ending}")),
            significant(values.get(f"{PROBABILITY_CHANGE}{ending}"), sign=ending != "_rms"),
        )
        for task, values in texts.items()
        for ending, heading in ROWS.items()
    ]
    return FidelitySection([_sentence(task, values) for task, values in texts.items()], COLUMNS, rows)


def _sentence(task: str, values: Mapping[str, Difference]) -> str:
    divergence, same, ratio = values[KL], values["same_top_token"], values["perplexity_ratio"]
    error = "–" if divergence.token_standard_error is None else f"{divergence.token_standard_error:.3g}"
    share = with_ends(same.value, same.ci_low, same.ci_high, ".2%")
    return (
        f"{task}: mean KL divergence {significant(divergence)} nats over {divergence.n:,} tokens (± {error} if tokens were "
        f"independent, as llama-perplexity prints it); the same most likely token at {share} of them; perplexity times "
        f"{number(ratio.value)} {interval(ratio)}."
    )
