"""What is measured of each part is what plain passes of models give that are put together by hand."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from bitsure.base.errors import UserError
from bitsure.base.store import Store
from bitsure.config.number_formats import Activations, KeysValues
from bitsure.config.quantizers import RotationSettings
from bitsure.models.load import load_model
from bitsure.quantize.checkpoint.apply_checkpoint import put_into
from bitsure.quantize.checkpoint.checkpoint_contents import CheckpointContents
from bitsure.quantize.checkpoint.read_checkpoint import load_checkpoint
from bitsure.quantize.make import ensure_quantized
from bitsure.quantize.native.cast import Cast
from bitsure.quantize.native.kept import Kept
from bitsure.quantize.native.rtn import Rtn
from bitsure.results.attribution import FULL, QUANTIZED, alone, restored
from bitsure.scoring.attribution.model_pair import KEYS_AND_VALUES, OUTSIDE, ModelPair, layer_types
from bitsure.scoring.attribution.part_passes import Segment, check_numbers, log_probabilities, part_divergences, segments
from bitsure.scoring.local.forward import score_trees
from bitsure.scoring.local.local_engine import LocalEngine
from bitsure.scoring.local.rows import trees
from bitsure.scoring.texts.head_states import whole_logits
from bitsure.scoring.texts.text_pass import inputs_of
from bitsure.scoring.texts.token_scores import TokenScores, token_scores
from bitsure.scoring.texts.tokenized_text import TextWindow
from tests.builders.fake_gpu import fake_gpu
from tests.builders.families import FAMILIES, build
from tests.builders.plans import plan

TOKENS = np.random.default_rng(0).integers(3, 90, (3, 24))
BATCH = [TextWindow(tokens, 1, *[np.zeros(23, dtype=np.int64)] * 3) for tokens in TOKENS]
REQUESTS = {0: ([5, 6, 7], [8, 9]), 1: ([5, 6, 7], [10]), 2: ([5, 6, 11, 12], [13])}


@pytest.fixture
def pair_of(tiny_model, calib_file, tmp_path):
    def make(quant) -> ModelPair:
        checkpoint = ensure_quantized(plan(tiny_model, quant, calib_file), Store(tmp_path), tmp_path / "log").checkpoint
        full, quantized = (load_model(tiny_model, "float32")[0] for _ in range(2))
        put_into(quantized, checkpoint)
        return ModelPair(full, quantized, load_checkpoint(checkpoint, full))

    return make


def plain(model, full) -> list[float]:
    """KL divergences of the windows, by passes that know nothing of parts."""
    ids, rows = inputs_of(BATCH)
    tokens = torch.from_numpy(np.concatenate([window.scored for window in BATCH]))
    scores = TokenScores.read([token_scores(whole_logits(model, ids, rows), tokens, whole_logits(full, ids, rows))])
    return scores.kl_divergence.reshape(len(BATCH), -1).sum(1).tolist()


def by_weights(first, second, names: list[str]):
    """A copy of the first model with the second one's tensors of modules."""
    mixed = copy.deepcopy(first)
    tensors = {key: value for key, value in second.state_dict().items() if any(key.startswith(f"{name}.") for name in names)}
    mixed.load_state_dict(tensors, strict=False)
    return mixed


def test_every_part_is_measured_as_a_plain_pass_of_such_a_model(pair_of):
    pair = pair_of(Rtn(2, 32, True))
    measured, full, quantized = part_divergences(pair, BATCH), pair.full, pair.quantized
    assert measured[QUANTIZED] == pytest.approx(plain(quantized, full)) and measured[QUANTIZED][0] > 0.01
    names = {layer.name for layer in pair.layers}
    modules = {("block", f"model.decoder.layers.{k}"): [f"model.decoder.layers.{k}"] for k in range(2)}
    for name in ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"):
        modules["type", name] = [layer for layer in names if layer.endswith(f".{name}")]
    assert {(part.kind, part.name) for part in pair.parts} == set(modules) and len(names) == 12
    for (kind, name), inside in modules.items():
        assert measured[alone(kind, name)] == pytest.approx(plain(by_weights(full, quantized, inside), full), rel=1e-4)
        assert measured[restored(kind, name)] == pytest.approx(plain(by_weights(quantized, full, inside), full), rel=1e-4)
    layer = "model.decoder.layers.1.fc1"
    assert measured[alone("layer", layer)] == pytest.approx(plain(by_weights(full, quantized, [layer]), full), rel=1e-4)


def test_questions_are_scored_as_the_engine_scores_such_a_model(pair_of):
    pair = pair_of(Rtn(2, 32, True))
    engine = LocalEngine(pair.full, 64)
    run, batches = engine.lay_out(REQUESTS, 64)
    [batch] = batches
    measured = log_probabilities(pair, run, batch, REQUESTS)
    order = [number for row in batch for number in row.scored]
    half = by_weights(pair.full, pair.quantized, ["model.decoder.layers.1"])
    for model, name in ((pair.full, FULL), (pair.quantized, QUANTIZED), (half, alone("block", "model.decoder.layers.1"))):
        scored = LocalEngine(model, 64).score([REQUESTS[number] for number in order])
        assert measured[name] == pytest.approx([each.logprob for each in scored], abs=1e-4)
    assert measured[restored("block", "model.decoder.layers.0")] == measured[alone("block", "model.decoder.layers.1")]


