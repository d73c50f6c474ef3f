from __future__ import annotations

from types import SimpleNamespace

import torch

from bitsure import results
from bitsure.results import Labels
from bitsure.run import provenance


def test_provenance_names_versions_and_machine_and_no_secret(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "s3cret")
    monkeypatch.setenv("HF_TOKEN", "s3cret")
    origin = provenance.collect(Labels(model="m", quantizer="rtn4"))
    assert (origin.packages["torch"] or "").startswith("2.13.0") and (origin.machine.cores or 0) >= 1
    assert origin.machine.threads == torch.get_num_threads()
    assert None in (origin.packages["gptqmodel"], origin.packages["auto_gptq"])  # no environment holds both
    assert "s3cret" not in results.to_json(origin)


def test_outside_a_git_checkout_there_is_no_commit(monkeypatch, tmp_path):
    monkeypatch.setattr(provenance, "PROJECT", tmp_path)
    assert provenance.collect(Labels(model="m", quantizer="rtn4")).git_commit is None


def test_the_origins_of_both_models_data_are_kept_where_they_differ(caplog):
    def data_of(full: str, quantized: str) -> dict:
        """What provenance.json says of data whose commits these are."""
        commits = {"full": full, "quantized": quantized}
        kept = SimpleNamespace(
            data=lambda model: {"quiz": {"org/quiz": {"commit": commits[model]}}},
            question_counts=lambda model: {},
            engine=lambda model: None,
        )
        scorer, models = SimpleNamespace(kept=kept), {"full_precision": "full", "quantized": "quantized"}
        prepared = SimpleNamespace(scorer=scorer, text=None, scored="quantized", full_precision="full", models=models)
        plain = results.to_plain(provenance.with_data(provenance.collect(Labels(model="m", quantizer="rtn4")), prepared))
        return {name: value for name, value in plain.items() if name.startswith("data")}

    assert data_of("a", "a") == {"data": {"quiz": {"org/quiz": {"commit": "a"}}}} and not caplog.text
    first, second = ({"quiz": {"org/quiz": {"commit": commit}}} for commit in "ab")
    assert (
        data_of("a", "b") == {"data": second, "data_full_precision": first}
        and "scored on other data, see provenance.json: quiz" in caplog.text
    )
