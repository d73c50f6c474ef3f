"""Which error of a layer's output predicts the loss, on a real model: `make bench-errors` writes benchmarks/layer_errors.md.

One pass of text through the full-precision model gives the mean μ and the second moment H of every layer's input. With ΔW the
rounding error, a layer's output error is tr(ΔW H ΔWᵀ); its constant part, the same for every token, is ‖ΔW μ‖², and what is
left is the centred error. Each variant's weights are put into the model, which then reads held-out text and questions.

Everything that is measured is kept in --work, so that a stopped call goes on. It needs `make real-models`, the mirror of data
sets and a file of text.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from bitsure.base.files import write_text
from bitsure.config.paths import PROJECT
from bitsure.hub.data_sets import data_sets_from
from bitsure.models.load import load_model
from bitsure.quantize.libraries.gptq import Gptq
from bitsure.quantize.native.gptq_solver import round_with_hessian
from bitsure.quantize.native.rounding import round_to_nearest
from bitsure.quantize.native.rtn import Rtn
from bitsure.scoring.local.local_engine import LocalEngine
from bitsure.tasks.task_names import task_manager

SEQLEN, WINDOWS = 512, 8  # of one draw of calibration text
HELD_OUT = 3  # windows
READ_BY = {"q_proj": "q_proj", "k_proj": "q_proj", "v_proj": "q_proj", "up_proj": "gate_proj"}  # layer → whose input it reads
KINDS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ATTENTION = KINDS[:4]
RTN = {"bits": 4, "group_size": 128, "symmetric": True}
GPTQ = {**RTN, "backend": "native", "desc_act": False, "damp_percent": 0.01}

Moments = dict[str, tuple[torch.Tensor, torch.Tensor]]  # layer whose input it is → H (in, in), μ (in,)
Matrices = dict[str, torch.Tensor]


@dataclass
class Variant:
    """Quantized weights, and offsets that are added to the layers' outputs."""

    weights: Matrices
    biases: Matrices = field(default_factory=dict)
    exact_first: bool = False
    """Whether the first token of each text goes through the original weights."""


def kind(name: str) -> str:
    return name.rpartition(".")[2]


def input_of(name: str) -> str:
    block, _, own = name.rpartition(".")
    return f"{block}.{READ_BY.get(own, own)}"


