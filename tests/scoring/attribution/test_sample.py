"""All passes of an attribution cost at most what the settings allow, counted where the models compute."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from bitsure.base.errors import UserError
from bitsure.config.schema import AttributionSettings
from bitsure.quantize.checkpoint.checkpoint_contents import CheckpointContents
from bitsure.quantize.walk.targets import find_blocks, linears
from bitsure.scoring.attribution import part_passes
from bitsure.scoring.attribution.asked_questions import AskedQuestion, numbered
from bitsure.scoring.attribution.model_pair import ModelPair
from bitsure.scoring.attribution.sample import choose_sample
from bitsure.scoring.local.local_engine import LocalEngine
from bitsure.scoring.texts.text_pass import TextModel
from bitsure.scoring.texts.tokenized_text import TextWindow
from tests.builders.families import FAMILIES, build

BLOCKS = 12


def window(random, n: int) -> TextWindow:
    return TextWindow(random.integers(3, 290, n), 1, *[np.zeros(n - 1, dtype=np.int64)] * 3)


@pytest.fixture(scope="module")
def pair() -> ModelPair:
    full, quantized = (build("opt", **FAMILIES["opt"] | {"num_hidden_layers": BLOCKS}) for _ in range(2))
    with torch.no_grad():
        for block in find_blocks(quantized)[1]:
            for layer in linears(block).values():
                layer.weight.mul_(1.01)
    return ModelPair(full, quantized, CheckpointContents({}))


@pytest.fixture
def count(pair):
    """Counts the multiplications of both models' blocks and heads."""
    done: Counter = Counter()
    per_block = pair.block_parameters / BLOCKS
    handles = []
    for model in (pair.full, pair.quantized):
        for block in find_blocks(model)[1]:  # attention reads every token, the last block's MLP not
            key = block.get_submodule("self_attn.k_proj")
            handles.append(key.register_forward_hook(lambda _, x, y: done.update(all=y[..., 0].numel() * per_block)))
        head = model.get_output_embeddings()
        handles.append(head.register_forward_hook(lambda m, x, y: done.update(all=y[..., 0].numel() * m.weight.numel())))
    yield done
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("are_scored", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_all_passes_of_twelve_blocks_cost_three_scorings_at_most(pair, count, are_scored):
    random = np.random.default_rng(0)
    windows = [window(random, 120) for _ in range(40)]
    contexts = [random.integers(3, 290, 12).tolist() for _ in range(300)]
    questions = [AskedQuestion([(context, [choice]) for choice in (7, 8, 9)], [0]) for context in contexts]
    engine = LocalEngine(pair.full, 256)
    sample = choose_sample(pair, windows, are_scored, questions, engine, AttributionSettings(measure=True))
    count.clear()
    run, batches = engine.lay_out(numbered(questions), 2048)
    count.clear()
    for batch in batches:
        run(pair.full, batch, numbered(questions))
    if are_scored:
        text_model = TextModel(pair.full)
        for each in windows:
            text_model.score([each], text_model.states([each]))
    one_scoring = count.total()
    count.clear()
    for each in sample.windows:
        part_passes.part_divergences(pair, [each])
        part_passes.divergence_from(pair.full, [each])(pair.quantized)  # the recipe's check
    for batch in sample.batches:
        part_passes.log_probabilities(pair, sample.run, batch, sample.requests)
    scorings = count.total() / one_scoring
    assert 1.5 < scorings <= 3
    assert scorings == pytest.approx(sample.scorings, rel=0.1)
    assert len(sample.windows) >= 2 and len(sample.questions) >= 5


def test_a_sample_is_no_larger_than_asked_and_spread_over_everything(pair):
    random = np.random.default_rng(0)
    windows = [window(random, 40) for _ in range(50)]
    questions = [AskedQuestion([([4, i % 200 + 5], [7]), ([4, i % 200 + 5], [8])], [0]) for i in range(100)]
    settings = AttributionSettings(scorings=1e6, tokens=10 * 32, questions=4)
    sample = choose_sample(pair, windows, True, questions, LocalEngine(pair.full, 256), settings)
    places = [
        next(i for i, of_all in enumerate(windows) if of_all.tokens[:33].tolist() == each.tokens.tolist())
        for each in sample.windows
    ]
    assert places == [2, 7, 12, 17, 22, 27, 32, 37, 42, 47]
    assert [questions.index(each) for each in sample.questions] == [12, 37, 62, 87]


def test_a_tiny_budget_leaves_one_short_window_and_one_question(pair):
    random = np.random.default_rng(0)
    questions = [AskedQuestion([([4, 5], [7]), ([4, 5], [8])], [0])] * 3
    settings = AttributionSettings(scorings=0.001)
    sample = choose_sample(pair, [window(random, 100)], True, questions, LocalEngine(pair.full, 256), settings)
    assert [len(each) for each in sample.windows] == [33] and len(sample.questions) == 1


def test_neither_text_nor_questions_is_refused(pair):
    random = np.random.default_rng(0)
    with pytest.raises(UserError, match="there is nothing to attribute a loss on"):
        choose_sample(pair, [window(random, 40)], False, [], LocalEngine(pair.full, 256), AttributionSettings(measure=True))