def test_long_questions_are_scored_part_by_part_also_from_the_middle_of_a_model():
    sizes = FAMILIES["llama"] | {"max_position_embeddings": 512}
    pair = ModelPair(build("llama", **sizes), build("llama", **sizes), CheckpointContents({}))
    context = np.random.default_rng(0).integers(3, 90, 300).tolist()
    requests = {0: (context, [5]), 1: (context, [6])}
    run, [batch] = LocalEngine(pair.full, 512).lay_out(requests, 1024)
    measured = log_probabilities(pair, run, batch, requests)
    for logprobs in measured.values():
        assert logprobs == pytest.approx(measured[FULL], abs=1e-4)


def test_on_a_gpu_every_tensor_lives_there_and_a_pass_is_waited_for_once():
    first, second = (build("gpt2", **FAMILIES["gpt2"] | {"n_layer": 1}) for _ in range(2))
    with torch.no_grad():
        second.transformer.h[0].mlp.c_fc.weight *= 1.1
    batch, half = trees(REQUESTS, 64, 64), BATCH[:2]

    def measured(pair: ModelPair) -> dict[str, list[float]]:
        return part_divergences(pair, half) | log_probabilities(pair, score_trees, batch, REQUESTS)

    expected = measured(ModelPair(first, second, CheckpointContents({})))
    with fake_gpu() as gpu:
        pair = ModelPair(first.to("cuda"), second.to("cuda"), CheckpointContents({}))
        gpu.reset()
        numbers = measured(pair)
    waits = {wait: times for wait, times in gpu.waits.items() if "masking_utils.py" not in wait}
    assert list(waits.values()) == [1 + 2 * len(pair.parts) + len(pair.layers)]
    for name, values in numbers.items():
        assert values == pytest.approx(expected[name], abs=1e-5)


def test_the_tokens_of_a_window_are_cut_at_the_borders_of_documents():
    zeros = np.zeros(5, dtype=np.int64)
    window = TextWindow(np.arange(6), 1, np.array([0, 0, 1, 1, 1]), zeros, zeros)
    assert segments([window, window])[1:3] == [Segment(0, "", 1, 3), Segment(1, "", 0, 2)]


def test_a_part_that_breaks_the_model_is_named():
    check_numbers({FULL: [-1.0, float("-inf")]})
    with pytest.raises(UserError, match="'alone: type fc1' gives probabilities that are not finite"):
        check_numbers({QUANTIZED: [0.1], alone("type", "fc1"): [0.1, float("nan")]})


SMOOTHED = Rtn(8, -1, True, transforms=["smooth"], activations=Activations(8))
ROTATED = Rtn(8, -1, True, transforms=["rotate"], rotation=RotationSettings(["r1", "r2", "r4"]))


@pytest.mark.parametrize("quant", [SMOOTHED, ROTATED], ids=["smoothed", "rotated"])
def test_layers_of_transformed_models_fit_into_full_precision(quant, pair_of, tiny_model):
    pair = pair_of(quant)
    assert max(plain(pair.full, load_model(tiny_model, "float32")[0])) < 1e-6
    measured = part_divergences(pair, BATCH)
    assert 0 < max(measured[alone("type", "fc1")]) < max(measured[QUANTIZED]) < 0.1
    assert 0 < max(measured[restored("type", "fc2")]) < 0.1
    assert max(measured.get(alone("other", OUTSIDE), [0])) == 0


def test_keys_and_values_are_a_part_and_so_is_what_is_outside_the_blocks(pair_of):
    pair = pair_of(Kept(kv=KeysValues(2)))
    measured = part_divergences(pair, BATCH)
    assert measured[alone("other", KEYS_AND_VALUES)] == pytest.approx(measured[QUANTIZED])
    assert max(measured[restored("other", KEYS_AND_VALUES)]) == max(measured[alone("type", "fc1")]) == 0
    pair = pair_of(Cast("bfloat16"))
    measured = part_divergences(pair, BATCH)
    assert max(measured[alone("other", OUTSIDE)]) > 0 and measured[alone("other", OUTSIDE)] != measured[QUANTIZED]
    shell = by_weights(pair.quantized, pair.full, ["model.decoder.layers"])
    assert measured[alone("other", OUTSIDE)] == pytest.approx(plain(shell, pair.full), rel=1e-3)


def test_a_type_is_the_end_of_a_layers_name_unless_two_share_it():
    assert layer_types(["attn.c_attn", "attn.c_proj", "mlp.c_proj"]) == {
        "attn.c_attn": "c_attn",
        "attn.c_proj": "attn.c_proj",
        "mlp.c_proj": "mlp.c_proj",
    }
    assert layer_types(["mlp.experts.0.up", "mlp.experts.1.up"]) == {"mlp.experts.0.up": "up", "mlp.experts.1.up": "up"}
