"""What a plan says of GPUs: how much of their memory a model takes, which one is meant, and that vLLM may be elsewhere."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks.tiny_models import build_small
from bitsure.base.errors import UserError
from bitsure.base.memo import Memo
from bitsure.base.store import Store
from bitsure.base.work import EntryCost, write_cost
from bitsure.config.vllm_settings import VllmSettings
from bitsure.models.size import parameters_of
from bitsure.scoring.served import vllm_program
from bitsure.sweep.launch import assumed_gpu, dry_run, estimate, printed_gpus, printed_plan
from bitsure.sweep.launch.assumed_gpu import A100, Gpu
from bitsure.sweep.launch.composed_cell import CellErrors
from bitsure.sweep.launch.gpu_memory import ModelOnGpus, local_batch, vllm_memory
from tests.builders.fake_vllm import install_vllm
from tests.builders.families import FALCON
from tests.builders.marks import needs_gptqmodel, needs_transformers_5
from tests.builders.sweep_commands import compose_valid
from tests.builders.tokenizers import byte_tokenizer

H200 = Gpu("NVIDIA H200", 139 * 2**30)
POCKET = ["model=pocket-llama-1m", "task.limit=5"]
VLLM = [*POCKET, "scoring.engine=vllm", "plan=true"]


@pytest.fixture(scope="module")
def llama_70b():
    """Llama 2 70B without weights, in float16."""
    sizes = {"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64}
    with torch.device("meta"):
        modules = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **sizes, num_key_value_heads=8))
    return ModelOnGpus("llama-2-70b", modules, torch.float16, 4096, 32000)


@pytest.fixture
def here(monkeypatch, tmp_path):
    """A function that puts a GPU, or none, into this machine; the store is the test's."""
    monkeypatch.setenv("BITSURE_STORE", str(tmp_path / "store"))
    monkeypatch.setattr(estimate, "gemm_speed", lambda device: 1e12)

    def put(gpu: Gpu | None) -> None:
        for module in (assumed_gpu, estimate, printed_plan, printed_gpus):
            monkeypatch.setattr(module, "gpu_here", lambda: gpu)

    put(None)
    return put


@pytest.fixture
def without_vllm(monkeypatch):
    """vLLM is not installed."""

    def missing(package):
        raise PackageNotFoundError(package)

    monkeypatch.setattr(vllm_program, "installed_version", missing)


def shown(capsys, *overrides: str, on_nodes: bool = False) -> str:
    printed_plan.show(compose_valid("quant=none", *overrides), CellErrors(), on_nodes)
    return " ".join(capsys.readouterr().out.split())


def test_vllm_shares_weights_and_keys_and_values_among_its_gpus(llama_70b):
    assert parameters_of(llama_70b.modules) == 68_976_648_192
    whole, shared = (vllm_memory(llama_70b, VllmSettings(pipeline_parallel=gpus), A100) for gpus in (1, 8))
    assert whole.weights == 2 * 68_976_648_192 == 8 * shared.weights
    assert whole.keys_values == 4096 * 80 * 2 * 8 * 128 * 2 == 8 * shared.keys_values
    assert shared.tokens == 8192 and shared.share == int(0.9 * 80 * 2**30)
    assert shared.logits == 4096 * 32000 * (2 + 4) and 8192 * 2 * 8192 < shared.activations < 2**32
    assert vllm_memory(llama_70b, VllmSettings(), H200).tokens == 16384


def test_gpus_that_share_heads_have_one_at_least(llama_70b):
    with torch.device("meta"):
        falcon = AutoModelForCausalLM.from_config(AutoConfig.for_model("falcon", **FALCON, alibi=False, multi_query=True))
    one_head = ModelOnGpus("falcon", falcon, torch.bfloat16, 2048, 300)
    sizes = {
        model.name: [vllm_memory(model, VllmSettings(tensor_parallel=gpus), A100).keys_values for gpus in (1, 4, 16)]
        for model in (one_head, llama_70b)
    }
    assert sizes["falcon"] == [2048 * 2 * 2 * 16 * 2] * 3  # tokens, layers, keys and values, width, bytes
    assert sizes["llama-2-70b"] == [4096 * 80 * 2 * heads * 128 * 2 for heads in (8, 2, 1)]