class Lab:
    """The model, the texts it is measured on, and what the full-precision model makes of them."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.work: Path = given.work
        self.work.mkdir(parents=True, exist_ok=True)
        self.model, self.tokenizer = load_model(given.model, "float32", "cpu")
        self.layers = {name: layer for name, layer in self.model.named_modules() if kind(name) in KINDS}
        self.original = {name: layer.weight.detach().clone() for name, layer in self.layers.items()}
        texts = [json.loads(line)["text"] for line in given.text.read_text(encoding="utf-8").splitlines()]
        self.windows = cut(texts, self.tokenizer)
        self.held_out, self.windows = self.windows[:HELD_OUT], self.windows[HELD_OUT:]
        self.requests, self.gold, self.question_ids = questions(given, self.tokenizer)
        self.short = [context + choice for context, choice in self.requests[0 : 2 * given.read : 2]]
        self.full_text = self.log_probabilities(list(self.held_out))
        self.full_short = self.log_probabilities([torch.tensor(ids) for ids in self.short])
        self.first = self.windows[:, :1]  # what stands first in a text: its state depends on nothing else

    @torch.no_grad()
    def log_probabilities(self, texts: list[torch.Tensor]) -> list[torch.Tensor]:
        """Log-probabilities over the vocabulary after each token of each text, float16 (about ±0.01 nats where p is small)."""
        return [self.model(ids[None], use_cache=False).logits[0].log_softmax(-1).half() for ids in texts]

    @cached_property
    def full_choices(self) -> torch.Tensor:
        return self.choices()

    def choices(self) -> torch.Tensor:
        """Log-probabilities of the questions' two choices, (n, 2)."""
        scored = LocalEngine(self.model, 2048).score(self.requests)
        return torch.tensor([each.logprob for each in scored], dtype=torch.float64).view(-1, 2)

    @contextmanager
    def using(self, variant: Variant) -> Iterator[None]:
        handles = []
        for name, weight in variant.weights.items():
            self.layers[name].weight.data.copy_(weight)
            if variant.exact_first:
                handles.append(self.layers[name].register_forward_hook(self.exact_first(name)))
        for name, bias in variant.biases.items():
            self.layers[name].bias = nn.Parameter(bias)
        yield
        for handle in handles:
            handle.remove()
        for name, layer in self.layers.items():
            layer.weight.data.copy_(self.original[name])
            layer.bias = None

    def exact_first(self, name: str) -> Callable[..., None]:
        """A hook that computes the first token's output with the original weight."""

        def hook(layer: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
            output[:, 0] = nn.functional.linear(inputs[0][:, 0], self.original[name])

        return hook

    @torch.no_grad()
    def moments(self, texts: list[torch.Tensor], alike: bool = False) -> Moments:
        """The second moment and the mean of every layer's input over tokens; `alike`: each weighted by 1/‖x‖²."""
        sums: dict[str, list[torch.Tensor]] = {}
        names = sorted({input_of(name) for name in self.layers})

        def watch(name: str) -> Callable[..., None]:
            def hook(module: nn.Module, inputs: tuple[torch.Tensor]) -> None:
                x = inputs[0].flatten(0, -2)
                if name not in sums:
                    sums[name] = [x.new_zeros(x.shape[1], x.shape[1]), x.new_zeros(x.shape[1]), x.new_zeros(())]
                weight = 1 / x.square().sum(1) if alike else x.new_ones(len(x))
                sums[name][0].addmm_(x.T, weight[:, None] * x)
                sums[name][1].add_(weight @ x)
                sums[name][2].add_(weight.sum())

            return hook

        handles = [self.layers[name].register_forward_pre_hook(watch(name)) for name in names]
        for ids in texts:
            self.model.model(ids if ids.dim() == 2 else ids[None], use_cache=False)
        for handle in handles:
            handle.remove()
        return {name: (H / total, mean / total) for name, (H, mean, total) in sums.items()}

    def kept_moments(self, name: str, texts: list[torch.Tensor], alike: bool = False) -> Moments:
        file = self.work / f"moments_{name}.pt"
        if not file.exists():
            torch.save(self.moments(texts, alike), file)
        kept: Moments = torch.load(file)
        return kept

    def rtn(self, shrink: float = 0.0, seed: int = 0) -> Matrices:
        """Rounded to nearest; with `shrink`, ranges are narrowed by random factors of [1 − shrink, 1], others for each seed."""
        generator = torch.Generator().manual_seed(seed)
        quant, weights = Rtn(**RTN), {}
        for name, weight in self.original.items():
            groups = -(-weight.shape[1] // 128)
            factors = (1 - shrink * torch.rand(len(weight), groups, generator=generator),) if shrink else ()
            weights[name] = round_to_nearest(weight, quant, factors).dequantize()
        return weights

    def gptq(self, moments: Moments, centred: bool = False) -> Matrices:
        quant, weights = Gptq(**GPTQ), {}
        for name, weight in self.original.items():
            H, mean = moments[input_of(name)]
            hessian = H - torch.outer(mean, mean) if centred else H
            weights[name] = round_with_hessian(weight, hessian, quant, (), name).dequantize()
        return weights

    def biases(self, weights: Matrices, moments: Moments) -> Matrices:
        """The offsets that cancel the constant part of each layer's output error."""
        return {name: -(weight - self.original[name]) @ moments[input_of(name)][1] for name, weight in weights.items()}

    def errors(self, variant: Variant, moments: Moments) -> dict[str, list[float]]:
        """For each layer the squared norms of: error, its constant part, its centred part, output, centred output."""
        result = {}
        for name, weight in variant.weights.items():
            H, mean = moments[input_of(name)]
            change, original = weight - self.original[name], self.original[name]
            spread = ((change @ H) * change).sum() - (change @ mean).square().sum()
            constant = (change @ mean + variant.biases.get(name, 0)).square().sum()
            output = ((original @ H) * original).sum()
            varying = output - (original @ mean).square().sum()
            result[name] = [float(each) for each in (spread + constant, constant, spread, output, varying)]
        return result

    def loss(self, variant: Variant) -> dict:
        """What a variant does to held-out text and to questions read as text."""
        with self.using(variant):
            text = self.log_probabilities(list(self.held_out))
            short = self.log_probabilities([torch.tensor(ids) for ids in self.short])
        kl = {"text": kl_by_token(self.full_text, text), "short": kl_by_token(self.full_short, short)}
        return {**kl, "nll": nll(text, list(self.held_out))}

    def measure(self, name: str, make: Callable[[], Variant], choices: bool = False) -> None:
        """Measure a variant once; `choices`: the questions' choices as well."""
        file = self.work / f"{name}.json"
        record: dict = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        if record and ("choices" in record or not choices):
            return
        begun = time.monotonic()
        variant = make()
        moments = {"errors": self.held_out_moments, "alike": self.alike_moments, "first": self.first_moments}
        if not record:
            record = {which: self.errors(variant, each) for which, each in moments.items()} | self.loss(variant)
        if choices:
            with self.using(variant):
                record["choices"] = self.choices().tolist()
        file.write_text(json.dumps(record), encoding="utf-8")
        print(f"{time.monotonic() - begun:.0f} s: {' | '.join(row(self, name, record))}", flush=True)

    @cached_property
    def held_out_moments(self) -> Moments:
        return self.kept_moments("held_out", list(self.held_out))

    @cached_property
    def first_moments(self) -> Moments:
        return self.kept_moments("first", [self.first])

    @cached_property
    def alike_moments(self) -> Moments:
        return self.kept_moments("held_out_alike", list(self.held_out), alike=True)


def cut(texts: list[str], tokenizer) -> torch.Tensor:
    """All windows of the text, documents in an order drawn once and joined by the end token; (n, SEQLEN)."""
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(0)).tolist()
    ids = [id_ for i in order for id_ in [*tokenizer(texts[i])["input_ids"], tokenizer.eos_token_id]]
    return torch.tensor(ids[: len(ids) // SEQLEN * SEQLEN]).view(-1, SEQLEN)


def questions(given: argparse.Namespace, tokenizer):
    """PIQA's first questions as requests (two each) with their right choices, and later ones as plain token ids."""
    with data_sets_from(str(given.mirror)):
        task = task_manager(None, include_defaults=True).load(["piqa"])["tasks"]["piqa"]
    docs = list(task.validation_docs())
    requests, gold, later = [], [], []
    for i, doc in enumerate(docs[:1200]):
        context, choices = task.doc_to_text(doc), [f" {choice}" for choice in task.doc_to_choice(doc)]
        if i < given.questions:
            ids = tokenizer(context)["input_ids"]
            requests += [(ids, tokenizer(context + choice)["input_ids"][len(ids) :]) for choice in choices]
            gold.append(task.doc_to_target(doc))
        elif i >= 1000:
            later.append(torch.tensor(tokenizer(context + choices[task.doc_to_target(doc)])["input_ids"]))
    return requests, torch.tensor(gold), later


def kl_by_token(full: list[torch.Tensor], other: list[torch.Tensor]) -> list[list[float]]:
    """KL of the next token's distribution after each token of each text, nats."""
    rows = []
    for p, q in zip(full, other, strict=True):
        p = p.float().log_softmax(-1)
        rows.append([round(float(v), 5) for v in (p.exp() * (p - q.float().log_softmax(-1))).sum(-1)])
    return rows


def nll(logprobs: list[torch.Tensor], texts: list[torch.Tensor]) -> float:
    values = [p[:-1].float().gather(1, ids[1:, None]).mean() for p, ids in zip(logprobs, texts, strict=True)]
    return -float(torch.stack(values).mean())


def mean(rows: list[list[float]]) -> float:
    values = [value for row in rows for value in row]
    return sum(values) / len(values)


def relative(errors: dict[str, list[float]], part: int, of: int = 3) -> float:
    """The mean over layers of the root of one squared norm over another."""
    return sum((max(e[part], 0) / e[of]) ** 0.5 for e in errors.values()) / len(errors)


COLUMNS = (
    "variant",
    "output error",
    "centred",
    "of first tokens",
    "KL on C4",
    "NLL on C4",
    "KL on PIQA's text",
    "KL of choices",
    "Δp of gold",
)


def row(lab: Lab, name: str, record: dict) -> list[str]:
    """Return a variant's row of the table."""
    cells = [name, *(f"{relative(record['errors'], part):.3f}" for part in (0, 2)), f"{relative(record['first'], 0):.3f}"]
    cells += [f"{mean(record['text']):.4f}", f"{record['nll']:.4f}", f"{mean(record['short']):.4f}"]
    if "choices" not in record:
        return [*cells, "", ""]
    full, now = (torch.as_tensor(z).log_softmax(-1) for z in (lab.full_choices, record["choices"]))
    gold = torch.arange(len(full)), lab.gold
    differences = (full.exp() * (full - now)).sum(-1), now[gold].exp() - full[gold].exp()
    return cells + [f"{each.mean():+.4f} ± {each.std() / len(full) ** 0.5:.4f}" for each in differences]


def page(lab: Lab, given: argparse.Namespace) -> str:
    """Return the table of everything that was measured."""
    names = sorted(path.stem for path in given.work.glob("*.json"))
    rows = [row(lab, name, json.loads((given.work / f"{name}.json").read_text(encoding="utf-8"))) for name in names]
    short = f"{given.read} questions of PIQA read as text, {given.questions} scored"
    head = (
        f"Made by `make bench-errors` for {given.model.name}: {HELD_OUT} held-out windows of {SEQLEN} tokens of C4,\n"
        f"{short}. Full precision: NLL {nll(lab.full_text, list(lab.held_out)):.4f} on C4. ± is a standard error of a mean.\n\n"
    )
    table = [COLUMNS, ["---"] * len(COLUMNS), *rows]
    return head + "".join(f"| {' | '.join(cells)} |\n" for cells in table)


def weigh_first(moments: Moments, first: Moments, share: float = 0.1) -> Moments:
    """Moments in which first tokens count for a share of all; inputs of o_proj and down_proj, which no norm precedes, stay."""
    return {
        name: (H, mean)
        if kind(name) in ("o_proj", "down_proj")
        else tuple((1 - share) * a + share * b for a, b in zip((H, mean), first[name], strict=True))
        for name, (H, mean) in moments.items()
    }


def average(*parts: Moments) -> Moments:
    return {
        name: (sum(p[name][0] for p in parts) / len(parts), sum(p[name][1] for p in parts) / len(parts)) for name in parts[0]
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=PROJECT / "real_models/smollm2-135m-instruct")
    parser.add_argument("--mirror", type=Path, default=Path("../shared/hub"))
    parser.add_argument("--text", type=Path, default=Path("../shared/text/c4-and-common-crawl-sample.jsonl"))
    parser.add_argument("--work", type=Path, default=PROJECT / "outputs/layer_errors")
    parser.add_argument("--questions", type=int, default=100, help="of PIQA")
    parser.add_argument("--read", type=int, default=30, help="questions whose every token is compared")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    lab = Lab(given)
    draws = [list(lab.windows[i * WINDOWS : (i + 1) * WINDOWS]) for i in range(4)]

    def draw(i: int) -> Moments:
        return lab.kept_moments(f"draw{i}", draws[i])

    rtn, both = lab.rtn(), average(draw(0), draw(1))
    gptq_file = lab.work / "gptq-both.pt"
    if not gptq_file.exists():
        torch.save(lab.gptq(both), gptq_file)
    gptq: Matrices = torch.load(gptq_file)
    corrections = lab.biases(rtn, both)

    def mixed(mlp: Matrices, attention: Matrices) -> Variant:
        return Variant({n: (attention if kind(n) in ATTENTION else mlp)[n] for n in rtn})

    lab.measure("rtn", lambda: Variant(rtn))
    lab.measure("gptq", lambda: Variant(gptq))
    lab.measure("gptq-exact-first", lambda: Variant(gptq, exact_first=True))
    lab.measure("rtn-exact-first", lambda: Variant(rtn, exact_first=True))
    lab.measure("rtn-bias", lambda: Variant(rtn, corrections))
    lab.measure("rtn-mlp-gptq-attention", lambda: mixed(rtn, gptq))
    lab.measure("gptq-mlp-rtn-attention", lambda: mixed(gptq, rtn))
    lab.measure("gptq-first", lambda: Variant(lab.gptq(weigh_first(both, lab.first_moments))))
    lab.measure("rtn", lambda: Variant(rtn), choices=True)
    lab.measure("gptq", lambda: Variant(gptq), choices=True)
    lab.measure("rtn-bias", lambda: Variant(rtn, corrections), choices=True)
    for part in KINDS:
        chosen = [name for name in lab.layers if kind(name) == part]
        for name, weights, biases in (("rtn", rtn, {}), ("rtn-bias", rtn, corrections), ("gptq", gptq, {})):
            part_of = Variant({n: weights[n] for n in chosen}, {n: biases[n] for n in chosen if n in biases})
            lab.measure(f"only-{part}-{name}", lambda v=part_of: v)
    lab.measure("gptq-draw0", lambda: Variant(lab.gptq(draw(0))))
    lab.measure("gptq-draw1", lambda: Variant(lab.gptq(draw(1))))
    lab.measure("gptq-questions", lambda: Variant(lab.gptq(lab.kept_moments("questions", lab.question_ids))))
    lab.measure("rtn-dither0", lambda: Variant(lab.rtn(0.03, 0)))
    lab.measure("rtn-dither1", lambda: Variant(lab.rtn(0.03, 1)))
    lab.measure("gptq-four", lambda: Variant(lab.gptq(average(both, average(draw(2), draw(3))))))
    write_text(Path(__file__).with_suffix(".md"), page(lab, given))


if __name__ == "__main__":
    main()
