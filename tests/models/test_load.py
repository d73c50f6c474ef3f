from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from bitsure.base import hashing
from bitsure.base.errors import UserError
from bitsure.base.store import Store
from bitsure.config.schema import ModelSettings, ScoringSettings, TaskSettings
from bitsure.models.load import empty_model, load_model
from bitsure.models.locate import locate_model
from bitsure.models.size import measure_size
from bitsure.models.tokenizers import load_tokenizer
from bitsure.models.weight_files import stored_bits, stored_types
from bitsure.quantize.walk.targets import block_linears
from bitsure.scoring.local.local_engine import LocalEngine
from bitsure.scoring.question_source import locate_questions
from bitsure.scoring.scorer import Scorer
from tests.builders.families import FAMILIES, build
from tests.builders.tokenizers import byte_tokenizer

MAMBA = {"vocab_size": 300, "hidden_size": 64, "num_hidden_layers": 2, "state_size": 8}


def test_a_directory_is_identified_by_its_content(tiny_model, tmp_path):
    copy = shutil.copytree(tiny_model, tmp_path / "copy")
    original = locate_model(ModelSettings(path=str(tiny_model)), None)
    assert original.name == "tiny" and original.revision is None
    assert locate_model(ModelSettings(path=str(copy)), None).fingerprint == original.fingerprint
    (copy / "config.json").write_text((copy / "config.json").read_text() + " ")
    assert locate_model(ModelSettings(path=str(copy)), None).fingerprint != original.fingerprint


@pytest.mark.parametrize("where", [{"path": "models/org/copy"}, {"repo": "org/copy"}], ids=["local", "mirrored"])
def test_weights_that_have_not_changed_are_hashed_once_for_all_processes_of_a_store(tiny_model, tmp_path, monkeypatch, where):
    copy, hash_file, read = shutil.copytree(tiny_model, tmp_path / "models" / "org" / "copy"), hashing.hash_file, []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hashing, "hash_file", lambda path: read.append(path.name) or hash_file(path))
    found = lambda: locate_model(ModelSettings(**where), str(tmp_path), Store(tmp_path / "store")).fingerprint  # noqa: E731
    first = found()
    assert first == locate_model(ModelSettings(path=str(tiny_model)), None).fingerprint and "model.safetensors" in read
    read.clear()
    assert found() == first and "model.safetensors" not in read
    (copy / "config.json").touch()
    assert found() == first and "model.safetensors" in read
    weights = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))  # as long as before
    assert found() != first


def test_float32_is_exact_also_in_an_environment_that_allows_tf32(tiny_model):
    torch.set_float32_matmul_precision("high")  # as TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=1 does in NVIDIA's containers
    torch.backends.cudnn.allow_tf32 = True  # as it is in every environment
    load_model(tiny_model, "float32")
    assert torch.get_float32_matmul_precision() == "highest" and not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32


def test_a_repository_is_found_in_the_mirror(tiny_model, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "models" / "org" / "name")
    source = locate_model(ModelSettings(repo="org/name"), str(tmp_path))
    assert (source.name, source.path) == ("name", tmp_path / "models" / "org" / "name")


def test_an_unreachable_hub_says_the_ways_out(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # nobody answers there
    with pytest.raises(UserError, match=r"the mirror .* has no models/org/none.*\n.*paths\.hub_mirror=DIR"):
        locate_model(ModelSettings(repo="org/none"), str(tmp_path))


def test_weights_are_loaded_in_the_type_that_is_asked_for(tiny_model):
    assert load_model(tiny_model, "bfloat16")[0].dtype == torch.bfloat16


def test_bin_weights_are_read_by_the_weights_only_loader(tiny_model, tmp_path):
    copy = shutil.copytree(tiny_model, tmp_path / "copy")
    model, _ = load_model(tiny_model, "float32")
    (copy / "model.safetensors").unlink()
    torch.save(model.state_dict(), copy / "pytorch_model.bin")
    assert torch.equal(load_model(copy, "float32")[0].lm_head.weight, model.lm_head.weight)

    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "exploded"), "w"))

    torch.save({"lm_head.weight": Bomb()}, copy / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"pytorch_model\.bin holds other things than weights"):
        load_model(copy, "float32")
    assert not (tmp_path / "exploded").exists()


