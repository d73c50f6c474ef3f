"""Which error of a layer's output predicts the loss, on a real model: `make bench-errors`, a page a model.

Variants of the model with rounded layers read held-out text and questions (`benchmarks.error_lab`). Everything that is measured
is kept in --work, so that a stopped call goes on. It needs `make real-models`, the
mirror of data sets and a file of text.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.error_lab import KINDS, RTN, SEQLEN, Lab, Matrices, Moments, Variant, input_of, kept, kind
from benchmarks.error_page import page
from bitsure.base import terminal
from bitsure.base.files import write_text
from bitsure.config.paths import PROJECT
from bitsure.quantize.libraries.gptq import Gptq
from bitsure.quantize.native.gptq_solver import round_with_hessian
from bitsure.quantize.native.rounding import round_to_nearest
from bitsure.quantize.native.rtn import Rtn

WINDOWS = 8  # of one draw of calibration text
ATTENTION = KINDS[:4]
GPTQ = {**RTN, "backend": "native", "desc_act": False, "damp_percent": 0.01}


def rtn(lab: Lab) -> Matrices:
    quant = Rtn(**RTN)
    return {name: round_to_nearest(weight, quant).dequantize() for name, weight in lab.original.items()}


def gptq(lab: Lab, moments: Moments) -> Matrices:
    quant = Gptq(**GPTQ)
    return {
        name: round_with_hessian(weight, moments[input_of(name)][0], quant, (), name).dequantize()
        for name, weight in lab.original.items()
    }


def gptqmodel(lab: Lab, moments: Moments) -> Matrices:
    """The same settings and second moments, by gptqmodel's solver."""
    os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")  # it requires two, whatever the machine has
    threads, weights = torch.get_num_threads(), {}
    with tempfile.TemporaryDirectory() as folder, terminal.output_to(Path(folder) / "log"):
        from gptqmodel.quantization import GPTQ as Solver
        from gptqmodel.quantization import QuantizeConfig

        settings = QuantizeConfig(
            bits=4, group_size=128, sym=True, desc_act=False, damp_percent=0.01, act_group_aware=False, fallback=None
        )
        for name, layer in lab.layers.items():
            solver = Solver(layer, settings)
            solver.quantizer.configure(perchannel=True)
            x = inputs_with(moments[input_of(name)][0])
            solver.add_batch(x[None], layer(x)[None].detach())
            weights[name] = solver.quantize()[0].float()
    torch.set_num_threads(threads)  # it sets one
    return weights


def inputs_with(hessian: torch.Tensor) -> torch.Tensor:
    """Return as many inputs as there are columns, (in, in), whose second moment is the given one up to a factor."""
    exact = hessian.double()
    factor, failed = torch.linalg.cholesky_ex(exact)
    if failed:  # float32 has rounded a direction without input below zero
        factor = torch.linalg.cholesky(exact + 1e-6 * exact.diagonal().mean() * torch.eye(len(exact), dtype=exact.dtype))
    return factor.T.float().contiguous()


def offsets(lab: Lab, weights: Matrices, moments: Moments) -> Matrices:
    """The offsets that cancel the constant part of each layer's output error."""
    return {name: -(weight - lab.original[name]) @ moments[input_of(name)][1] for name, weight in weights.items()}


def weigh_first(moments: Moments, first: Moments, share: float = 0.1) -> Moments:
    """Moments in which first tokens count for a share of all; inputs of o_proj and down_proj, which no norm precedes, stay."""
    return {
        name: (H, mean)
        if kind(name) in ("o_proj", "down_proj")
        else tuple((1 - share) * a + share * b for a, b in zip((H, mean), first[name], strict=True))
        for name, (H, mean) in moments.items()
    }


def average(parts: Sequence[Moments]) -> Moments:
    return {
        name: (sum(p[name][0] for p in parts) / len(parts), sum(p[name][1] for p in parts) / len(parts)) for name in parts[0]
    }


