"""A text's rows in the store: made once, resumed where they were interrupted, made again for another text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bitsure.base.errors import UserError
from bitsure.base.store import Store
from bitsure.config.schema import ModelSettings, ScoringSettings
from bitsure.models.locate import locate_model
from bitsure.scoring.scored_model import LocalSetup, ScoredModel
from bitsure.scoring.texts.text_files import locate_text_file
from bitsure.scoring.texts.text_pass import TextModel
from bitsure.scoring.texts.text_scorer import TextScorer
from tests.builders.texts import DOCUMENTS, text_settings, write_documents


@pytest.fixture
def passes(monkeypatch) -> list[int]:
    """The number of windows of every pass; `stop` in place of a model ends the process after two."""
    sizes: list[int] = []
    run = TextModel.states

    def counted(self, batch):
        sizes.append(len(batch))
        return run(self, batch)

    monkeypatch.setattr(TextModel, "states", counted)
    monkeypatch.setattr(TextModel, "next_batch", lambda self, windows: windows[:2])
    return sizes


def scorer(tiny_model, tmp_path, store="store", documents=DOCUMENTS, **changes) -> tuple[TextScorer, ScoredModel]:
    source = locate_model(ModelSettings(path=str(tiny_model)), None)
    text = locate_text_file(text_settings(write_documents(tmp_path, documents), **{"window": 32} | changes), None)
    setup = LocalSetup(ScoringSettings(), "float32")
    return TextScorer(text, setup, source, Store(tmp_path / store), Path("/dev/null")), ScoredModel(source)


def test_rows_are_made_once(tiny_model, tmp_path, passes):
    text, model = scorer(tiny_model, tmp_path)
    assert text.missing(model)
    rows = text.score(model, None, "full precision")
    assert passes
    passes.clear()
    again, model = scorer(tiny_model, tmp_path)
    assert again.score(model, None, "full precision").equals(rows)
    assert not passes
    assert again.made_from(model, rows)["text/local/gptq"]["vocabulary"] == len(again.source.load_tokenizer())
    origin = again.origin(model)
    assert (origin.tokens, origin.windows, origin.window) == (len(rows), rows["window"][-1].as_py() + 1, 32)


@pytest.mark.parametrize("changes", [{"documents": DOCUMENTS[::-1]}, {"window": 48}, {"protocol": "harness"}, {"limit": 64}])
def test_another_text_or_cut_has_rows_of_its_own(tiny_model, tmp_path, changes):
    (text, model), (other, _) = scorer(tiny_model, tmp_path), scorer(tiny_model, tmp_path, **changes)
    assert text.key(model) != other.key(model)


def test_an_interrupted_text_goes_on_and_gets_the_same_rows(tiny_model, tmp_path, passes, monkeypatch):
    text, model = scorer(tiny_model, tmp_path, store="whole")
    whole = text.score(model, None, "full precision")
    total = sum(passes)
    passes.clear()
    text, model = scorer(tiny_model, tmp_path)
    score = TextModel.score

    def interrupted(self, batch, states, full=None):
        if len(passes) == 3:
            raise KeyboardInterrupt
        return score(self, batch, states)

    with monkeypatch.context() as stopped, pytest.raises(KeyboardInterrupt):
        stopped.setattr(TextModel, "score", interrupted)
        text.score(model, None, "full precision")
    passes.clear()
    [folder] = (tmp_path / "store" / "unfinished").glob("*")
    (folder / "2.parquet").write_bytes(b"damaged")
    again, model = scorer(tiny_model, tmp_path)
    assert again.score(model, None, "full precision").equals(whole)
    assert sum(passes) == total - 2
    assert not list((tmp_path / "store" / "unfinished").glob("*"))


def test_a_window_longer_than_the_context_is_refused(tiny_model, tmp_path):
    text, model = scorer(tiny_model, tmp_path, window=5000)
    with pytest.raises(UserError, match=r"text.window=5000: tiny reads 1,024 tokens at most"):
        text.key(model)


def test_a_window_that_is_not_given_is_never_longer_than_the_context(tiny_model, tmp_path):
    for protocol, expected in (("gptq", 1024), ("llamacpp", 512)):
        text, model = scorer(tiny_model, tmp_path, window=None, protocol=protocol)
        assert text.key(model)["text"]["window"] == expected


def test_a_protocol_of_one_s_own_is_a_part_of_the_key(tiny_model, tmp_path):
    text, model = scorer(tiny_model, tmp_path, protocol="tests.scoring.texts.test_protocols.MyProtocol")
    assert text.text.task == "text/local/MyProtocol"
    assert text.key(model)["text"]["code"]
    assert replace(text.text.settings, protocol="gptq").protocol not in str(text.key(model)["text"])
