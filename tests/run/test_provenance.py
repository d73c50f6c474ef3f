from __future__ import annotations

import json
from types import SimpleNamespace

from bitsure.run import pipeline, provenance


def test_provenance_names_versions_and_machine_and_no_secret(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "s3cret")
    monkeypatch.setenv("HF_TOKEN", "s3cret")
    found = provenance.collect()
    assert found["packages"]["torch"].startswith("2.13.0") and found["machine"]["cores"] >= 1
    assert None in (found["packages"]["gptqmodel"], found["packages"]["auto_gptq"])  # no environment holds both
    assert "s3cret" not in json.dumps(found)


def test_outside_a_git_checkout_there_is_no_commit(monkeypatch, tmp_path):
    monkeypatch.setattr(provenance, "PROJECT", tmp_path)
    assert provenance.collect()["git_commit"] is None


def test_the_origins_of_both_models_data_are_told_where_they_differ(caplog):
    def told(full: str, quantized: str) -> dict:
        data = lambda source, weights: {"quiz": {"org/quiz": {"commit": quantized if weights else full}}}  # noqa: E731
        return pipeline._data(SimpleNamespace(scorer=SimpleNamespace(data=data), source=None, weights={"quant": "rtn4"}))

    assert told("a", "a") == {"data": {"quiz": {"org/quiz": {"commit": "a"}}}} and not caplog.text
    data = {"data": {"quiz": {"org/quiz": {"commit": "b"}}}, "data_full_precision": {"quiz": {"org/quiz": {"commit": "a"}}}}
    assert told("a", "b") == data and "scored on other data, see provenance.json: quiz" in caplog.text
