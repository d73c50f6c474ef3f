from __future__ import annotations

import json
import shutil

import pytest
import torch

from bitsure import models
from bitsure.config import Model
from bitsure.errors import UserError
from bitsure.store import Store


def test_a_directory_is_identified_by_its_content(tiny_model, tmp_path):
    copy = shutil.copytree(tiny_model, tmp_path / "copy")
    original = models.locate(Model(path=str(tiny_model)), None)
    assert original.name == "tiny" and original.revision is None
    assert models.locate(Model(path=str(copy)), None).fingerprint == original.fingerprint
    (copy / "config.json").write_text((copy / "config.json").read_text() + " ")
    assert models.locate(Model(path=str(copy)), None).fingerprint != original.fingerprint


def test_a_repository_is_found_in_the_mirror(tiny_model, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "models" / "org" / "name")
    source = models.locate(Model(repo="org/name"), str(tmp_path))
    assert (source.name, source.path) == ("name", tmp_path / "models" / "org" / "name")


def test_an_unreachable_hub_says_the_ways_out(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # nobody answers there
    with pytest.raises(UserError, match=r"the mirror .* has no models/org/none.*\n.*paths\.hub_mirror=DIR"):
        models.locate(Model(repo="org/none"), str(tmp_path))


def test_the_computing_type_is_the_configs(tiny_model):
    assert models.load(tiny_model, "bfloat16")[0].dtype == torch.bfloat16
    assert models.computing_dtype("float16", tiny_model) == "float16"
    if not torch.cuda.is_available():
        assert models.computing_dtype("auto", tiny_model) == "float32"


def test_bin_weights_are_read_by_the_weights_only_loader(tiny_model, tmp_path):
    copy = shutil.copytree(tiny_model, tmp_path / "copy")
    model, _ = models.load(tiny_model, "float32")
    (copy / "model.safetensors").unlink()
    torch.save(model.state_dict(), copy / "pytorch_model.bin")
    assert torch.equal(models.load(copy, "float32")[0].lm_head.weight, model.lm_head.weight)

    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "exploded"), "w"))

    torch.save({"lm_head.weight": Bomb()}, copy / "pytorch_model.bin")
    with pytest.raises(Exception, match=r"[Ww]eights"):
        models.load(copy, "float32")
    assert not (tmp_path / "exploded").exists()


def test_an_empty_model_has_shapes_and_no_weights(tiny_model):
    model = models.empty_model(tiny_model)
    assert model.lm_head.weight.shape == (288, 64) and model.lm_head.weight.is_meta


def test_the_context_length_comes_from_the_config(tiny_model, tmp_path):
    assert models.context_length(tiny_model) == 1024
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mamba"}))
    assert models.context_length(tmp_path) is None


def test_a_tokenizer_that_transformers_5_saved_is_read_by_4_too(tiny_model, tmp_path):
    copy = shutil.copytree(tiny_model, tmp_path / "copy")
    settings = json.loads((copy / "tokenizer_config.json").read_text())
    (copy / "tokenizer_config.json").write_text(json.dumps(settings | {"tokenizer_class": "TokenizersBackend"}))
    text = "the quick brown fox"
    assert models.load_tokenizer(copy)(text)["input_ids"] == models.load_tokenizer(tiny_model)(text)["input_ids"]


def test_rotary_settings_that_transformers_4_would_not_find_are_refused(tiny_model, tmp_path, monkeypatch):
    copy = shutil.copytree(tiny_model, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"rope_parameters": {"rope_theta": 500000.0}}))
    for version in ("4.57.6", "5.23.0"):
        monkeypatch.setattr(models, "version", lambda name, version=version: version)
        if version.startswith("4"):
            with pytest.raises(UserError, match=r"copy was saved by transformers 5: .* Give the model as it was published"):
                models.locate(Model(path=str(copy)), None)
        else:
            models.locate(Model(path=str(copy)), None)


def test_parameters_are_counted_once_and_tied_ones_too(tiny_model, tmp_path, monkeypatch):
    source, store = models.locate(Model(path=str(tiny_model)), None), Store(tmp_path)
    measured = models.measure(source, store)
    network, _ = models.load(tiny_model, "float32")
    assert measured["parameters"] == sum(parameter.numel() for parameter in network.parameters())
    assert measured["bytes_on_disk"] == (tiny_model / "model.safetensors").stat().st_size
    monkeypatch.setattr(models, "empty_model", lambda path: pytest.fail("counted again"))
    assert models.measure(source, store) == measured
