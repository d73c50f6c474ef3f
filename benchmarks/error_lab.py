"""A model whose layers get other weights, and what that does to text and questions; for `benchmarks.layer_errors`.

One pass of text through the full-precision model gives the mean μ and the second moment H of every layer's input. With ΔW the
rounding error, a layer's output error is tr(ΔW H ΔWᵀ); its constant part, the same for every token, is ‖ΔW μ‖², and what is
left is the centred error.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from bitsure.hub.data_sets import data_sets_from
from bitsure.models.load import load_model
from bitsure.tasks.task_names import task_manager

SEQLEN = 512
HELD_OUT = 3  # windows that no quantizer sees
BATCH = 8  # choices in one pass
READ_BY = {"q_proj": "q_proj", "k_proj": "q_proj", "v_proj": "q_proj", "up_proj": "gate_proj"}  # layer → whose input it reads
RTN = {"bits": 4, "group_size": 128, "symmetric": True}
KINDS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

Moments = dict[str, tuple[torch.Tensor, torch.Tensor]]  # layer whose input it is → H (in, in), μ (in,)
Matrices = dict[str, torch.Tensor]
Requests = list[tuple[list[int], list[int]]]  # context and continuation, token ids


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
        self.kinds = tuple(given.kinds)
        self.layers = {name: layer for name, layer in self.model.named_modules() if kind(name) in self.kinds}
        if given.spread:
            for layer in self.layers.values():
                layer.weight.data = spread(layer.weight.data)
        self.original = {name: layer.weight.detach().clone() for name, layer in self.layers.items()}
        texts = [json.loads(line)["text"] for line in given.text.read_text(encoding="utf-8").splitlines()]
        self.windows = cut(texts, self.tokenizer)
        self.held_out, self.windows = self.windows[: given.held_out], self.windows[HELD_OUT:]
        self.requests, self.gold, self.question_ids = questions(given, self.tokenizer)
        self.short = [torch.tensor(context + choice) for context, choice in self.requests[0 : 2 * given.read : 2]]
        self.first = self.windows[:, :1]  # what stands first in a text: its state depends on nothing else
        self.full_text = self.log_probabilities(list(self.held_out))
        self.full_short = self.log_probabilities(self.short)
        self.full_choices = self.choices()

    @torch.no_grad()
    def log_probabilities(self, texts: list[torch.Tensor]) -> list[torch.Tensor]:
        """Log-probabilities over the vocabulary after each token of each text, float16 (about ±0.01 nats where p is small)."""
        return [self.model(ids[None], use_cache=False).logits[0].log_softmax(-1).half() for ids in texts]

    @torch.no_grad()
    def choices(self) -> torch.Tensor:
        """Log-probabilities of the questions' two choices, (n, 2), by passes that begin at each text's first token."""
        order = sorted(range(len(self.requests)), key=lambda i: sum(map(len, self.requests[i])))
        result = torch.zeros(len(order), dtype=torch.float64)
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            texts = [torch.tensor([*self.requests[i][0], *self.requests[i][1]]) for i in batch]
            # Padding follows each text, so that no token of it attends to padding.
            states = self.model.model(nn.utils.rnn.pad_sequence(texts, batch_first=True), use_cache=False)[0]
            for i, ids, state in zip(batch, texts, states, strict=True):
                context = len(self.requests[i][0])
                logits = self.model.lm_head(state[context - 1 : len(ids) - 1]).double()
                result[i] = logits.log_softmax(-1).gather(1, ids[context:, None]).sum()
        return result.view(-1, 2)

    @contextmanager
    def using(self, variant: Variant) -> Iterator[None]:
        handles = []
        for name, weight in variant.weights.items():
            self.layers[name].weight.data.copy_(weight)
            if variant.exact_first:
                handles.append(self.layers[name].register_forward_hook(exact_first(self.original[name])))
        for name, bias in variant.biases.items():
            self.layers[name].bias = nn.Parameter(bias)
        yield
        for handle in handles:
            handle.remove()
        for name, layer in self.layers.items():
            layer.weight.data.copy_(self.original[name])
            layer.bias = None

    @torch.no_grad()
    def moments(self, texts: Sequence[torch.Tensor]) -> Moments:
        """The second moment and the mean of every layer's input over tokens."""
        sums: dict[str, list[torch.Tensor]] = {}
        names = sorted({input_of(name) for name in self.layers})

        def watch(name: str) -> Callable[..., None]:
            def hook(module: nn.Module, inputs: tuple[torch.Tensor]) -> None:
                x = inputs[0].flatten(0, -2)
                if name not in sums:
                    sums[name] = [x.new_zeros(x.shape[1], x.shape[1]), x.new_zeros(x.shape[1]), x.new_zeros(())]
                sums[name][0].addmm_(x.T, x)
                sums[name][1].add_(x.sum(0))
                sums[name][2].add_(len(x))

            return hook

        handles = [self.model.get_submodule(name).register_forward_pre_hook(watch(name)) for name in names]
        for ids in texts:
            self.model.model(ids if ids.dim() == 2 else ids[None], use_cache=False)
        for handle in handles:
            handle.remove()
        return {name: (H / total, mean / total) for name, (H, mean, total) in sums.items()}

    def kept_moments(self, name: str, texts: Sequence[torch.Tensor]) -> Moments:
        file = self.work / f"moments_{name}.pt"
        if not file.exists():
            torch.save(self.moments(texts), file)
        kept: Moments = torch.load(file)
        return {name: kept[name] for name in {input_of(layer) for layer in self.layers}}

    @cached_property
    def held_out_moments(self) -> Moments:
        return self.kept_moments("held_out", self.held_out)

    @cached_property
    def first_moments(self) -> Moments:
        return self.kept_moments("first", [self.first])

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

    def measure(self, name: str, make: Callable[[], Variant], choices: bool = False) -> None:
        """Measure a variant's errors and losses once, into `name`.json; `choices`: the questions' choices as well."""
        file = self.work / f"{name}.json"
        record: dict = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        if record and ("choices" in record or not choices):
            return
        begun, variant = time.monotonic(), make()
        with self.using(variant):
            if choices:
                record["choices"] = self.choices().tolist()
            if "text" not in record:
                text, short = self.log_probabilities(list(self.held_out)), self.log_probabilities(self.short)
                record["text"], record["short"] = kl_by_token(self.full_text, text), kl_by_token(self.full_short, short)
                record["nll"] = nll(text, list(self.held_out))
        record["errors"] = self.errors(variant, self.held_out_moments)
        record["first"] = self.errors(variant, self.first_moments)
        file.write_text(json.dumps(record), encoding="utf-8")
        print(f"{name}: {time.monotonic() - begun:.0f} s", flush=True)


