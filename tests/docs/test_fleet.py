"""The commands of docs/scale.md for several GPUs and machines: each is planned, with small stand-ins for what is not here."""

from __future__ import annotations

import pytest

from bitsure.config.paths import PROJECT
from bitsure.quantize import plan
from bitsure.sweep.launch import printed_plan
from bitsure.sweep.launch.callback import is_elsewhere
from bitsure.sweep.launch.composing import compose_cells
from tests.builders.documents import FENCE, commands
from tests.builders.fake_vllm import install_vllm
from tests.builders.families import FAMILIES, build
from tests.builders.loopback_server import serve_completions
from tests.builders.marks import needs_gptqmodel
from tests.builders.sweep_commands import command
from tests.builders.tokenizers import byte_tokenizer

FLEET = (PROJECT / "docs" / "scale.md").read_text(encoding="utf-8").partition("\n## A fleet\n")[2].partition("\n## ")[0]
SHELL = [words for block in FENCE.finditer(FLEET) for words in commands(block["text"])]
COMMANDS = [words[2:] for words in SHELL if words[:2] == ["python", "main.py"]]
OPT = {"hidden_size": 128, "word_embed_proj_dim": 128, "ffn_dim": 256}
STAND_INS = {  # repository → its family, and the settings of a small random model of it
    "meta-llama/Llama-2-70b-hf": ("llama", {"hidden_size": 128, "intermediate_size": 256}),
    "tiiuae/falcon-180B": ("falcon", {"hidden_size": 128}),
    **{f"facebook/opt-{size}": ("opt", OPT) for size in ("125m", "1.3b", "6.7b", "13b")},
}
ASSUMED = {  # what a plan has to say of the GPUs that its estimate is for: of time, of memory
    "model=served": (
        "A server that was never scored with is taken for one A100 in bfloat16 at a third of its peak.",
        "1 GPU has room for them (A100, 80.0 GiB); activations take more.",
    ),
    "scoring.vllm.pipeline_parallel=2": (
        "otherwise of 16 GPUs, each one A100 in bfloat16 at a third of its peak.",
        "each of 16 GPUs (A100, 80.0 GiB) holds",
    ),
    "scoring.vllm.tensor_parallel=8": (
        "otherwise of 8 GPUs, each one A100 in bfloat16 at a third of its peak.",
        "each of 8 GPUs (A100, 80.0 GiB) holds",
    ),
    "hydra/launcher=submitit_slurm": (
        "on another machine's GPU, taken for one A100 in bfloat16 at a third of its peak;",
        "a GPU (A100, 80.0 GiB) holds",
    ),
}


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    """A mirror with a small random model in the place of each that the commands name."""
    folder = tmp_path_factory.mktemp("mirror")
    for repo, (family, settings) in STAND_INS.items():
        build(family, **FAMILIES[family] | settings).save_pretrained(folder / "models" / repo)
        byte_tokenizer().save_pretrained(folder / "models" / repo)
    return folder


@pytest.fixture
def here(mirror, own_tasks, tmp_path, monkeypatch):
    """A function that puts what is here in the place of what a command names; the stand-ins are up until the test ends."""
    install_vllm(monkeypatch)
    monkeypatch.setattr(plan, "installed_version", lambda library: "1.0")  # a plan imports none of the quantizers' libraries
    monkeypatch.setenv("BITSURE_STORE", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "calib.txt").write_text("A cat and a dog. " * 20_000)
    small = [f"paths.hub_mirror={mirror}", f"task.include_path={own_tasks}", "task.names=[tiny_pets]"]
    small += ["calib=text", "calib.path=calib.txt", "calib.nsamples=8", "calib.seqlen=64"]
    with serve_completions(names=tuple(STAND_INS)) as full, serve_completions(names=("llama-awq",)) as quantized:
        places = {
            "http://localhost:8000/v1": full.url,
            "http://FIRST-NODE:8000/v1": full.url,
            "http://localhost:8001/v1": quantized.url,
            "/shared/": f"{tmp_path}/shared/",
        }

        def put(words):
            for there, own in places.items():
                words = [word.replace(there, own) for word in words]
            sizes = ["model.parameters=null"] if "model=served" not in words else []  # the stand-in's is another
            return [word for word in words if word != "-m"] + small + sizes

        yield put


def test_there_are_commands_and_no_assumption_is_of_none():
    assert len(COMMANDS) == 5 and all(any(setting in words for words in COMMANDS) for setting in ASSUMED)


@needs_gptqmodel
@pytest.mark.slow
@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words[:2]))
def test_a_command_is_planned_and_its_plan_names_the_gpu(words, here, capsys):
    with command(*here(words)) as (master, loader):
        cells, errors = compose_cells(master, loader)
        on_nodes = is_elsewhere(master.hydra.launcher)
    assert errors.lines() == [] and len(cells) == (40 if "-m" in words else 1)
    printed_plan.show(cells, errors, on_nodes)
    shown = capsys.readouterr().out
    assert "An estimate, from the models' shapes" in shown and "To be downloaded" not in shown
    assert "skipped" not in shown
    assert all(sentence in shown for sentence in next(said for setting, said in ASSUMED.items() if setting in words))
    assert "keys and values" in shown and "'s weights in float" in shown
