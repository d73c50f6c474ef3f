from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest

from bitsure.base.errors import UserError
from bitsure.base.memo import Memo
from bitsure.config.schema import ModelSettings, ScoringSettings
from bitsure.results.run_files import ModelOrigin
from bitsure.run.preparation import _check_mixture, _check_scoring_memory, _log_what_is_left_out
from bitsure.run.provenance import collect, full_names
from tests.builders.sweep_commands import compose_valid


def test_what_has_no_effect_and_another_models_first_answers_are_said(tmp_path, caplog):
    text = tmp_path / "text.txt"
    text.write_text("the cat sat " * 200)
    settings = ["quant=none", "task=open_second_turns", f"task.open.first_answers={tmp_path}", "+metric.own.mine=operator.neg"]
    [cell] = compose_valid(*settings, "task.limit=3", "text=local", f"text.path={text}")
    unknown = dict.fromkeys(("series", "training_seed", "revision", "repo", "full_dtype", "device_map"))
    other = ModelOrigin(name="other", fingerprint="b", dtype="float32", **unknown)
    origin = collect(full_names(cell.config)).model_copy(update={"model": other})
    (tmp_path / "provenance.json").write_text(origin.model_dump_json())
    caplog.set_level(logging.INFO, "bitsure.run.preparation")
    _log_what_is_left_out(cell.config, SimpleNamespace(fingerprint="a"), Memo())
    preference, limit, own, answers = caplog.messages
    assert limit == "task.limit=3: takes fewer questions; the text is scored whole (text.limit=N: its first N tokens)"
    assert preference.startswith("task.preference=true: nothing is quantized") and own.startswith("metric.own: not measured")
    assert answers == f"task.open.first_answers={tmp_path}: another model, other, gave the first answers"


@pytest.mark.parametrize("missing", ["records", "texts"])
def test_a_model_that_does_not_fit_is_refused_before_it_is_quantized_also_for_texts_alone(missing):
    model = SimpleNamespace(server=None)

    def lacks(what):
        return SimpleNamespace(missing=lambda model: [what] if what == missing else [])

    setup = SimpleNamespace(scoring=ScoringSettings())
    prepared = SimpleNamespace(
        full_precision=model,
        scored=model,
        source=SimpleNamespace(settings=ModelSettings(name="large", path="large", parameters=10**15)),
        dtype="float32",
        scorer=SimpleNamespace(setup=setup, kept=lacks("records")),
        text=lacks("texts"),
    )
    with pytest.raises(UserError, match=r"model=large: .* GiB in all"):
        _check_scoring_memory(prepared)


def test_a_dense_models_config_is_enough_to_refuse_all_experts(tiny_model):
    with pytest.raises(UserError, match=r"calib\.all_experts=true: tiny is no mixture of experts by its config\.json"):
        _check_mixture(SimpleNamespace(name="tiny", path=tiny_model))
