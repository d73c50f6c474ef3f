"""What plan=true says of main memory is within 30% of what is taken, and counts what the code keeps."""

from __future__ import annotations

import sys

import pytest

from bitsure.config.number_formats import Activations
from bitsure.quantize.libraries.gptq import Gptq
from bitsure.quantize.native.chain import quantize
from bitsure.quantize.walk.replay import Replay
from bitsure.quantize.walk.targets import find_blocks, linears
from bitsure.sweep.launch.memory_estimate import kept_outputs
from tests.builders.families import FAMILIES, build
from tests.builders.limited_memory import save_deep, work_in
from tests.builders.marks import needs_transformers_5
from tests.builders.quantizing import NATIVE, WINDOWS, nothing

QUANTIZERS = {"weights": Gptq(**NATIVE), "inputs too": Gptq(**NATIVE, activations=Activations(8))}
SMALL, LARGER = (64, 2), (640, 12)  # width and blocks
WORK = {
    "score": ("score", ["quant=none"], LARGER),
    "rtn": ("quantize", ["quant=rtn4"], LARGER),
    "gptq": ("quantize", ["quant=gptq4", "quant.backend=native"], (640, 2)),
    "awq": ("quantize", ["quant=awq4"], (640, 2)),
}


@pytest.mark.parametrize("quant", QUANTIZERS)
@pytest.mark.parametrize("family", ["llama", "opt", "gpt2"])
def test_what_replay_keeps_is_known_from_the_modules(family, quant, tmp_path, monkeypatch):
    kept: list[int] = []
    count, forget = Replay._count, Replay.forget
    monkeypatch.setattr(Replay, "_count", lambda replay, *given: kept.append(replay._bytes()) or count(replay, *given))
    monkeypatch.setattr(Replay, "forget", lambda replay: kept.append(replay._bytes()) or forget(replay))
    model, out = build(family, **FAMILIES[family]), tmp_path / "out"
    out.mkdir()
    block = find_blocks(model)[1][0]
    numbers = kept_outputs(block, set(linears(block).values()), rounds_inputs=quant != "weights")
    quantize(model, QUANTIZERS[quant], WINDOWS, tmp_path / "parts", out, nothing)
    assert max(kept) == 4 * numbers * WINDOWS.numel()


@needs_transformers_5
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs a process's own peak of memory")
@pytest.mark.parametrize("size", ["small", "larger"])
@pytest.mark.parametrize("name", WORK)
def test_the_estimate_is_within_30_percent_of_what_is_taken(commands, own_tasks, calib_file, tmp_path, name, size):
    work, quant, larger = WORK[name]
    width, blocks = SMALL if size == "small" else larger
    whole, _ = save_deep(tmp_path / "model", width, blocks)
    text = ["calib=text", f"calib.path={calib_file}", "calib.nsamples=4", "calib.seqlen=64"]
    task = [f"task.include_path={own_tasks}", "task.names=[tiny_pets]", "task.limit=1"]
    overrides = ["model=local", f"model.path={tmp_path / 'model'}", *text, *task, *quant]
    done = work_in(commands, tmp_path / "work", work, 0, *overrides)
    assert done["peak"] / 1.3 < done["estimate"] < done["peak"] * 1.3
    if work == "score":
        assert done["rise"] > whole
