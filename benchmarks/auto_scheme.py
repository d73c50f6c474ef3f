"""The bits of each layer that AutoScheme chooses, as recipes for `quant=mixed`: `python -m benchmarks.auto_scheme MODEL_DIR`.

AutoScheme is a part of the auto-round library (the extra `auto-round`). It sees the calibration text that `quant=mixed` sees,
and counts bits as bitsure does, with scales and zero points.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import torch

from bitsure.config.calib_settings import CalibSettings
from bitsure.config.paths import PROJECT
from bitsure.config.schema import ModelSettings
from bitsure.models.load import load_model
from bitsure.models.locate import locate_model
from bitsure.quantize.calibration.calibration_text import locate_text
from bitsure.quantize.check import windows_of
from bitsure.quantize.mixed.recipe import Recipe
from bitsure.quantize.walk.targets import block_linears

GRID = {"group_size": 128, "symmetric": True}  # of the library's schemes such as W4A16
SHORTER = 16  # tokens: windows are decoded and tokenized again, and the library drops those that became too short


def choose(path: Path, calib: CalibSettings, budgets: list[float], candidates: list[int]) -> dict[float, Recipe]:
    """Return AutoScheme's recipe for each budget of bits per weight; weights are integers in groups of 128, symmetric."""
    from auto_round.auto_scheme.gen_auto_scheme import AutoScheme, GenScheme

    source = locate_model(ModelSettings(path=str(path)), None)
    windows, _ = windows_of(source.path, False, locate_text(calib, None), calib, calib.nsamples)
    _, tokenizer = load_model(source.path, "float32", "cpu")
    options = [f"W{bits}A16" for bits in candidates]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "windows.jsonl"
        texts = tokenizer.batch_decode(windows)
        file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
        recipes = {}
        for bits in budgets:
            torch.manual_seed(0)  # a budget's recipe is the same whatever was chosen before it
            model, _ = load_model(source.path, "float32", "cpu")
            layers = list(block_linears(model))
            sample = {"dataset": str(file), "nsamples": len(windows), "seqlen": windows.shape[1] - SHORTER}
            scheme = AutoScheme(bits, options, **sample, batch_size=8, enable_torch_compile=False)
            chosen = GenScheme(scheme, model, layers, {}, str(file), "cpu", tokenizer, enable_torch_compile=False)
            config = chosen.get_layer_config()
            text = {"name": calib.name, "nsamples": calib.nsamples, "seqlen": calib.seqlen, "seed": calib.seed}
            about = {"model": source.name, "most_bits_per_weight": bits, "calibration": text, "by": "AutoScheme of auto-round"}
            recipes[bits] = Recipe({name: int(config[name]["bits"]) for name in layers}, about, GRID)
    return recipes


def main() -> None:
    """Write the recipes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a directory of a model")
    parser.add_argument("--bits", type=float, nargs="+", required=True, help="budgets, bits per weight")
    parser.add_argument("--candidates", type=int, nargs="+", default=[2, 3, 4, 8])
    parser.add_argument("--text", type=Path, default=PROJECT / "pocket" / "text" / "calibration.txt")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="each draws the windows, as calib.seed")
    parser.add_argument("--out", type=Path, default=PROJECT / "auto_scheme", help="where recipes are written: BITS-SEED.yaml")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    for seed in given.seeds:
        calib = CalibSettings(name="text", path=str(given.text), nsamples=32, seqlen=256, seed=seed)
        for bits, recipe in choose(given.model, calib, given.bits, given.candidates).items():
            file = given.out / f"{bits:g}-{seed}.yaml"
            recipe.write(file)
            print(f"{file}: {recipe.layers}", flush=True)


if __name__ == "__main__":
    main()
