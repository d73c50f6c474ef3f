"""What the page says of attribution, and its heat map."""

from __future__ import annotations

from bitsure.report.attribution_chart import attribution_chart
from bitsure.report.attribution_section import attribution_section
from bitsure.results.attribution import AttributedLayer, AttributedPart, Attribution, KeptLayers, PartEffect
from bitsure.results.run_files import Labels


def effect(kl: float, change: float | None = -0.1) -> PartEffect:
    return PartEffect(
        kl_divergence=kl,
        kl_divergence_ci=(kl / 2, kl * 2),
        true_label_prob_change=change,
        true_label_prob_change_ci=None,
    )


def part(kind, name: str, alone: float, restored: float) -> AttributedPart:
    return AttributedPart(kind=kind, name=name, quantized_alone=effect(alone), restored_alone=effect(restored))


def attribution() -> Attribution:
    kls = {"b.0.q": 0.1, "b.0.v": 0.2, "b.1.q": 0.0001, "b.1.v": 0.05}
    return Attribution(
        text_name="text/pocket",
        windows=4,
        tokens=1000,
        questions=50,
        scorings=2.5,
        quantized=effect(0.4),
        parts=[
            part("block", "b.0", 0.3, 0.1),
            part("block", "b.1", 0.1, 0.35),
            part("type", "q", 0.1, 0.3),
            part("type", "v", 0.25, 0.15),
            part("other", "keys and values", 0.01, 0.39),
        ],
        layers={
            name: AttributedLayer(block=name[:3], type=name[4:], kl_divergence=kl, kl_divergence_ci=None)
            for name, kl in kls.items()
        },
        kept_layers=KeptLayers(
            layers=["b.0.v", "b.0.q"],
            bits=8,
            bits_per_weight=3.5,
            bits_per_weight_before=3.125,
            kl_divergence_expected=0.1,
            kl_divergence=0.2,
            kl_divergence_ci=(0.1, 0.3),
        ),
    )


def test_it_names_the_worst_block_and_type_and_what_the_recipe_costs_and_did():
    section = attribution_section(attribution())
    assert "KL divergence is 0.4 [0.2, 0.8] nats; the right choice's probability changes by -0.100" in section.sentences[0]
    assert "1,000 tokens in 4 windows of text/pocket and 50 questions" in section.sentences[0]
    assert section.sentences[1].startswith("Of 2 blocks, b.0 loses most by itself: 0.3 [0.15, 0.6] nats. Restoring b.0 alone")
    assert "Of 2 types, v loses most" in section.sentences[2]
    assert section.sentences[3] == (
        "Recipe: b.0.v and b.0.q in 8 bits. It takes 3.500 bits per weight instead of 3.125; KL divergence falls from 0.4 to "
        "0.2 [0.1, 0.3] nats, measured with these weights on the same text (0.1 if losses added up)."
    )
    assert [row[:2] for row in section.rows][-2:] == [("beside them", "keys and values"), ("everything", "")]


def test_the_heat_map_has_a_field_for_each_layer_block_and_type():
    chart = attribution_chart(attribution())
    fields = {(row["block"], row["type"]): row["text"] for row in chart.spec["data"]["values"]}
    assert fields == {
        **{("0", "q"): "25", ("0", "v"): "50", ("1", "q"): "<1", ("1", "v"): "12"},
        **{("0", "all"): "75", ("1", "all"): "25", ("all", "q"): "25", ("all", "v"): "62"},
    }
    assert "b.0.v has the largest: 50%" in chart.finding


def test_the_command_names_the_option_also_where_the_label_is_a_full_name():
    for quantizer, expected in (
        ("rtn3 sym=true", "rtn3 quant.like.sym=true quant.recipe"),
        ("rtn3-g32-asym", "rtn3 quant.recipe"),
    ):
        section = attribution_section(attribution(), Labels(model="model", quantizer=quantizer, preset="rtn3"))
        assert f"quant@quant.like={expected}=RUN_DIR/recipe.yaml" in section.sentences[3]
