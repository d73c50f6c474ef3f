"""A model whose layers get other weights, and what that does to text and questions; for `benchmarks.layer_errors`.

One pass of text through the full-precision model gives the mean μ and the second moment H of every layer's input. With ΔW the
rounding error, a layer's output error is tr(ΔW H ΔWᵀ); its constant part, the same for every token, is ‖ΔW μ‖², and what is
left is the centred error.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from bitsure.base.files import atomic_path, write_text
from bitsure.hub.data_sets import data_sets_from
from bitsure.models.load import load_model
from bitsure.tasks.task_names import task_manager

SEQLEN = 512
BATCH = 8  # choices in one pass
READ_BY = {"q_proj": "q_proj", "k_proj": "q_proj", "v_proj": "q_proj", "up_proj": "gate_proj"}  # layer → whose input it reads
RTN = {"bits": 4, "group_size": 128, "symmetric": True}
KINDS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

T = TypeVar("T")
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
        self.layers = {name: layer for name, layer in self.model.named_modules() if kind(name) in KINDS}
        if given.spread:
            spread(list(self.layers.values()))
        self.original = {name: layer.weight.detach().clone() for name, layer in self.layers.items()}
        texts = [json.loads(line)["text"] for line in given.text.read_text(encoding="utf-8").splitlines()]
        self.windows = cut(texts, self.tokenizer)
        self.held_out, self.windows = self.windows[-given.held_out :], self.windows[: -given.held_out]
        self.requests, self.gold = questions(given, self.tokenizer)
        self.short = [torch.tensor(context + choice) for context, choice in self.requests[0 : 2 * given.read : 2]]
        self.first = self.windows[:, :1]  # what stands first in a text: its state depends on nothing else
        self.full_text, self.full_short, self.full_choices = kept(
            self.work / "full.pt",
            lambda: (self.log_probabilities(list(self.held_out)), self.log_probabilities(self.short), self.choices()),
        )

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
        return kept(self.work / f"moments_{name}.pt", lambda: self.moments(texts))

    @cached_property
    def texts(self) -> dict[str, tuple[Moments, dict[str, torch.Tensor]]]:
        """The moments of the held-out text and of first tokens, with the squared norm of each layer's output."""
        result = {}
        for text, windows in (("held_out", self.held_out), ("first", [self.first])):
            moments = self.kept_moments(text, windows)
            result[text] = moments, {n: ((W @ moments[input_of(n)][0]) * W).sum() for n, W in self.original.items()}
        return result

    def errors(self, variant: Variant, text: str) -> dict[str, list[float]]:
        """For each layer the squared norms of: error, its constant part, its centred part, output."""
        (moments, outputs), result = self.texts[text], {}
        for name, weight in variant.weights.items():
            H, mean = moments[input_of(name)]
            change = weight - self.original[name]
            constant = change @ mean
            centred = ((change @ H) * change).sum() - constant.square().sum()
            constant = (constant + variant.biases.get(name, 0)).square().sum()
            result[name] = [float(each) for each in (centred + constant, constant, centred, outputs[name])]
        return result

    def measure(self, name: str, make: Callable[[], Variant], choices: bool = False) -> None:
        """Measure a variant's errors and losses once, into `name`.json; `choices`: the questions' choices as well."""
        file = self.work / f"{name}.json"
        record: dict = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        if "text" in record and ("choices" in record or not choices):
            return
        begun, variant = time.monotonic(), make()
        with self.using(variant):
            if choices:
                record["choices"] = self.choices().tolist()
            if "text" not in record:
                text, short = self.log_probabilities(list(self.held_out)), self.log_probabilities(self.short)
                record["text"], record["short"] = kl_by_token(self.full_text, text), kl_by_token(self.full_short, short)
                record["nll"] = nll_by_token(text, list(self.held_out))
        record["errors"], record["first"] = (self.errors(variant, text) for text in ("held_out", "first"))
        write_text(file, json.dumps(record))
        print(f"{name}: {time.monotonic() - begun:.0f} s", flush=True)


@torch.no_grad()
def spread(layers: Sequence[nn.Linear]) -> None:
    """Move weights that were rounded before (4 bits, groups of 32) by noise of up to half a step: they lie on no grid then."""
    noise = torch.Generator().manual_seed(0)
    for layer in layers:
        groups = layer.weight.data.unflatten(1, (-1, 32))
        step = (groups.amax(-1, keepdim=True) - groups.amin(-1, keepdim=True)) / 15
        groups += step * (torch.rand(groups.shape, generator=noise) - 0.5)


def kept(file: Path, make: Callable[[], T]) -> T:
    """Return what an earlier call made, read from a file, or make and keep it."""
    if not file.exists():
        with atomic_path(file) as path:
            torch.save(make(), path)
    result: T = torch.load(file)
    return result


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


def questions(given: argparse.Namespace, tokenizer) -> tuple[Requests, torch.Tensor]:
    """PIQA's first questions as requests (two each), with their right choices."""
    with data_sets_from(str(given.mirror)):
        task = task_manager(None, include_defaults=True).load(["piqa"])["tasks"]["piqa"]
    requests, gold = [], []
    for doc in itertools.islice(task.validation_docs(), given.questions):
        context = task.doc_to_text(doc)
        ids = tokenizer(context)["input_ids"]
        requests += [(ids, tokenizer(f"{context} {choice}")["input_ids"][len(ids) :]) for choice in task.doc_to_choice(doc)]
        gold.append(task.doc_to_target(doc))
    return requests, torch.tensor(gold)


def kl_by_token(full: list[torch.Tensor], other: list[torch.Tensor]) -> list[list[float]]:
    """KL of the next token's distribution after each token of each text, nats."""
    rows = []
    for p, q in zip(full, other, strict=True):
        p = p.float().log_softmax(-1)
        rows.append([round(float(v), 5) for v in (p.exp() * (p - q.float().log_softmax(-1))).sum(-1)])
    return rows


def nll_by_token(logprobs: list[torch.Tensor], texts: list[torch.Tensor]) -> list[list[float]]:
    """Negative log-likelihood of each token of each text but the first, nats."""
    return [
        [round(-float(v), 5) for v in p[:-1].float().gather(1, ids[1:, None]).flatten()]
        for p, ids in zip(logprobs, texts, strict=True)
    ]