def test_latent_attention_is_counted_by_its_latent_vector():
    with torch.device("meta"):
        modules = AutoModelForCausalLM.from_config(AutoConfig.for_model("deepseek_v3"))
    model = ModelOnGpus("DeepSeek-V3", modules, torch.bfloat16, 163840, 129280)
    assert model.keys_values() == model.keys_values(8) == 163840 * 61 * (512 + 64) * 2
    text = printed_gpus._describe_server(None, model)
    assert (
        "keys and values: up to 10.7 GiB for a prompt of 163,840 tokens. 18 GPUs have room for them (A100, 80.0 GiB);" in text
    )


def test_a_batch_of_the_local_engine_takes_no_more_than_half_of_what_weights_leave(llama_70b):
    tight, empty = (local_batch(llama_70b, weights, H200) for weights in (llama_70b.weights, 0))
    assert tight == (139 * 2**30 - llama_70b.weights) // 2 < empty < 139 * 2**29
    assert local_batch(llama_70b, llama_70b.weights, A100) == 0


@pytest.mark.parametrize(("gpu", "said"), [(None, "(A100, 80.0 GiB)"), (H200, "(NVIDIA H200, 139.0 GiB)")])
def test_a_plan_says_what_each_of_several_gpus_holds(here, capsys, monkeypatch, gpu, said):
    install_vllm(monkeypatch)
    here(gpu)
    text = shown(capsys, *VLLM, "scoring.vllm.tensor_parallel=2", "scoring.vllm.pipeline_parallel=2")
    assert f"each of 4 GPUs {said} holds" in text and "of pocket-llama-1m's weights in float" in text
    assert "for a prompt of 640 tokens. A prompt's logits take up to" in text and "fit" not in text
    assert "not installed" not in text
    small = shown(capsys, *VLLM, "scoring.vllm.tensor_parallel=2", "scoring.vllm.memory_share=0.00001")
    assert "It does not fit: give more GPUs (scoring.vllm.tensor_parallel), or lower scoring.vllm.context." in small
    fuller = shown(capsys, *VLLM, "scoring.vllm.tensor_parallel=2", "scoring.vllm.memory_share=0.0001")
    assert "It may not fit: give more GPUs" in fuller  # Weights do; activations and keys and values are the most there can be.
    assert "They do not fit: lower" in shown(
        capsys, *VLLM, "scoring.vllm.tensor_parallel=2", "scoring.vllm.memory_share=0.99999"
    )


def test_a_plan_on_a_cpu_says_nothing_of_gpus(here, capsys, monkeypatch):
    install_vllm(monkeypatch)
    assert "GPU" not in shown(capsys, *POCKET) and "GPU" not in shown(capsys, *VLLM)


def test_vllm_on_a_cpu_takes_its_share_of_main_memory_or_what_its_variable_says(here, capsys, monkeypatch):
    install_vllm(monkeypatch)
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(total=100 * 2**30, available=2**30))
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    assert "up to 30.6 GiB for scoring" in shown(capsys, *VLLM, "scoring.vllm.memory_share=0.3")
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "4")
    assert "up to 5.2 GiB for scoring" in shown(capsys, *VLLM)


@pytest.mark.parametrize("given", ["abc", "1.5", ""])
def test_a_variable_that_vllm_cannot_read_is_refused_by_its_name(here, capsys, monkeypatch, given):
    install_vllm(monkeypatch)
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", given)
    with pytest.raises(UserError, match=f"VLLM_CPU_KVCACHE_SPACE={given}: vLLM reads a whole number of GiB"):
        shown(capsys, *VLLM)


def test_a_plan_for_nodes_says_what_a_gpu_holds_and_takes_time_on_one(here, capsys):
    text = shown(capsys, *POCKET, "quant=none,rtn3", on_nodes=True)
    assert f"on another machine's GPU, taken for one {assumed_gpu.A100_AT_WORK};" in text and "this machine's" not in text
    assert "a GPU (A100, 80.0 GiB) holds" in text and "keys and values included." in text
    assert printed_plan.OF_QUANTIZING in text
    spread = shown(capsys, *POCKET, "model.device_map=auto", on_nodes=True)
    assert "all GPUs (each A100, 80.0 GiB) together hold" in spread
    here(H200)
    assert "a GPU (NVIDIA H200, 139.0 GiB) holds" in shown(capsys, *POCKET, on_nodes=True)


