from __future__ import annotations

from collections import Counter

from bitsure.base import progress
from bitsure.quantize.proof.output_errors import output_errors
from bitsure.quantize.walk import blocks
from bitsure.quantize.walk.mixtures import separated
from bitsure.quantize.walk.targets import block_linears, matrix
from tests.builders.families import FAMILIES, MIXTURES, build
from tests.builders.marks import needs_transformers_5
from tests.builders.quantizing import WINDOWS


@needs_transformers_5
def test_the_weight_of_an_expert_is_dequantized_once_for_all_batches(monkeypatch):
    monkeypatch.setattr(blocks, "TOKENS_AT_ONCE", 2 * WINDOWS.shape[1])
    model = build("mixtral", **MIXTURES["mixtral"])
    asked: Counter[str] = Counter()

    def weight_now(name, layer):
        asked[name] += 1
        return matrix(layer) * 1.5

    with separated(model):
        errors = output_errors(model, weight_now, WINDOWS)
        assert asked == Counter(block_linears(model).keys())
    assert all(abs(error.whole - 0.5) < 1e-5 for error in errors.values())


def test_it_shows_how_many_blocks_are_done_in_place_of_what_goes_on_around_it(monkeypatch, capsys):
    monkeypatch.setattr(progress, "LOG_EVERY", 0)
    with progress.working("verifying the weights"):
        output_errors(build("llama", **FAMILIES["llama"]), lambda name, layer: matrix(layer) * 1.5, WINDOWS)
    shown = [line.partition(", ")[0] for line in capsys.readouterr().out.splitlines()]
    assert shown == [f"verifying the weights: {done} of 2 blocks" for done in (1, 2)]