def spread(weight: torch.Tensor) -> torch.Tensor:
    """Return a weight that was rounded to 4 bits in blocks of 32, each value moved at random within its step (seed 0)."""
    blocks = weight.unflatten(1, (-1, 32))
    step = (blocks.amax(-1, keepdim=True) - blocks.amin(-1, keepdim=True)) / 15
    return (blocks + step * (torch.rand(blocks.shape, generator=torch.Generator().manual_seed(0)) - 0.5)).flatten(1)


def exact_first(weight: torch.Tensor) -> Callable[..., None]:
    """Return a hook that computes the first token's output with a weight of its own."""

    def hook(layer: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        output[:, 0] = nn.functional.linear(inputs[0][:, 0], weight)

    return hook


def cut(texts: list[str], tokenizer) -> torch.Tensor:
    """All windows of the text, documents in an order drawn once and joined by the end token; (n, SEQLEN)."""
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(0)).tolist()
    ids = [id_ for i in order for id_ in [*tokenizer(texts[i])["input_ids"], tokenizer.eos_token_id]]
    return torch.tensor(ids[: len(ids) // SEQLEN * SEQLEN]).view(-1, SEQLEN)


def questions(
    given: argparse.Namespace, tokenizer
) -> tuple[list[tuple[list[int], list[int]]], torch.Tensor, list[torch.Tensor]]:
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
