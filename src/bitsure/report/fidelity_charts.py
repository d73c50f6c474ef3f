"""Draw what quantization did to next-token probabilities, by how sure full precision was of its most likely token."""

from __future__ import annotations

from collections.abc import Mapping

from bitsure.metrics.fidelity import CONFIDENCE_BINS, PROBABILITY_CHANGE
from bitsure.report.chart_layers import number_axis
from bitsure.report.charts import Chart, titled
from bitsure.report.shift_charts import FEWEST_DRAWN, shift_panel
from bitsure.report.tables import significant
from bitsure.results import Difference


def fidelity_chart(task: str, values: Mapping[str, Difference]) -> Chart | None:
    """Return mean KL divergence and mean Δp by confidence, over the noise control's range; None for fewer than two bins.

    Args:
        task: The text.
        values: Its part of a comparison.
    """
    names = {k: f"{10 * k}_to_{10 * (k + 1)}_percent" for k in range(CONFIDENCE_BINS)}
    bins = [
        k
        for k, name in names.items()
        if f"kl_divergence_{name}" in values and values[f"kl_divergence_{name}"].n >= FEWEST_DRAWN
    ]
    if len(bins) < 2:
        return None
    x = number_axis("confidence before", {"domain": [0, 1]}, format=".0%", values=[0, 1], grid=False)
    panels = []
    for metric, title in (("kl_divergence", "KL, nats"), (PROBABILITY_CHANGE, "Δp of the true token")):
        groups = {f"{metric}_{names[k]}": ((k + 0.5) / CONFIDENCE_BINS, f"confidence {10 * k}–{10 * k + 10}%") for k in bins}
        panels.append(shift_panel(values, groups, x, title, unit="tokens"))
    unsure, sure = (values[f"kl_divergence_{names[k]}"] for k in (bins[0], bins[-1]))
    finding = (
        f"{task}: mean KL divergence is {significant(unsure)} nats where full precision gives its most "
        f"likely token {10 * bins[0]}–{10 * bins[0] + 10}%, and {significant(sure)} where it gives it "
        f"{10 * bins[-1]}–{10 * bins[-1] + 10}%."
    )
    return Chart(titled(task, {"hconcat": panels, "spacing": 12}), finding)
