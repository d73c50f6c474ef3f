from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch

from bitsure.base.errors import UserError
from bitsure.config.schema import ModelSettings
from bitsure.models.facts import check_memory, computing_dtype, context_length, is_mixture, vocabulary_size
from bitsure.models.load import load_model
from bitsure.models.locate import locate_model
from bitsure.models.tokenizers import check_tokenizer, load_tokenizer
from bitsure.quantize.native.rtn import Rtn
from tests.builders.plans import plan


def test_the_computing_type_is_the_configs(tiny_model):
    tiny = ModelSettings(path=str(tiny_model))
    assert computing_dtype(replace(tiny, dtype="float16"), tiny_model) == "float16"
    assert computing_dtype(replace(tiny, device="cpu"), tiny_model) == "float32"


def test_on_a_gpu_a_model_is_computed_in_the_type_it_was_published_in(tiny_model, monkeypatch):
    tiny = ModelSettings(path=str(tiny_model), device="cuda")
    with pytest.raises(UserError, match=r"model\.device=cuda:7: torch finds \d GPUs here"):
        computing_dtype(replace(tiny, device="cuda:7"), tiny_model)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert computing_dtype(tiny, tiny_model) == "float32"  # config.json says so
    assert computing_dtype(replace(tiny, full_dtype="float16"), tiny_model) == "float16"


def test_the_context_length_comes_from_the_config(tiny_model, tmp_path):
    assert context_length(tiny_model) == 1024
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mamba"}))
    assert context_length(tmp_path) is None


def test_mixtures_are_known_by_their_config_and_have_a_key_of_their_own(tiny_model, calib_file, tmp_path):
    copy = shutil.copytree(tiny_model, tmp_path / "copy")
    assert not is_mixture(copy) and "mixture_format" not in plan(copy, Rtn(4, 32, True), calib_file).made_from
    config = json.loads((copy / "config.json").read_text())
    for experts, expected in ({"num_experts": 0}, False), ({"text_config": {"n_routed_experts": 8}}, True):
        (copy / "config.json").write_text(json.dumps(config | experts))
        assert is_mixture(copy) is expected
    assert plan(copy, Rtn(4, 32, True), calib_file).made_from["mixture_format"] == 2


def test_rotary_settings_that_transformers_4_would_not_find_are_refused(tiny_model, tmp_path, monkeypatch):
    copy = shutil.copytree(tiny_model, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"rope_parameters": {"rope_theta": 500000.0}}))
    for version in ("4.57.6", "5.23.0"):
        monkeypatch.setattr("bitsure.models.facts.installed_version", lambda name, version=version: version)
        if version.startswith("4"):
            with pytest.raises(UserError, match=r"copy was saved by transformers 5: .* Give the model as it was published"):
                locate_model(ModelSettings(path=str(copy)), None)
        else:
            locate_model(ModelSettings(path=str(copy)), None)


def test_a_config_whose_text_part_is_null_says_no_size_of_the_vocabulary(tmp_path):
    for config, size in (({"text_config": None}, None), ({"text_config": {"vocab_size": 9}}, 9), ({"vocab_size": 8}, 8)):
        (tmp_path / "config.json").write_text(json.dumps(config))
        assert vocabulary_size(tmp_path) == size


def test_an_id_beyond_the_embedding_is_refused_and_unused_rows_are_said(tiny_model, tmp_path, caplog):
    copy = shutil.copytree(tiny_model, tmp_path / "copy")
    tokenizer = load_tokenizer(copy)
    config = json.loads((copy / "config.json").read_text())
    rows = config["vocab_size"]
    check_tokenizer(tokenizer, copy)
    assert caplog.text == ""
    (copy / "config.json").write_text(json.dumps(config | {"vocab_size": rows + 12}))
    check_tokenizer(tokenizer, copy)
    assert f"ids end at {rows - 1}, the embedding has {rows + 12} rows: 12 are never used" in caplog.text
    (copy / "config.json").write_text(json.dumps(config))
    tokenizer.add_tokens(["<extra>"])
    tokenizer.save_pretrained(copy)
    with pytest.raises(UserError, match=rf"has the id {rows} \('<extra>'\), but the model's embedding has {rows} rows"):
        load_model(copy, "float32")


def test_memory_is_counted_for_every_copy_of_the_model_that_is_in_it_at_once(monkeypatch):
    monkeypatch.setattr("bitsure.models.facts._main_memory", lambda: 1000)
    model = ModelSettings(name="m", path="m", parameters=200, device="cpu")
    check_memory(model, "float32")
    with pytest.raises(UserError, match="200 parameters in float16 and again in float32 are"):
        check_memory(model, "float16", other_copies=["float32"])
