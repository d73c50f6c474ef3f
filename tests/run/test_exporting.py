"""An exported model computes what was scored, in programs that load published layouts; nothing half done is left."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard

from bitsure.base.errors import UserError
from bitsure.base.files import hash_file
from bitsure.config.model import ModelSettings
from bitsure.config.number_formats import KeysValues
from bitsure.models.load import load_model
from bitsure.quantize.checkpoint import publish
from bitsure.quantize.checkpoint.apply_checkpoint import put_into
from bitsure.quantize.checkpoint.read_checkpoint import load_checkpoint
from bitsure.quantize.libraries.llama_cpp import LlamaCpp
from bitsure.quantize.native.kept import Kept
from bitsure.quantize.native.rtn import Rtn
from bitsure.quantize.walk.targets import block_linears, matrix
from bitsure.results import Comparison, Quantization, Verdict, read
from bitsure.run import exporting
from bitsure.run.exporting import export_run
from tests.builders.exported_runs import run_of
from tests.builders.marks import library
from tests.builders.plans import save_family

TOKENS = torch.randint(3, 290, (2, 24), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def llama(tmp_path_factory, tiny_model):
    """A Llama on disk, of widths that every layout has room for."""
    path = tmp_path_factory.mktemp("llama") / "model"
    save_family("llama", path, tiny_model)
    return path


@pytest.fixture(scope="module")
def symmetric(tmp_path_factory, llama, calib_file):
    """A run of symmetric 4-bit integers in groups of 32."""
    return run_of(tmp_path_factory.mktemp("symmetric"), llama, Rtn(4, 32, True), calib_file)


@pytest.fixture(scope="module")
def asymmetric(tmp_path_factory, llama, calib_file):
    """A run of asymmetric 4-bit integers in groups of 32."""
    return run_of(tmp_path_factory.mktemp("asymmetric"), llama, Rtn(4, 32, False), calib_file)


def scored_model(run: Path, llama: Path):
    """The model that the run scored."""
    model, _ = load_model(llama, "float32", "cpu")
    put_into(model, Path(read(run / "quantization.json", Quantization).checkpoint))
    return model


def logprobs(model) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=TOKENS, use_cache=False).logits.float().log_softmax(-1)


def test_the_command_ends_with_what_to_do_next_and_a_verdict_that_warns(symmetric, tmp_path, capsys):
    export_run(symmetric, tmp_path / "out")
    exported, next_step, verdict = capsys.readouterr().out.splitlines()
    assert exported == f"exported as gptq: {tmp_path / 'out'}"
    assert next_step.startswith(f"next: pip install gptqmodel optimum; {tmp_path / 'out' / 'README.md'} has the lines")
    decision = read(symmetric / "verdict.json", Verdict)
    assert verdict == f"verdict of the run: {decision.badge}. {decision.sentence}"


def test_transformers_computes_what_was_scored(symmetric, llama, tmp_path):
    library("compressed_tensors")
    from transformers import AutoModelForCausalLM

    export_run(symmetric, tmp_path / "out", "compressed-tensors")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    torch.testing.assert_close(logprobs(loaded), logprobs(scored_model(symmetric, llama)), rtol=0, atol=1e-5)
    assert (tmp_path / "out" / "model.safetensors").stat().st_size < 0.7 * (llama / "model.safetensors").stat().st_size


def test_transformers_unpacks_zero_points(asymmetric, llama, tmp_path):
    library("compressed_tensors")
    from transformers import AutoModelForCausalLM, CompressedTensorsConfig

    export_run(asymmetric, tmp_path / "out", "compressed-tensors")
    unpacked = CompressedTensorsConfig(dequantize=True)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32, quantization_config=unpacked)
    expected = logprobs(scored_model(asymmetric, llama))
    torch.testing.assert_close(logprobs(loaded), expected, rtol=0, atol=2e-2)  # the library rounds weights to float16
    assert "CompressedTensorsConfig(dequantize=True)" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize(("run", "variant"), [("symmetric", "gptq"), ("asymmetric", "gptq_v2")])
def test_the_layout_of_gptq_holds_every_weight_that_was_scored(run, variant, llama, tmp_path, request):
    run = request.getfixturevalue(run)
    export_run(run, tmp_path / "out")
    settings = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert (settings["checkpoint_format"], settings["bits"], settings["group_size"]) == (variant, 4, 32)
    assert ("from vllm import LLM" in (tmp_path / "out" / "README.md").read_text()) == (
        variant == "gptq"
    )  # the newer is refused
    full, _ = load_model(llama, "float32", "cpu")
    exported, scored = load_checkpoint(tmp_path / "out", full), scored_model(run, llama)
    assert exported.weights.keys() == block_linears(scored).keys()
    for name, layer in block_linears(scored).items():
        assert torch.equal(exported.weights[name].dequantize(), matrix(layer)), name
    for name, tensor in exported.others.items():
        assert torch.equal(tensor.float(), scored.state_dict()[name]), name


@pytest.mark.slow  # importing gptqmodel takes seconds
@pytest.mark.parametrize("run", ["symmetric", "asymmetric"])
def test_gptqmodel_computes_what_was_scored(run, llama, tmp_path, request):
    library("gptqmodel")
    from bitsure.quantize.libraries.gptqmodel import load_packed

    run = request.getfixturevalue(run)
    export_run(run, tmp_path / "out", "gptq")
    packed, scored = load_packed(tmp_path / "out", "float16"), scored_model(run, llama)
    for name, layer in block_linears(scored).items():
        weight = packed.get_submodule(name).dequantize_weight().T.float()
        torch.testing.assert_close(weight, matrix(layer), rtol=2**-10, atol=1e-6)
    torch.testing.assert_close(logprobs(packed), logprobs(scored), rtol=0, atol=5e-2)


def test_the_card_has_the_runs_numbers_and_a_block_that_the_hub_reads(symmetric, tmp_path):
    export_run(symmetric, tmp_path / "out")
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.base_model == "org/tiny" and card.data["base_model_relation"] == "quantized"
    accuracy = read(symmetric / "comparison.json", Comparison)["t"]["accuracy"]
    [result] = [result for result in card.data.eval_results if result.metric_type == "accuracy"]
    assert (result.dataset_name, result.metric_value) == ("t", accuracy.quantized)
    low, high = f"{accuracy.ci_low:+.4f}", f"{accuracy.ci_high:+.4f}"
    assert f"| t | accuracy | 60 | {accuracy.baseline:.4f} | {accuracy.quantized:.4f} |" in card.text
    assert f"[{low}, {high}]" in card.text and "60 of 2,376 questions" in card.text
    assert "weights: 4.625 bits" in card.text and "few-shot examples: 0" in card.text
    verdict = read(symmetric / "verdict.json", Verdict)
    assert f"**{verdict.badge.capitalize()}.** {verdict.sentence}" in card.text
    assert f"- {verdict.tasks['t'].sentence}" in card.text
    assert card.text.count("from_pretrained") == 2 and "LLM('out')" in card.text


def test_the_hashes_of_the_card_are_those_of_the_files(symmetric, tmp_path):
    export_run(symmetric, tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    assert hash_file(tmp_path / "out" / "model.safetensors") in text
    assert json.loads((symmetric / "provenance.json").read_text())["model"]["fingerprint"] in text


def test_ties_are_written_once_and_empty_tensors_and_views_are_kept():
    model = torch.nn.Module()
    model.a = model.tied = torch.nn.Parameter(torch.ones(4, 2))
    model.register_buffer("row", model.a.data[0])
    model.register_buffer("none", torch.empty(0))
    model.register_buffer("nothing", torch.empty(0))
    assert set(publish._without_ties(model)) == {"a", "row", "none", "nothing"}


def test_bits_without_kernels_of_gptq_go_into_the_other_layout(llama, calib_file, tmp_path):
    run = run_of(tmp_path, llama, Rtn(5, -1, True, transforms=["clip"]), calib_file)
    with pytest.raises(UserError, match=r"has 5 bits; transformers loads 2, 3, 4, 8.*--format compressed-tensors"):
        export_run(run, tmp_path / "out", "gptq")
    export_run(run, tmp_path / "out")
    settings = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert settings["config_groups"]["group_0"]["weights"]["strategy"] == "channel"


def test_layers_of_other_classes_go_into_the_layout_of_gptq(tiny_model, calib_file, tmp_path):
    save_family("gpt2", tmp_path / "model", tiny_model)
    run = run_of(tmp_path, tmp_path / "model", Rtn(4, 32, True), calib_file)
    with pytest.raises(UserError, match="is a Conv1D, into which it is not loaded"):
        export_run(run, tmp_path / "out", "compressed-tensors")
    export_run(run, tmp_path / "out")
    full, _ = load_model(tmp_path / "model", "float32", "cpu")
    assert load_checkpoint(tmp_path / "out", full).weights.keys() == block_linears(full).keys()


def test_the_full_precision_model_may_be_a_gguf_file_of_the_hub(symmetric, monkeypatch):
    run = exporting._read_run(symmetric)
    run.config["model"] = {"name": "m", "repo": "org/name", "file": "m-F16.gguf", "device": "auto"}
    monkeypatch.setattr(exporting, "locate_model", lambda settings, *_: settings)
    run = replace(run, provenance=run.provenance.model_copy(update={"model": None}))
    assert exporting._source(run) == ModelSettings(name="m", repo="org/name", file="m-F16.gguf")


def test_a_gguf_file_is_copied_beside_a_card(tiny_llama, symmetric, calib_file, tmp_path):
    library("libgguf")
    run = run_of(tmp_path, tiny_llama, LlamaCpp("q4_k_m"), calib_file)
    export_run(run, tmp_path / "out")
    written = Path(read(run / "quantization.json", Quantization).checkpoint)
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"model.gguf", "README.md"}
    assert (tmp_path / "out" / "model.gguf").read_bytes() == written.read_bytes()
    card = (tmp_path / "out" / "README.md").read_text()
    assert "llama-cli -m out/model.gguf" in card and hash_file(written) in card and "transformers\npipeline" not in card
    with pytest.raises(UserError, match=r"q4_k_m wrote a GGUF file, whose blocks gptq has no room for.*--format gguf"):
        export_run(run, tmp_path / "other", "gptq")
    with pytest.raises(UserError, match=r"wrote no GGUF file; quant=q4_k_m"):
        export_run(symmetric, tmp_path / "other", "gguf")
    with written.open("ab") as file:
        file.write(b"0")
    with pytest.raises(UserError, match=r"is no longer in the store, or is damaged"):
        export_run(run, tmp_path / "other")


def test_scales_of_input_channels_have_no_layout(llama, calib_file, tmp_path):
    run = run_of(tmp_path, llama, Rtn(4, 32, True, transforms=["scale"]), calib_file)
    with pytest.raises(UserError, match=r"needs input_scales in model.layers.*Weights can be exported that are integers"):
        export_run(run, tmp_path / "out")


def test_keys_and_values_alone_have_no_checkpoint_to_export(llama, calib_file, tmp_path):
    run = run_of(tmp_path, llama, Kept(kv=KeysValues(4)), calib_file)
    with pytest.raises(UserError, match=r"rounds keys and values while.*Its weights are those of full precision"):
        export_run(run, tmp_path / "out")


def copied(run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(run, tmp_path / "copy")


def without_proof(run: Path) -> None:
    (run / "quantization.json").unlink()


def without_metrics(run: Path) -> None:
    (run / "metrics.json").unlink()


def elsewhere(run: Path) -> None:
    proof = read(run / "quantization.json", Quantization)
    text = (run / "quantization.json").read_text().replace(str(proof.checkpoint), str(run / "weights" / "gone"))
    (run / "quantization.json").write_text(text)


def of_another_model(run: Path) -> None:
    origin = json.loads((run / "provenance.json").read_text())
    origin["model"]["fingerprint"] = "another"
    (run / "provenance.json").write_text(json.dumps(origin))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_proof, "is a run in full precision"),
        (without_metrics, "and a finished run's is needed"),
        (elsewhere, "is no longer in the store, or is damaged"),
        (of_another_model, "is not the model that .* quantized"),
    ],
)
def test_a_run_without_what_an_export_needs_is_one_sentence(symmetric, change, message, tmp_path):
    run = copied(symmetric, tmp_path)
    change(run)
    with pytest.raises(UserError, match=message):
        export_run(run, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


def test_no_such_run_and_a_directory_in_use(symmetric, tmp_path):
    with pytest.raises(UserError, match="no such directory"):
        export_run(tmp_path / "none", tmp_path / "out")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").touch()
    with pytest.raises(UserError, match="is not empty"):
        export_run(symmetric, tmp_path / "used")


def test_what_is_written_is_whole_or_not_there(symmetric, tmp_path, monkeypatch):
    def fail(*given):
        raise UserError("no")

    monkeypatch.setattr(exporting, "model_card", fail)
    with pytest.raises(UserError, match="no"):
        export_run(symmetric, tmp_path / "out")
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    (tmp_path / "out").mkdir()  # an empty directory is used
    export_run(symmetric, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