def test_bits_as_stored_are_those_of_numbers_whatever_masks_and_headers_take(tmp_path):
    half, whole = {"a.weight": torch.ones(10, 10).half()}, {"b.weight": torch.ones(5, 20)}
    save_file(half | {"mask": torch.ones(64, 64, dtype=torch.bool)}, tmp_path / "model.safetensors")
    assert stored_types(tmp_path) == {"F16": 100, "BOOL": 4096}
    assert stored_bits(tmp_path, 100) == 16
    save_file(half | whole, tmp_path / "model.safetensors")
    assert stored_bits(tmp_path, 200) == 24
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(bytes(230))
    assert stored_bits(tmp_path, 100) == 16


def test_an_empty_model_has_shapes_and_no_weights(tiny_model):
    model = empty_model(tiny_model)
    assert model.lm_head.weight.shape == (288, 64) and model.lm_head.weight.is_meta


def test_a_directory_without_a_tokenizer_is_refused(tiny_model, tmp_path):
    for file in ("config.json", "model.safetensors"):
        shutil.copy(tiny_model / file, tmp_path)
    without = r"holds no tokenizer\.json or tokenizer\.model: copy it from the model's repository\.$"
    with pytest.raises(UserError, match=without):
        load_tokenizer(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "llama"}))  # transformers 5 converts nothing
    with pytest.raises(UserError, match=without):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(UserError, match=without):
        load_tokenizer(tmp_path)


def test_a_tokenizer_that_transformers_5_saved_is_read_by_4_too(tiny_model, tmp_path):
    copy = shutil.copytree(tiny_model, tmp_path / "copy")
    settings = json.loads((copy / "tokenizer_config.json").read_text())
    (copy / "tokenizer_config.json").write_text(json.dumps(settings | {"tokenizer_class": "TokenizersBackend"}))
    text = "the quick brown fox"
    assert load_tokenizer(copy)(text)["input_ids"] == load_tokenizer(tiny_model)(text)["input_ids"]


def test_shards_that_are_missing_are_named(tiny_model, tmp_path):
    copy = shutil.copytree(tiny_model, tmp_path / "copy")
    (copy / "model.safetensors").rename(copy / "model-00001-of-00002.safetensors")
    names = {"a.weight": "model-00001-of-00002.safetensors", "b.weight": "model-00002-of-00002.safetensors"}
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    with pytest.raises(UserError, match=r"copy lacks model-00002-of-00002\.safetensors, which its index names"):
        locate_model(ModelSettings(path=str(copy)), None)


@pytest.mark.parametrize("named", ["../outside/shard.safetensors", "linked.safetensors", "folder/shard.safetensors"])
def test_shards_are_identified_wherever_they_lie_and_by_what_a_link_leads_to(tiny_model, tmp_path, named):
    copy, store = shutil.copytree(tiny_model, tmp_path / "copy"), Store(tmp_path / "store")
    shard, other = tmp_path / "outside" / "shard.safetensors", tmp_path / "outside" / "other.safetensors"
    shard.parent.mkdir()
    (copy / "model.safetensors").rename(shard)
    save_file({name: weight + 1 for name, weight in load_file(shard).items()}, other, {"format": "pt"})
    assert other.stat().st_size == shard.stat().st_size
    os.utime(other, ns=(shard.stat().st_atime_ns, shard.stat().st_mtime_ns))
    (copy / "linked.safetensors").symlink_to(shard)
    (copy / "folder").symlink_to(shard.parent)
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a.weight": named}}))
    if named != "linked.safetensors":
        (copy / "linked.safetensors").unlink()
    before = locate_model(ModelSettings(path=str(copy)), None, store)
    assert str(shard) in dict(before.files)
    if named == "linked.safetensors":
        (copy / named).unlink()
        (copy / named).symlink_to(other)
    else:
        other.replace(shard)  # of the same size and time
    assert locate_model(ModelSettings(path=str(copy)), None, store).fingerprint != before.fingerprint


