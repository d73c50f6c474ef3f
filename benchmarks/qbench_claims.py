"""The claims of LLM-QBench (Gong et al. 2024) and its repository, and what a sweep of the embedded family says to each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.linear_contrast import Effect, Term, effect_of, mean_over_tasks
from benchmarks.swept_cells import FULL_PRECISION, SweptCells
from bitsure.metrics.multiple_testing import benjamini_hochberg

DRAWS = 5  # of each text, that a claim about a quantizer needs
TEXT, NO_TEXT = "pocket", "random"  # of all kinds of the world's documents, and none
DOMAINS = {"story": "pocket_stories", "weather": "pocket_weather"}  # text of one kind → the task that asks about it
LEAST = 0.8  # of full precision's accuracy, what a scheme keeps that loses little
ALPHA = 0.05  # of adjusted p-values
CALIB = "github.com/ModelTC/llmc, benchmark/calib.md"
AWQ = "github.com/ModelTC/llmc/docs/en/source/practice/awq.md"
ROTATED = "github.com/ModelTC/llmc/docs/en/source/practice/quarot_gptq.md"
SECOND_HAND = "arXiv:2405.06001v1 as others quote it; the paper was not at hand"


@dataclass(frozen=True)
class Claim:
    """What the paper or its repository says, and the number that is above 0 where it is so."""

    takeaway: str
    words: str
    source: str
    number: str
    """What is measured, in words."""
    measure: Callable[[SweptCells], Effect | None]


def matched(*quantizers: str, sign: float = 1.0) -> list[Term]:
    """Return how much more text of a task's own domain keeps than text of the other, the mean over domains and quantizers."""
    share = sign / len(DOMAINS) / len(quantizers)
    own = [Term(share, quantizer, text, task) for quantizer in quantizers for text, task in DOMAINS.items()]
    others = dict(zip(DOMAINS, reversed(DOMAINS), strict=True))
    return [*own, *(Term(-term.factor, term.quantizer, others[term.text], term.task) for term in own)]


def better(first: str, second: str) -> Callable[[SweptCells], Effect | None]:
    """Return the measure of the right answers' probability with the first quantizer less that with the second."""
    return lambda cells: effect_of(cells, mean_over_tasks(cells, (1.0, first, TEXT), (-1.0, second, TEXT)))


def kept_accuracy(quantizer: str, sign: float) -> Callable[[SweptCells], Effect | None]:
    """Return the measure of the accuracy less LEAST times full precision's, question by question; of its opposite with sign −1.

    A change is after − before, and after − LEAST · before is the change and (1 − LEAST) · before.
    """
    parts = ((sign, quantizer, TEXT), (sign * (1 - LEAST), FULL_PRECISION, TEXT))
    return lambda cells: effect_of(cells, mean_over_tasks(cells, *parts), "accuracy")


DATA, ALGORITHM, SCHEME = "Calibration data", "Algorithm", "Bits and schemes"
PROBABILITY = "true-label probability"
CLAIMS = [
    *(
        Claim(
            DATA,
            f"Text of the domain that is scored calibrates best ({name})",
            f"{CALIB}: the lowest perplexity in 11 of 12 rows of a table of GPTQ, AWQ and OmniQuant in 4 and 3 bits",
            f"{PROBABILITY} with the task's own kind of text less that with the other kind",
            lambda cells, quantizer=quantizer: effect_of(cells, matched(quantizer)),
        )
        for name, quantizer in {
            "GPTQ, 4 bits": "gptq-w4",
            "GPTQ, 3 bits": "gptq-w3",
            "AWQ, 4 bits": "awq-w4",
            "AWQ, 3 bits": "awq-w3",
        }.items()
    ),
    Claim(
        DATA,
        "GPTQ depends on the text more than AWQ",
        f"{CALIB}: at 3 bits WikiText-2's perplexity spreads over 0.197 with GPTQ, 0.079 with AWQ",
        "the same difference at 3 bits, GPTQ's less AWQ's",
        lambda cells: effect_of(cells, matched("gptq-w3") + matched("awq-w3", sign=-1.0)),
    ),
    Claim(
        ALGORITHM,
        "AWQ's symmetric clipping is poor at 2 bits, clipping each end by itself is better",
        AWQ,
        f"{PROBABILITY}, asymmetric clipping less symmetric",
        better("awq-asym-w2", "awq-w2"),
    ),
    Claim(
        ALGORITHM,
        "That matters more at 2 bits than above",
        AWQ,
        "the same difference at 2 bits less that at 3",
        lambda cells: effect_of(
            cells,
            mean_over_tasks(
                cells, (1, "awq-asym-w2", TEXT), (-1, "awq-w2", TEXT), (-1, "awq-asym-w3", TEXT), (1, "awq-w3", TEXT)
            ),
        ),
    ),
    Claim(
        ALGORITHM,
        "With rounded activations AWQ's search is better than SmoothQuant",
        AWQ,
        f"{PROBABILITY} at W4A4, AWQ less SmoothQuant",
        better("awq-int-w4a4", "smooth-int-w4a4"),
    ),
    Claim(
        ALGORITHM,
        "Rotations and GPTQ together are better than rotations alone",
        ROTATED,
        f"{PROBABILITY} at W4A4, rotations and GPTQ less rotations",
        better("rotate-gptq-int-w4a4", "rotate-int-w4a4"),
    ),
    *(
        Claim(
            SCHEME,
            f"{name} loses less than a fifth",
            SECOND_HAND,
            "accuracy less 0.8 × full precision's",
            kept_accuracy(quantizer, 1),
        )
        for name, quantizer in {
            "Weights alone in 4 bits": "gptq-w4",
            "W4A8": "gptq-int-w4a8",
            "W8A8": "smooth-int-w8a8",
        }.items()
    ),
    *(
        Claim(
            SCHEME,
            f"{name} loses more than a fifth",
            SECOND_HAND,
            "0.8 × full precision's accuracy less the accuracy",
            kept_accuracy(quantizer, -1),
        )
        for name, quantizer in {"Weights alone in 2 bits": "awq-asym-w2", "W4A4": "smooth-gptq-int-w4a4"}.items()
    ),
    Claim(
        SCHEME,
        "Keys and values of 2 bits collapse",
        SECOND_HAND,
        "0.8 × full precision's accuracy less the accuracy",
        kept_accuracy("kv2", -1),
    ),
]


@dataclass(frozen=True)
class Judged:
    """What the sweep says to a claim."""

    effect: Effect | None
    """The claim's number; None where a cell that it needs is missing."""
    p_adjusted: float | None
    """Benjamini–Hochberg over all claims and models that are judged; None for one that is not."""

    @property
    def verdict(self) -> str:
        """Whether the claim is confirmed, contradicted, not decided or not judged yet."""
        if self.effect is None:
            return "not yet"
        if self.p_adjusted is None:
            return f"not yet: {self.effect.seeds} of {DRAWS} draws"
        if self.p_adjusted >= ALPHA:
            return "not decided"
        return "confirmed" if self.effect.value > 0 else "contradicted"


def judge(models: Sequence[SweptCells]) -> list[list[Judged]]:
    """Return for each claim what each model says to it."""
    effects = [[claim.measure(cells) for cells in models] for claim in CLAIMS]
    p_values = [effect.p_value for row in effects for effect in row if effect and _is_whole(effect)]
    adjusted = iter(benjamini_hochberg(p_values))
    return [[Judged(effect, next(adjusted) if effect and _is_whole(effect) else None) for effect in row] for row in effects]


def _is_whole(effect: Effect) -> bool:
    return effect.seeds in (0, DRAWS)
