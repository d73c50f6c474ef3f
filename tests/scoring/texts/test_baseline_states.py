"""Full precision's states of a text: made once, noticed when damaged, made again where there is no room to keep them."""

from __future__ import annotations

from os import utime
from pathlib import Path

import pytest

from bitsure.base.store import Store
from bitsure.config.schema import ScoringSettings
from bitsure.scoring.scored_model import LoadedModel, LocalSetup, ScoredModel
from bitsure.scoring.texts import baseline_states
from bitsure.scoring.texts.text_files import locate_text_file
from bitsure.scoring.texts.text_pass import TextModel
from bitsure.scoring.texts.text_scorer import TextScorer
from tests.builders.texts import text_settings, write_documents


@pytest.fixture
def passes(monkeypatch) -> list[str]:
    """What ran a batch: `full` for full precision, `quantized` for models whose first weight was changed."""
    ran: list[str] = []
    run = TextModel.states

    def counted(self, batch):
        ran.append(getattr(self.model, "called", "full"))
        return run(self, batch)

    monkeypatch.setattr(TextModel, "states", counted)
    return ran


class Setup(LocalSetup):
    """Loads the full model, and the same with weights times a factor for a checkpoint that is named after it."""

    def load(self, source, checkpoint) -> LoadedModel:
        loaded = super().load(source, None)
        if checkpoint is not None:
            loaded.model.called = "quantized"
            for weight in loaded.model.parameters():
                weight.data *= float(checkpoint.name)
        return loaded


def scorer(source, tmp_path) -> TextScorer:
    text = locate_text_file(text_settings(write_documents(tmp_path), window=32), None)
    return TextScorer(text, Setup(ScoringSettings(), "float32"), source, Store(tmp_path / "store"), Path("/dev/null"))


def divergences(text, source, factor) -> list[float]:
    quantized = ScoredModel(source, {"times": factor})
    return text.score(quantized, lambda: Path(str(factor)), "quantized")["kl_divergence"].to_pylist()


def test_full_precision_runs_once_for_all_quantizers(source, tmp_path, passes):
    text = scorer(source, tmp_path)
    assert text.score(ScoredModel(source), None, "full precision")["kl_divergence"].null_count
    assert min(divergences(text, source, 0.99)) > 0
    assert divergences(text, source, 1.0) == [0.0] * text.cut(None).n_scored
    assert passes.count("full") == passes.count("quantized") / 2


def test_states_that_were_never_kept_are_made_when_they_are_needed(source, tmp_path, passes):
    text = scorer(source, tmp_path)
    first = divergences(text, source, 0.99)
    assert passes.count("full") == passes.count("quantized")
    divergences(text, source, 0.98)
    assert passes.count("full") == passes.count("quantized") / 2
    assert first == divergences(scorer(source, tmp_path), source, 0.99)


def test_damaged_states_are_made_again(source, tmp_path, passes):
    text = scorer(source, tmp_path)
    expected = divergences(text, source, 0.99)
    (states,) = (tmp_path / "store" / "states").glob("*/states.bin")
    before, content = states.stat(), states.read_bytes()
    states.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    utime(states, ns=(before.st_atime_ns, before.st_mtime_ns))  # a bit that turned, with nothing to show for it
    passes.clear()
    assert divergences(text, source, 0.98) != expected
    assert "full" in passes
    passes.clear()
    assert divergences(text, source, 1.0) == [0.0] * len(expected)
    assert "full" not in passes


def test_damaged_states_are_not_read_where_there_is_no_room_for_others(source, tmp_path, passes, monkeypatch):
    text = scorer(source, tmp_path)
    divergences(text, source, 0.99)
    (states,) = (tmp_path / "store" / "states").glob("*/states.bin")
    before, content = states.stat(), states.read_bytes()
    states.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    utime(states, ns=(before.st_atime_ns, before.st_mtime_ns))
    monkeypatch.setattr(baseline_states, "DISK_SHARE", 0.0)
    passes.clear()
    assert divergences(text, source, 1.0) == [0.0] * text.cut(None).n_scored
    assert "full" in passes


def test_without_room_the_full_model_runs_beside_each_quantizer(source, tmp_path, passes, monkeypatch):
    (tmp_path / "kept").mkdir()
    expected = divergences(scorer(source, tmp_path / "kept"), source, 0.99)
    monkeypatch.setattr(baseline_states, "DISK_SHARE", 0.0)
    passes.clear()
    text = scorer(source, tmp_path)
    assert divergences(text, source, 0.99) == expected
    divergences(text, source, 0.98)
    assert passes.count("full") == passes.count("quantized")
    assert not (tmp_path / "store" / "states").exists()


def test_an_interrupted_comparison_goes_on_where_the_kept_states_do(source, tmp_path, monkeypatch):
    monkeypatch.setattr(TextModel, "next_batch", lambda self, windows: windows[:2])
    (tmp_path / "whole").mkdir()
    expected = divergences(scorer(source, tmp_path / "whole"), source, 0.99)
    score, scored = TextModel.score, []

    def interrupted(self, batch, states, full=None):
        scored.append(batch)
        if len(scored) == 3:
            raise KeyboardInterrupt
        return score(self, batch, states, full)

    with monkeypatch.context() as stopped, pytest.raises(KeyboardInterrupt):
        stopped.setattr(TextModel, "score", interrupted)
        divergences(scorer(source, tmp_path), source, 0.99)
    assert divergences(scorer(source, tmp_path), source, 0.99) == expected
