"""What the page says of attribution: which blocks and types of layers lose most, and what more bits for a few would do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from bitsure.base.decimals import decimal, with_ends
from bitsure.results import Attribution
from bitsure.results.attribution import AttributedPart, KeptLayers, PartEffect
from bitsure.results.measurement import Interval
from bitsure.results.run_files import Labels

COLUMNS = (
    "",
    "part",
    "KL alone, nats",
    "KL restored, nats",
    "Δp alone",
    "Δp restored",
)
RECIPE = "RUN_DIR/recipe.yaml"  # on a page, which may be moved with its run
KINDS = {"block": "block", "type": "layers in all blocks", "other": "beside them"}


@dataclass(frozen=True)
class AttributionSection:
    """What the page shows; all numbers are formatted."""

    sentences: list[str]
    rows: list[tuple[str, ...]]
    columns: tuple[str, ...] = COLUMNS


def attribution_section(result: Attribution, labels: Labels | None = None, recipe: str = RECIPE) -> AttributionSection:
    """Return what the page shows of attribution.

    Args:
        result: attribution.json.
        labels: What the run's command calls its quantizer; None if that is not known, or if the command that scores the
            recipe's model stands elsewhere.
        recipe: Where the recipe is.
    """
    sentences = [_everything(result), *(_worst(result, kind, what) for kind, what in (("block", "blocks"), ("type", "types")))]
    if result.kept_layers:
        sentences.append(_kept_layers(result.kept_layers, result.quantized) + _command(labels, recipe))
    rows = [(KINDS[part.kind], part.name, *_cells(part)) for part in result.parts]
    everything = result.quantized
    total = ("everything", "", _kl(everything), "0", _change(everything), "0" if result.questions else "–")
    return AttributionSection(sentences, [*rows, total])


def _everything(result: Attribution) -> str:
    questions = f" and {result.questions:,} questions" if result.questions else ""
    change = f"; the right choice's probability changes by {_change(result.quantized)}" if result.questions else ""
    return (
        f"With everything quantized, KL divergence is {_kl(result.quantized)} nats{change}. Measured on {result.tokens:,} "
        f"tokens in {result.windows} windows of {result.text_name}{questions}, with {result.scorings:.2g} times the work of "
        "scoring one model."
    )


def _worst(result: Attribution, kind: str, what: str) -> str:
    """Return which part of a kind loses most alone, and which one's restoring helps most."""
    parts = [part for part in result.parts if part.kind == kind]
    alone = max(parts, key=lambda part: part.quantized_alone.kl_divergence)
    best = min(parts, key=lambda part: part.restored_alone.kl_divergence)
    return (
        f"Of {len(parts)} {what}, {alone.name} loses most by itself: {_kl(alone.quantized_alone)} nats. Restoring {best.name} "
        f"alone helps most: {_kl(best.restored_alone)} nats are left."
    )


def _kept_layers(kept: KeptLayers, quantized: PartEffect) -> str:
    """Return what a few layers in more bits cost and save."""
    return (
        f"Recipe: {_listed(kept.layers)} in {kept.bits} bits. It takes {kept.bits_per_weight:.3f} bits per weight instead of "
        f"{kept.bits_per_weight_before:.3f}; KL divergence falls from {quantized.kl_divergence:.3g} to "
        f"{_with_interval(kept.kl_divergence, kept.kl_divergence_ci)} nats, measured with these weights on the same text "
        f"({kept.kl_divergence_expected:.3g} if losses added up)."
    )


def _command(labels: Labels | None, recipe: str) -> str:
    """Return how to score a model of the recipe."""
    if labels is None or labels.preset is None:
        return ""
    name, *settings = labels.quantizer.split()
    like = " ".join([f"quant@quant.like={labels.preset}", *(f"quant.like.{setting}" for setting in settings)])
    changed = "" if name == labels.preset else " Settings that this run changed with quant.… are given with quant.like.… there."
    where = "; RUN_DIR is this run's folder" if recipe == RECIPE else ""
    return f" A run with quant=mixed {like} quant.recipe={recipe} scores it{where}.{changed}"


def _cells(part: AttributedPart) -> tuple[str, ...]:
    alone, restored = part.quantized_alone, part.restored_alone
    return _kl(alone), _kl(restored), _change(alone), _change(restored)


def _kl(effect: PartEffect) -> str:
    return _with_interval(effect.kl_divergence, effect.kl_divergence_ci)


def _change(effect: PartEffect) -> str:
    if effect.true_label_prob_change is None:
        return "–"
    return _with_interval(effect.true_label_prob_change, effect.true_label_prob_change_ci, "+.3f")


def _with_interval(value: float, interval: Interval | None, form: str = ".3g") -> str:
    return with_ends(value, *interval, form) if interval else decimal(value, form)


def _listed(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
