"""A damaged file of a model is named in one sentence, before weights are read; broken values are named before they are used."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from bitsure.base.errors import UserError
from bitsure.base.store import Store
from bitsure.config.schema import ModelSettings
from bitsure.models.load import check_files, empty_model, load_model
from bitsure.models.locate import locate_model
from bitsure.models.offloading import blocks_on_disk
from bitsure.models.weight_content import check_finite, check_floating
from bitsure.quantize.make import ensure_quantized
from bitsure.quantize.native.rtn import Rtn
from bitsure.scoring.local.local_engine import LocalEngine
from tests.builders.damage import damage_in_place
from tests.builders.plans import plan

DAMAGE = {
    "cut": lambda content: content[: len(content) // 2],
    "list": lambda content: b"[1, 2]",
    "not UTF-8": lambda content: content[:20] + b"\xff\xfe" + content[20:],
    "nested": lambda content: b"[" * 100_000,
    "empty": lambda content: b"",
}
INDEX = "model.safetensors.index.json"
JSON_FILES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", INDEX)
WEIGHT = "model.decoder.layers.1.fc2.weight"


@pytest.fixture
def copy(tiny_model, tmp_path):
    return shutil.copytree(tiny_model, tmp_path / "copy")


def prepare(path) -> None:
    """Do what a run does with a model before weights are read."""
    check_files(locate_model(ModelSettings(path=str(path)), None).path)


def with_value(path, value: float, kind: str = "safetensors") -> None:
    weights = load_file(path / "model.safetensors")
    weights[WEIGHT][3, 5] = value
    if kind == "safetensors":
        save_file(weights, path / "model.safetensors", {"format": "pt"})
    else:
        (path / "model.safetensors").unlink()
        torch.save(weights, path / "pytorch_model.bin")


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", JSON_FILES)
def test_a_damaged_json_file_is_named(copy, name, damage):
    index = {"metadata": {}, "weight_map": dict.fromkeys(load_file(copy / "model.safetensors"), "model.safetensors")}
    (copy / INDEX).write_text(json.dumps(index))
    prepare(copy)
    (copy / name).write_bytes(DAMAGE[damage]((copy / name).read_bytes()))
    with pytest.raises(UserError, match=rf"copy/{name} (cannot be read as JSON in UTF-8|holds a JSON list)"):
        prepare(copy)


@pytest.mark.parametrize("damage", ["cut", "not UTF-8", "empty"])
def test_damaged_safetensors_are_named(copy, damage):
    (copy / "model.safetensors").write_bytes(DAMAGE[damage]((copy / "model.safetensors").read_bytes()))
    with pytest.raises(UserError, match=r"copy/model\.safetensors was cut short or damaged"):
        prepare(copy)


@pytest.mark.parametrize("damage", ["cut", "empty"])
def test_damaged_bin_files_are_named(copy, damage):
    with_value(copy, 0.0, "bin")
    (copy / "pytorch_model.bin").write_bytes(DAMAGE[damage]((copy / "pytorch_model.bin").read_bytes()))
    with pytest.raises(UserError, match=r"copy/pytorch_model\.bin was cut short or damaged"):
        prepare(copy)


@pytest.mark.parametrize("check", [check_floating, check_finite])
def test_memory_that_runs_out_while_weights_are_read_is_named_and_a_mistake_keeps_its_traceback(copy, check, monkeypatch):
    def fails(*args, **kwargs):
        raise error

    with_value(copy, 0.0, "bin")
    monkeypatch.setattr(torch, "load", fails)
    error = RuntimeError("unable to mmap 9 bytes from file <pytorch_model.bin>: Cannot allocate memory (12)")
    with pytest.raises(UserError, match=r"^Memory ran out while reading \S*copy/pytorch_model\.bin \(RuntimeError: unable"):
        check(copy)
    error = TypeError("a mistake")
    with pytest.raises(TypeError, match="a mistake"):
        check(copy)


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"weight_map": ["model.safetensors"]}', '{"weight_map": {"lm_head.weight": 3}}']
)
@pytest.mark.parametrize("shard", ["model.safetensors", "model-00001-of-00001.safetensors"])
def test_a_damaged_index_is_named(copy, content, shard):
    (copy / "model.safetensors").rename(copy / shard)
    (copy / INDEX).write_text(content)
    with pytest.raises(
        UserError, match=r"copy/model\.safetensors\.index\.json (cannot be read|holds a JSON list|has no weight_map)"
    ):
        prepare(copy)


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "no such family"},
        {"num_attention_heads": 5},
        {"hidden_size": "wide"},
        {"hidden_size": -1},
        {"dtype": "garbage"},
        {"dtype": 5},
        {"rope_parameters": "linear"},
        {"pad_token_id": 10**9},
        {"id2label": 7},
        {"_attn_implementation": "flash_attention_2"},
    ],
)
def test_a_config_that_describes_no_model_is_named(copy, changes):
    config = json.loads((copy / "config.json").read_text()) | changes
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"copy/config\.json describes no model that transformers builds"):
        prepare(copy)


def test_quantization_settings_of_another_kind_are_named(copy):
    config = json.loads((copy / "config.json").read_text()) | {"quantization_config": "gptq"}
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"copy/config\.json: quantization_config: .*dictionary"):
        prepare(copy)


def test_weights_that_the_config_has_no_place_for_are_named(copy, caplog):
    config = json.loads((copy / "config.json").read_text()) | {"num_hidden_layers": 1}
    (copy / "config.json").write_text(json.dumps(config))
    load_model(copy, "float32", "cpu")
    assert "of its weights, such as model.decoder.layers.1." in caplog.text


@pytest.mark.parametrize("name", ["tokenizer.json", "model.safetensors"])
def test_a_link_that_leads_nowhere_is_named(copy, name):
    (copy / name).unlink()
    (copy / name).symlink_to(copy / "gone")
    with pytest.raises(UserError, match=rf"copy/{name} is no file"):
        prepare(copy)


def test_an_index_without_metadata_is_named(copy):
    names = dict.fromkeys(load_file(copy / "model.safetensors"), "shard.safetensors")
    (copy / "model.safetensors").rename(copy / "shard.safetensors")
    (copy / INDEX).write_text(json.dumps({"weight_map": names}))
    with pytest.raises(UserError, match=r"index\.json has no metadata"):
        prepare(copy)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("tokenizer_config.json", {"bos_token": 5}, r"no tokenizer can be made from tokenizer\.json, tokenizer_config\.json"),
        ("generation_config.json", {"cache_implementation": "nope"}, r"generation_config\.json has settings"),
    ],
)
def test_settings_of_wrong_values_are_named(copy, name, changes, message):
    (copy / name).write_text(json.dumps(json.loads((copy / name).read_text()) | changes))
    with pytest.raises(UserError, match=message):
        prepare(copy)


def test_a_tokenizer_file_of_other_content_is_named(copy):
    (copy / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match=r"copy: no tokenizer can be made from tokenizer\.json"):
        prepare(copy)


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_weight_that_is_not_finite_is_named_in_full_precision(copy, value, kind):
    with_value(copy, value, kind)
    with pytest.raises(UserError, match=rf"1 of the 8,192 values of {WEIGHT} are NaN or infinite"):
        load_model(copy, "float32")


def test_a_weight_that_is_not_finite_is_named_before_quantizing(copy, calib_file, tmp_path, monkeypatch):
    with_value(copy, float("nan"))
    planned = plan(copy, Rtn(4, 32, True), calib_file)
    monkeypatch.setattr(Rtn, "quantize", lambda self, job: pytest.fail("it is quantized"))
    with pytest.raises(UserError, match=rf"values of {WEIGHT} are NaN or infinite"):
        ensure_quantized(planned, Store(tmp_path / "store"), tmp_path / "log")


def test_a_weight_that_float16_makes_infinite_is_named(copy):
    with_value(copy, 1e5)
    load_model(copy, "bfloat16")
    with pytest.raises(UserError, match=rf"{WEIGHT} holds values above 65,504.*model\.dtype=bfloat16"):
        load_model(copy, "float16")


def test_a_weight_that_float16_makes_infinite_is_named_before_its_block_is_left_on_disk(copy, calib_file, tmp_path):
    with_value(copy, 1e5)
    with pytest.raises(UserError, match=rf"{WEIGHT} holds values above 65,504.*model\.dtype=bfloat16"):
        load_model(copy, "float16", places=blocks_on_disk(empty_model(copy), "model.decoder.layers"))
    with pytest.raises(UserError, match=rf"{WEIGHT} holds values above 65,504"):
        ensure_quantized(plan(copy, Rtn(4, 32, True), calib_file, "float16"), Store(tmp_path / "store"), tmp_path / "log")


@pytest.mark.parametrize("mirrored", [False, True])
def test_weights_that_were_damaged_at_their_size_and_time_are_not_loaded(copy, tmp_path, mirrored):
    from bitsure.hub.mirrors import note_model

    if mirrored:
        shutil.copytree(copy, tmp_path / "mirror" / "models" / "org" / "tiny")
        copy = tmp_path / "mirror" / "models" / "org" / "tiny"
        note_model(copy, "main", 40 * "a")
    settings = ModelSettings(repo="org/tiny") if mirrored else ModelSettings(path=str(copy))
    source = locate_model(settings, str(tmp_path / "mirror"), Store(tmp_path / "store"))
    assert (source.revision is not None) == mirrored
    LocalEngine(source.load("float32")[0], 64).score([([5], [6])])
    damage_in_place(copy / "model.safetensors")
    with pytest.raises(UserError, match=r"model\.safetensors does not hold what identifies this model"):
        source.load("float32")


def test_the_hubs_cache_is_compared_with_the_names_of_its_files(copy, tmp_path):
    from bitsure.base.files import hash_file
    from bitsure.hub.mirrors import published_hashes

    blob = tmp_path / "blobs" / hash_file(copy / "model.safetensors")
    blob.parent.mkdir()
    shutil.move(copy / "model.safetensors", blob)
    (copy / "model.safetensors").symlink_to(blob)
    assert published_hashes(copy) == ((str(blob), blob.name),)


def test_weights_are_hashed_once_in_a_process(copy, tmp_path, monkeypatch):
    from bitsure.base.files import hash_file
    from bitsure.models import locate

    files = []
    monkeypatch.setattr(locate, "hash_file", lambda file: files.append(file) or hash_file(file))
    source = locate_model(ModelSettings(path=str(copy)), None, Store(tmp_path / "store"))
    source.check_content()
    source.check_content()
    assert copy / "model.safetensors" in files and len(files) == len(set(files))
