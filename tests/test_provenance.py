from __future__ import annotations

import json

from bitsure import provenance


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