@pytest.mark.parametrize("kind", ["safetensors", "bin", "spread"])
def test_weights_that_are_missing_or_of_another_shape_are_named(tiny_model, tmp_path, kind):
    copy = shutil.copytree(tiny_model, tmp_path / "copy")
    weights = load_file(copy / "model.safetensors")
    del weights["model.decoder.layers.1.fc1.weight"]
    weights["model.decoder.layers.0.fc2.weight"] = weights["model.decoder.layers.0.fc2.weight"][:, :100].contiguous()
    if kind == "bin":
        (copy / "model.safetensors").unlink()
        torch.save(weights, copy / "pytorch_model.bin")
    else:
        save_file(weights, copy / "model.safetensors", {"format": "pt"})
    settings = ModelSettings(path=str(copy), device_map="auto" if kind == "spread" else None)
    with pytest.raises(
        UserError, match=r"copy has no weights for .*1\.fc1\.weight and has weights of another shape .*0\.fc2\.weight:"
    ):
        load_model(copy, "float32", settings=settings)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_of_any_family_as_it_was_saved_lacks_nothing(family, tmp_path):
    build(family, **FAMILIES[family]).save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    load_model(tmp_path, "float32", "cpu")


@pytest.mark.parametrize("trusted", [False, True])
def test_a_tokenizer_of_its_own_code_is_loaded_where_that_is_trusted(tiny_model, monkeypatch, trusted):
    source = locate_model(ModelSettings(path=str(tiny_model), device="cpu", trust_remote_code=trusted), None)
    asked, devices = [], []
    monkeypatch.setattr("bitsure.models.locate.load_tokenizer", lambda path, trusted=False: asked.append(trusted))
    monkeypatch.setattr("bitsure.scoring.prompting.check_prompting", lambda tokenizer, task: None)
    questions = locate_questions(TaskSettings(name="own", names=["t"], chat_template=True), None)
    scorer = Scorer(questions, ScoringSettings(dequantize=False), "float32", None, Path(os.devnull))
    scorer.check_prompting(source)
    load_packed = "bitsure.quantize.libraries.gptqmodel.load_packed"
    monkeypatch.setattr(load_packed, lambda checkpoint, dtype, device: devices.append(device))
    scorer.setup.load(source, Path("checkpoint"))
    assert asked == [trusted, trusted] and devices == ["cpu"]


def test_remote_code_is_run_only_if_it_is_asked_for(tiny_model, tmp_path):
    copy = shutil.copytree(tiny_model, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text()) | {"model_type": "homemade", "architectures": ["Homemade"]}
    config["auto_map"] = {"AutoConfig": "homemade.Config", "AutoModelForCausalLM": "homemade.Model"}
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "homemade.py").write_text(
        f"open({str(tmp_path / 'ran')!r}, 'w')\nfrom transformers import OPTConfig, OPTForCausalLM\n"
        "class Config(OPTConfig):\n    model_type = 'homemade'\nclass Model(OPTForCausalLM):\n    config_class = Config\n"
    )
    with pytest.raises(UserError, match=r"transformers has none for 'homemade'\. .* model\.trust_remote_code=true"):
        locate_model(ModelSettings(path=str(copy)), None)
    assert not (tmp_path / "ran").exists()
    trusted = ModelSettings(path=str(copy), trust_remote_code=True)
    source = locate_model(trusted, None)
    assert load_model(source.path, "float32", settings=trusted)[0].lm_head.weight.shape == (288, 64)
    assert (tmp_path / "ran").exists()
    (copy / "homemade.py").write_text((copy / "homemade.py").read_text() + "\n")
    assert locate_model(trusted, None).fingerprint != source.fingerprint


def test_mamba_is_scored_and_runs_every_layer_that_is_quantized():
    model = build("mamba", **MAMBA)
    called: set[str] = set()
    for name, layer in block_linears(model).items():
        layer.register_forward_hook(lambda *_, name=name: called.add(name))
    model(torch.tensor([[5, 6, 7, 8]]))
    assert called == block_linears(model).keys()
    [scored] = LocalEngine(model, 64).score([([5, 6, 7], [8, 9])])
    with torch.inference_mode():
        expected = model(torch.tensor([[5, 6, 7, 8]])).logits[0].log_softmax(-1)
    assert scored.token_logprobs == pytest.approx([expected[2, 8].item(), expected[3, 9].item()], abs=1e-4)


def test_parameters_are_counted_once_and_tied_ones_too(tiny_model, tmp_path, monkeypatch):
    source, store = locate_model(ModelSettings(path=str(tiny_model)), None), Store(tmp_path)
    measured = measure_size(source, store)
    network, _ = load_model(tiny_model, "float32")
    assert measured.parameters == sum(parameter.numel() for parameter in network.parameters())
    assert measured.bytes_on_disk == (tiny_model / "model.safetensors").stat().st_size
    monkeypatch.setattr("bitsure.models.size.empty_model", lambda *given: pytest.fail("counted again"))
    assert measure_size(source, store) == measured
