"""Draw which layers lose fidelity: a heat map of blocks and types of layers."""

from __future__ import annotations

from bitsure.report.chart_layers import category_axis, heat_layers
from bitsure.report.charts import Chart, Spec, table, titled
from bitsure.results import Attribution
from bitsure.results.attribution import AttributedPart

FIELD = (36, 18)  # pixels
ALL = "all"  # the row and the column of whole blocks and types


def attribution_chart(result: Attribution) -> Chart:
    """Return the KL divergence of each layer quantized alone, with those of whole blocks and types, as shares of everything's.

    Args:
        result: attribution.json, of a model whose everything has a KL divergence above 0.
    """
    blocks = [part for part in result.parts if part.kind == "block"]
    types = [part for part in result.parts if part.kind == "type"]
    numbers = {block.name: _number(block) for block in blocks}
    fields = [
        *((numbers[layer.block], layer.type, layer.kl_divergence, name) for name, layer in result.layers.items()),
        *((numbers[block.name], ALL, block.quantized_alone.kl_divergence, block.name) for block in blocks),
        *((ALL, part.name, part.quantized_alone.kl_divergence, f"{part.name} in all blocks") for part in types),
    ]
    whole = result.quantized.kl_divergence
    rows = table(
        {
            "block": [block for block, *_ in fields],
            "type": [of_type for _, of_type, *_ in fields],
            "value": [divergence / whole for _, _, divergence, _ in fields],
            "text": [_percent(divergence / whole) for _, _, divergence, _ in fields],
            "hover": [f"{name} alone: {kl:.3g} nats, {_percent(kl / whole)}% of everything's" for _, _, kl, name in fields],
        }
    )
    spec = _heat_map([*numbers.values(), ALL], [*(part.name for part in types), ALL], rows)
    worst = max(result.layers, key=lambda name: result.layers[name].kl_divergence)
    share = _percent(result.layers[worst].kl_divergence / whole)
    finding = (
        f"KL divergence of each layer quantized alone, in percent of that of the quantized model. {worst} has the largest: "
        f"{share}%. Shares need not add up to 100%."
    )
    return Chart(titled(result.text_name, spec, "KL alone, % of everything's"), finding)


def _heat_map(blocks: list[str], types: list[str], rows: list[Spec]) -> Spec:
    x, y = category_axis("type", types, "layers", labelAngle=-40), category_axis("block", blocks, "block")
    scale = {"scheme": "purples", "domain": [0, max(float(row["value"]) for row in rows)]}
    return {
        "data": {"values": rows},
        "width": {"step": FIELD[0]},
        "height": {"step": FIELD[1]},
        "layer": heat_layers(x, y, scale),
    }


def _number(block: AttributedPart) -> str:
    return block.name.rpartition(".")[2]


def _percent(share: float) -> str:
    return f"{100 * share:.0f}" if share >= 0.005 else "<1"