def measure_all(lab: Lab, n_draws: int) -> None:
    """Measure layers rounded by all calibration text: values alone, all at once, each kind alone; then by each draw of it."""

    def draw(i: int) -> Moments:
        return lab.kept_moments(f"draw{i}", lab.windows[i * WINDOWS : (i + 1) * WINDOWS])

    nearest, moments = rtn(lab), average([draw(i) for i in range(n_draws)])
    solved: Matrices = kept(lab.work / "gptq.pt", lambda: gptq(lab, moments))
    methods = {"rtn": (nearest, {}), "rtn-bias": (nearest, offsets(lab, nearest, moments)), "gptq": (solved, {})}
    measure_kinds(lab, methods, ["v_proj"])
    for name, (weights, biases) in methods.items():
        lab.measure(name, lambda w=weights, b=biases: Variant(w, b), choices=True)
    rtn_values = {n: (nearest if kind(n) == "v_proj" else solved)[n] for n in lab.layers}
    lab.measure("gptq-rtn-values", lambda: Variant(rtn_values), choices=True)
    measure_kinds(lab, methods, KINDS)
    if n_draws > 1:
        for i in range(n_draws):
            lab.measure(f"gptq-draw{i}", lambda i=i: Variant(gptq(lab, draw(i))), choices=True)
            lab.measure(f"rtn-bias-draw{i}", lambda i=i: Variant(nearest, offsets(lab, nearest, draw(i))), choices=True)
            lab.measure(f"gptqmodel-draw{i}", lambda i=i: Variant(gptqmodel(lab, draw(i))), choices=True)
    for name, (weights, biases) in methods.items():
        lab.measure(f"{name}-exact-first", lambda w=weights, b=biases: Variant(w, b, exact_first=True))
    lab.measure("gptq-first", lambda: Variant(gptq(lab, weigh_first(moments, lab.texts["first"][0]))), choices=True)
    for mlp, attention in (("rtn", "gptq"), ("gptq", "rtn")):
        mixed = {n: methods[attention if kind(n) in ATTENTION else mlp][0][n] for n in lab.layers}
        lab.measure(f"{mlp}-mlp-{attention}-attention", lambda m=mixed: Variant(m))


def measure_control(lab: Lab) -> None:
    """Measure all layers rounded by one draw of calibration text, also with the first token's outputs exact."""
    moments, nearest = lab.kept_moments("draw0", lab.windows[:WINDOWS]), rtn(lab)
    solved: Matrices = kept(lab.work / "gptq.pt", lambda: gptq(lab, moments))
    methods = {"rtn": (nearest, {}), "rtn-bias": (nearest, offsets(lab, nearest, moments)), "gptq": (solved, {})}
    for (name, parts), exact in itertools.product(methods.items(), (False, True)):
        lab.measure(name + "-exact-first" * exact, lambda p=parts, e=exact: Variant(*p, exact_first=e))


def measure_kinds(lab: Lab, methods: dict[str, tuple[Matrices, Matrices]], kinds: Sequence[str]) -> None:
    """Measure each kind of layer alone, v_proj also with the first token's values exact."""
    for part, (name, (weights, biases)) in itertools.product(kinds, methods.items()):
        chosen = [each for each in lab.layers if kind(each) == part]
        part_of = ({n: weights[n] for n in chosen}, {n: biases[n] for n in chosen if n in biases})
        lab.measure(f"only-{part}-{name}", lambda p=part_of: Variant(*p))
        if part == "v_proj":
            lab.measure(f"only-{part}-{name}-exact-first", lambda p=part_of: Variant(*p, exact_first=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=PROJECT / "real_models/smollm2-135m-instruct")
    parser.add_argument("--mirror", type=Path, default=Path("../shared/hub"))
    parser.add_argument("--text", type=Path, default=Path("../shared/text/c4-and-common-crawl-sample.jsonl"))
    parser.add_argument("--work", type=Path, help="what is measured is kept here; another one for other options")
    parser.add_argument("--questions", type=int, default=20, help="of PIQA, whose choices are scored")
    parser.add_argument("--read", type=int, default=10, help="questions whose every token is compared")
    parser.add_argument("--held-out", type=int, default=8, help="windows that are compared")
    parser.add_argument("--draws", type=int, default=3, help="of calibration text")
    parser.add_argument("--spread", action="store_true", help="a control: whole models whose weights lie on no earlier grid")
    given = parser.parse_args()
    name = given.model.name + "-spread" * given.spread
    given.work = given.work or PROJECT / "outputs/layer_errors" / name
    logging.disable(logging.WARNING)
    lab = Lab(given)
    if given.spread:
        given.draws = 1
        measure_control(lab)
    else:
        measure_all(lab, given.draws)
    write_text(Path(__file__).with_name(f"layer_errors_{name}.md"), page(lab, given, WINDOWS * SEQLEN))


if __name__ == "__main__":
    main()
