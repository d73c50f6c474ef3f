"""Our GPTQ against gptqmodel's: `make bench-quantize` prints the table and writes it into benchmarks/quantize.md.

The same random OPT of 125m's shape, the same random calibration tokens, 4 bits, groups of 128, float32, the same threads; each
in a process of its own, one after the other. The floor is one forward pass through the blocks, half of every Hessian (it is
symmetric) and the solves, in multiply-adds, at the rate of a matrix product measured in the same run.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from importlib import import_module
from pathlib import Path

import torch

from benchmarks import alone
from benchmarks.regions import fill
from bitsure.base.store import Store
from bitsure.config.paths import PROJECT
from bitsure.config.quantizers import Rounded
from bitsure.quantize.libraries.gptq import Gptq
from bitsure.quantize.native.rtn import Rtn

PAGE = Path(__file__).with_suffix(".md")
SHAPE = {"hidden_size": 768, "word_embed_proj_dim": 768, "ffn_dim": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
WINDOWS, SEQLEN, HELD_OUT = 32, 512, 4
GPTQ = {"bits": 4, "group_size": 128, "symmetric": True, "desc_act": False, "damp_percent": 0.01}
NATIVE = "native"
QUANTIZERS: dict[str, Rounded] = {
    "rtn": Rtn(4, 128, True),
    NATIVE: Gptq(**GPTQ, backend="native"),
    "gptqmodel": Gptq(**GPTQ, backend="gptqmodel"),
}


def write_model(path: Path, layers: int) -> None:
    """A random OPT with outlier channels and correlated inputs, as real models have, and a tokenizer, which is not used."""
    from transformers import AutoTokenizer, OPTConfig, OPTForCausalLM

    torch.manual_seed(0)
    model = OPTForCausalLM(OPTConfig(**SHAPE | {"num_hidden_layers": layers}))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "layer_norm.weight" in name:
                parameter.copy_(torch.exp(0.5 * torch.randn_like(parameter)))
    model.save_pretrained(path)
    AutoTokenizer.from_pretrained(PROJECT / "pocket" / "models" / "pocket-1m").save_pretrained(path)


def tokens(n: int, seed: int) -> torch.Tensor:
    return torch.randint(5, 50_000, (n, SEQLEN), generator=torch.Generator().manual_seed(seed))


def measure(name: str, path: Path, folder: Path) -> dict:
    """Quantize in this process: seconds, peak bytes, and the mean output error on held-out tokens."""
    from bitsure.config.schema import ModelSettings
    from bitsure.models.load import load_model
    from bitsure.models.locate import locate_model
    from bitsure.quantize import QuantizationJob
    from bitsure.quantize.checkpoint.read_checkpoint import load_checkpoint
    from bitsure.quantize.libraries import gptqmodel
    from bitsure.quantize.native import chain
    from bitsure.quantize.proof.weight_changes import prove

    quant, out = QUANTIZERS[name], folder / name
    out.mkdir()
    import_module("transformers.models.opt.modeling_opt")  # no import is timed
    if name == "gptqmodel":
        with gptqmodel._kept_in(folder):
            import_module("gptqmodel")
    started = time.perf_counter()
    if name == "gptqmodel":
        source = locate_model(ModelSettings(path=str(path)), None)
        nothing = tokens(0, 2)
        store, log_file = Store(folder / "store"), folder / "log"
        job = QuantizationJob(source, "float32", tokens(WINDOWS, 1), nothing, out, out, store, log_file, lambda *a, **k: None)
        gptqmodel.quantize(quant, job)
    else:
        model, _ = load_model(path, "float32", device="cpu")
        chain.quantize(model, quant, tokens(WINDOWS, 1), folder / "parts", out, lambda *a, **k: None)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    model, _ = load_model(path, "float32", device="cpu")
    report = prove(model, load_checkpoint(out, model), tokens(HELD_OUT, 2))
    error = statistics.mean(layer.output_error for layer in report.layers.values())
    return {"seconds": seconds, "peak": peak, "error": error}


def least_multiply_adds(layers: int) -> float:
    """Of one forward pass, half of every Hessian, and the solves: rounding, a Cholesky factor and its inverse each."""
    width, wide, n = SHAPE["hidden_size"], SHAPE["ffn_dim"], WINDOWS * SEQLEN
    inputs = {width: [3 * width, width, wide], wide: [width]}  # width of an input → rows of the weights that read it
    forward = n * sum(size * sum(rows) for size, rows in inputs.items()) + n * SEQLEN * width  # causal attention
    hessians = sum(n * size**2 / 2 * len(rows) for size, rows in inputs.items())
    solves = sum(1 / 3 * size**3 * len(rows) + size**2 / 2 * sum(rows) for size, rows in inputs.items())
    return layers * (forward + hessians + solves)


def multiply_adds_per_second() -> float:
    """Of a product of 2,048 tokens with a feed-forward weight; the best of ten."""
    a, b = torch.randn(2048, 3072), torch.randn(3072, 768)
    rates = []
    for _ in range(10):
        started = time.perf_counter()
        a @ b
        rates.append(a.numel() * b.shape[1] / (time.perf_counter() - started))
    return max(rates)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=SHAPE["num_hidden_layers"], help="fewer for a quick look")
    parser.add_argument("--repeats", type=int, default=1)
    given = alone.parse(parser, measure)
    if given is None:
        return
    runs_by_quantizer: dict[str, list[dict]] = {name: [] for name in QUANTIZERS}
    rates = []
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        write_model(model, given.layers)
        for repeat in range(given.repeats):
            for name, runs in runs_by_quantizer.items():
                rates.append(multiply_adds_per_second())
                runs.append(alone.run("benchmarks.quantize", name, model, Path(folder) / f"{name}-{repeat}"))
                print(f"{name}, {repeat + 1} of {given.repeats}: {runs[-1]['seconds']:.1f} s", flush=True)
    lines = table(runs_by_quantizer, least_multiply_adds(given.layers) / max(rates), max(rates), given.layers)
    print("\n".join(lines))
    if given.layers == SHAPE["num_hidden_layers"]:
        PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), {"table": lines}), encoding="utf-8")


def table(runs_by_quantizer: dict[str, list[dict]], floor: float, rate: float, layers: int) -> list[str]:
    medians = {
        name: {key: statistics.median(run[key] for run in runs) for key in ("seconds", "peak", "error")}
        for name, runs in runs_by_quantizer.items()
    }
    theirs = medians["gptqmodel"]
    lines = [
        f"`make bench-quantize`: 4 bits, groups of 128, {WINDOWS} × {SEQLEN} tokens, float32, {layers} blocks, "
        f"{torch.get_num_threads()} threads, {len(runs_by_quantizer[NATIVE])} run(s) each, medians.",
        f"Floor: {floor:.1f} s at {rate / 1e9:.0f} billion multiply-adds a second.",
        "",
        "|  | seconds | gptqmodel's ÷ seconds | seconds ÷ floor | peak of the process, MB | output error | ÷ gptqmodel's |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, median in medians.items():
        lines.append(
            f"| {name} | {median['seconds']:.1f} | {theirs['seconds'] / median['seconds']:.2f} | "
            f"{median['seconds'] / floor:.2f} | {median['peak'] / 1e6:,.0f} | {median['error']:.4f} | "
            f"{median['error'] / theirs['error']:.3f} |"
        )
    return lines


if __name__ == "__main__":
    main()
