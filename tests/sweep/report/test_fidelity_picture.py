"""Fidelity on texts against bits and bytes."""

from __future__ import annotations

from bitsure.sweep.report.fidelity_picture import FIDELITY_AXES, fidelity_picture, without_choices_fidelity
from tests.builders.study_rows import study_row

BITS, BYTES = FIDELITY_AXES


def of_text(name: str, bits: float, divergence: float) -> list:
    shared = {"quantizer": name, "quantizer_label": name, "asked": name, "task": "text/wikitext2/gptq", "bits_per_weight": bits}
    values = {"kl_divergence": divergence, "same_top_token": 0.9, "perplexity_ratio": 1.1}
    return [study_row(metric=metric, value=value, size_bytes=int(1e6 * bits), **shared) for metric, value in values.items()]


def test_each_text_has_a_panel_a_metric_and_the_finding_goes_from_small_to_large():
    rows = of_text("gptq4", 4.2, 2e-5) + of_text("rtn3", 3.1, 0.11)
    by_bits, by_bytes = fidelity_picture(rows, BITS), fidelity_picture(rows, BYTES)
    assert [len(picture.panels) for picture in (by_bits, by_bytes)] == [3, 3]
    assert (by_bits.name, by_bytes.name) == ("fidelity_bits_per_weight", "fidelity_size_bytes")
    assert by_bits.finding == (
        "KL divergence, nats, text/wikitext2/gptq: rtn3 of m 0.11 (bits per weight 3.1), "
        "gptq4 of m 2e-05 (bits per weight 4.2)."
    )
    assert "<svg" in by_bits.panels[0].svg


def test_one_model_has_no_picture_and_a_divergence_of_choices_is_not_a_text_s():
    assert fidelity_picture(of_text("gptq4", 4.2, 0.02), BITS) is None
    choices = [study_row(metric="kl_divergence", task="piqa"), study_row(task="piqa")]
    rows = without_choices_fidelity(of_text("gptq4", 4.2, 0.02) + choices)
    assert [(row.task, row.metric) for row in rows if row.task == "piqa"] == [("piqa", "accuracy")]


def test_an_identical_model_is_drawn_too():
    picture = fidelity_picture(of_text("gptq4", 4.2, 0.02) + of_text("rtn16", 16.0, 0.0), BITS)
    assert "<svg" in picture.panels[0].svg


def test_points_of_many_quantizers_differ_in_colour_or_shape():
    names = [f"q{i:02}" for i in range(18)]
    picture = fidelity_picture([row for name in names for row in of_text(name, 4.2, 0.02)], BITS)
    assert len({(key.colour, key.shape) for key in picture.keys}) == len(names)
    points = picture.panels[0].spec["layer"][-1]["layer"][-1]
    assert points["encoding"]["shape"]["scale"]["range"] == [key.shape for key in picture.keys]