def test_a_model_that_a_gpu_does_not_hold_is_said_to_be_too_large(here, capsys):
    here(Gpu("small", 10_000))
    assert "It does not fit: model.device_map=auto spreads it over several GPUs." in shown(capsys, *POCKET, on_nodes=True)


@needs_transformers_5
@pytest.mark.parametrize("engine", ["local", "vllm"])
def test_a_model_of_two_lists_of_blocks_is_planned_in_full_precision(here, capsys, monkeypatch, tmp_path, engine):
    install_vllm(monkeypatch)
    here(H200)
    build_small("hrm_text").save_pretrained(tmp_path / "model")
    byte_tokenizer().save_pretrained(tmp_path / "model")
    text = shown(
        capsys, "model=local", f"model.path={tmp_path / 'model'}", "task=pocket", f"scoring.engine={engine}", on_nodes=True
    )
    assert "of model's weights in float32" in text and " for scoring" in text


@pytest.mark.parametrize(
    "overrides",
    [
        [*VLLM, "quant=rtn4", "scoring.vllm.memory_share=0.00001"],
        pytest.param([*POCKET, "quant=gptq4", "quant.backend=gptqmodel"], marks=needs_gptqmodel),
    ],
)
def test_a_plan_does_not_know_how_large_packed_weights_are(here, monkeypatch, overrides):
    install_vllm(monkeypatch)
    here(Gpu("small", 10_000))
    cells = compose_valid(*overrides, "scoring.dequantize=false", "model.dtype=bfloat16")
    [planned] = dry_run.inspect_cells(cells, CellErrors(), Memo())
    pieces = list(planned.pieces.values())
    [packed] = printed_gpus.sentences([piece for piece in pieces if not piece.is_baseline], Memo(), on_nodes=True)
    [with_baseline] = printed_gpus.sentences(pieces, Memo(), on_nodes=True)
    assert packed.endswith(printed_gpus.PACKED) and "does not fit" not in packed
    assert printed_gpus.PACKED not in with_baseline and "It does not fit" in with_baseline


def test_without_vllm_a_plan_goes_on_and_a_run_is_refused(here, capsys, without_vllm, tmp_path):
    text = shown(capsys, *VLLM)
    assert "vLLM is not installed here, and must be where this runs: on a machine with GPUs run python -m pip install" in text
    assert "make setup-vllm" in text and "a GPU (A100, 80.0 GiB) holds" in text
    assert "1.2 GiB for scoring" in text  # of main memory: two processes
    [asked], errors = compose_valid("quant=none", *VLLM[:-1]), CellErrors()
    dry_run.inspect_cells([asked], errors, Memo())
    [refused] = errors.lines()
    assert "scoring.engine=vllm needs vLLM, which is not installed" in refused


def test_without_vllm_a_plan_is_for_the_type_of_a_gpu_and_its_temporary_files_are_elsewhere(here, without_vllm, monkeypatch):
    def too_small(*given):
        raise UserError("no room in TMPDIR")

    monkeypatch.setattr("bitsure.quantize.checkpoint.disk_space.check_unpacked", too_small)
    errors = CellErrors()
    [planned] = dry_run.inspect_cells(compose_valid("quant=rtn3", *VLLM, "model.full_dtype=bfloat16"), errors, Memo())
    assert errors.lines() == [] and {piece.run.dtype for piece in planned.pieces.values()} == {"bfloat16"}


def test_what_a_cpu_took_is_no_measure_of_a_gpu_and_several_gpus_are_as_fast_together(here, tmp_path, monkeypatch):
    install_vllm(monkeypatch)
    here(H200)
    [planned] = dry_run.inspect_cells(
        compose_valid("quant=none", *VLLM, "scoring.vllm.tensor_parallel=4"), CellErrors(), Memo()
    )
    piece, store = next(iter(planned.pieces.values())), Store(tmp_path / "store")
    for number, (seconds, gpu_bytes) in enumerate([(1e6, None), (50.0, 0)]):
        made_from = {"task": "t", "limit": None, "number": number, "parallel": [2, 1]}
        with store.create("records", made_from) as entry:
            write_cost(entry, EntryCost("vllm", seconds, 1e9, peak_gpu_memory_bytes=gpu_bytes))
    assert estimate.WorkEstimator(store, Memo())._seconds("vllm", 1e9, piece) == pytest.approx(25)
