"""Learning rotations on calibration text (SpinQuant, Liu et al. 2025): Cayley steps along the loss of the rounded model."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from torch.func import functional_call

from bitsure.base.errors import UserError
from bitsure.base.files import atomic_path
from bitsure.config.rotation_settings import RotationSettings
from bitsure.quantize.inference.hooks import InferenceRounding
from bitsure.quantize.inference.input_transform import InputTransform
from bitsure.quantize.inference.keys_values import rounding
from bitsure.quantize.inference.orthogonal import Orthogonal
from bitsure.quantize.inference.rotations import Rotations, StreamRotation, ValueRotation
from bitsure.quantize.inference.scheme import InferenceScheme
from bitsure.quantize.native.chain_quantizer import ChainQuantizer
from bitsure.quantize.native.rounding import round_to_nearest
from bitsure.quantize.walk.blocks import TOKENS_AT_ONCE
from bitsure.quantize.walk.targets import as_stored, block_linears, find_blocks, matrix
from bitsure.quantize.weights.fake_quantize import straight_through

COMPARED = 4  # batches whose loss decides whether the learned rotations are taken

Turns = Sequence[torch.Tensor]  # what the residual stream and each block's values are multiplied by besides, (n, n) each


@torch.no_grad()
def learned_rotations(
    model: nn.Module,
    quant: ChainQuantizer,
    settings: RotationSettings,
    windows: torch.Tensor,
    kept: Path,
    rotations: Rotations,
) -> Rotations:
    """Return rotations that are learned on a copy of a full-precision model; see `learn`.

    Args:
        model: The model, not rotated.
        quant: What is rounded.
        settings: Steps, rate and seed.
        windows: Calibration text, token ids, shape (nsamples, seqlen).
        kept: A directory that the result is written to, and read from if it is there.
        rotations: Those to begin with.
    """
    if not kept.is_dir():
        rotated = copy.deepcopy(model).float().to("cuda" if torch.cuda.is_available() else "cpu")
        rotations.apply(rotated)
        learned = learn(rotated, rotations, quant, settings, windows)
        kept.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(kept) as temporary:
            temporary.mkdir()
            InferenceScheme(rotations=learned).write(temporary)
    return InferenceScheme.read(kept).rotations


def learn(
    model: nn.Module, rotations: Rotations, quant: ChainQuantizer, settings: RotationSettings, windows: torch.Tensor
) -> Rotations:
    """Return rotations of the residual stream and of values with a lower loss of the rounded model.

    Each step takes one batch of at most 2,048 tokens and turns every matrix R against its gradient G, by the Cayley transform
    of A = G Rᵀ − R Gᵀ, at a rate that falls to 0. Inputs of layers, keys and values are rounded as they will be; weights too,
    to nearest, unless GPTQ compensates their errors later and activations are rounded. What is not rounded is in float32.

    Args:
        model: In float32, rotated by `rotations` already, but for what acts while it runs. It gets hooks.
        rotations: Those to begin with.
        quant: What is rounded.
        settings: Steps, rate, and the seed of the order of batches.
        windows: Calibration text, token ids, shape (nsamples, seqlen).

    Returns:
        The learned rotations; those given if the loss does not fall.

    Raises:
        UserError: If the loss is NaN or infinite.

    Reference: Liu et al. 2025, section 3.2; Li et al. 2020, algorithm 1.
    """
    learner = _Learner(model.requires_grad_(False), rotations, quant)
    batches = torch.split(windows, max(1, TOKENS_AT_ONCE // windows.shape[1]))
    order = torch.randperm(len(batches), generator=torch.Generator().manual_seed(settings.seed)).tolist()
    start = learner.start()
    turns = start
    for step in range(settings.steps):
        leaves = [turn.float().requires_grad_() for turn in turns]
        with torch.enable_grad():
            gradients = torch.autograd.grad(learner.loss(leaves, batches[order[step % len(order)]]), leaves)
        rate = settings.lr * (1 - step / settings.steps)
        turns = [
            cayley_step(turn, gradient.double(), rate, keep)
            for turn, gradient, keep in zip(turns, gradients, learner.keeps_ones, strict=True)
        ]
    before, after = (learner.mean_loss(each, batches[:COMPARED]) for each in (start, turns))
    if not after < torch.inf:
        raise UserError("quant.rotation.steps: the loss is NaN or infinite after learning. Lower quant.rotation.lr.")
    better = learner.turned(turns) if after < before else rotations
    return replace(better, learned_loss=[before, min(before, after)])


def cayley_step(rotation: torch.Tensor, gradient: torch.Tensor, rate: float, keep_ones: bool) -> torch.Tensor:
    """Return an orthogonal matrix (n, n) after one step against a gradient (n, n), float64.

    Args:
        rotation: R, orthogonal.
        gradient: G, of the loss with respect to R.
        rate: The step's length, at most 1 / ‖A‖₁.
        keep_ones: Whether R maps the vector of ones to itself, and has to go on doing so.
    """
    skew = gradient @ rotation.T
    skew = skew - skew.T
    if keep_ones:
        skew = skew - skew.mean(0, keepdim=True)
        skew = skew - skew.mean(1, keepdim=True)
    half = min(rate, 1 / skew.abs().sum(0).max().clamp(min=1e-12).item()) / 2 * skew
    identity = torch.eye(len(rotation), dtype=rotation.dtype, device=rotation.device)
    step: torch.Tensor = torch.linalg.solve(identity + half, (identity - half) @ rotation)
    return step


class _Learner:
    """A rotated model whose weights are turned further by matrices that are learned."""

    def __init__(self, model: nn.Module, rotations: Rotations, quant: ChainQuantizer) -> None:
        self.model, self.rotations = model, rotations
        grid = quant.weight_rounding
        compensated = grid is not None and grid.rounding == "gptq" and quant.activations is not None
        self.grid = None if compensated else grid
        _round_states(model, rotations, quant)

    @property
    def keeps_ones(self) -> list[bool]:
        """Whether each matrix has to keep the vector of ones."""
        stream = self.rotations.stream
        return [*([stream.centred] if stream else []), *(False for _ in self.rotations.values)]

    def start(self) -> list[torch.Tensor]:
        """Return matrices that change nothing."""
        device = next(self.model.parameters()).device
        return [torch.eye(each.rotation.width, dtype=torch.float64, device=device) for each in self._learned()]

    def mean_loss(self, turns: Turns, batches: Sequence[torch.Tensor]) -> float:
        """Return the mean loss of some batches, nats a token."""
        return sum(self.loss([turn.float() for turn in turns], batch).item() for batch in batches) / len(batches)

    def loss(self, turns: Turns, ids: torch.Tensor) -> torch.Tensor:
        """Return the mean cross entropy of the next tokens of a batch (windows, seqlen), nats."""
        ids = ids.to(next(self.model.parameters()).device)
        inputs = {"input_ids": ids, "use_cache": False}
        logits = functional_call(self.model, self._weights(turns), kwargs=inputs).logits[:, :-1]
        return nn.functional.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten())

    def turned(self, turns: Turns) -> Rotations:
        """Return the rotations, each times its matrix."""
        pairs = zip(self._learned(), turns, strict=True)
        learned = [replace(each, rotation=_dense(each.rotation, turn)) for each, turn in pairs]
        stream = next((each for each in learned if isinstance(each, StreamRotation)), None)
        return replace(self.rotations, stream=stream, values=[each for each in learned if isinstance(each, ValueRotation)])

    def _learned(self) -> list[StreamRotation | ValueRotation]:
        return [*([self.rotations.stream] if self.rotations.stream else []), *self.rotations.values]

    def _weights(self, turns: Turns) -> dict[str, torch.Tensor]:
        """Return the tensors that the matrices change, by their names in the model; weights rounded where they will be."""
        changed = _ChangedTensors(self.model)
        for each, turn in zip(self._learned(), turns, strict=True):
            if isinstance(each, StreamRotation):
                _turn_stream(changed, each, turn)
            else:
                _turn_values(changed, each, turn)
        if (grid := self.grid) is not None:
            for name in block_linears(self.model):
                changed.matrix(name, lambda weight: straight_through(weight, round_to_nearest(weight, grid).dequantize()))
        return changed.tensors


class _ChangedTensors:
    """A model's tensors, replaced one after the other without touching the model."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.tensors = model, dict[str, torch.Tensor]()

    def matrix(self, layer: str, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Replace a linear layer's matrix (out, in)."""
        module, key = self.model.get_submodule(layer), f"{layer}.weight"
        weight = as_stored(module, self.tensors[key]) if key in self.tensors else matrix(module)
        self.tensors[key] = as_stored(module, change(weight))

    def tensor(self, name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Replace a tensor; one that the model does not have is left out."""
        own = dict(self.model.named_parameters())
        if name in own:
            self.tensors[name] = change(self.tensors.get(name, own[name]))


def _turn_stream(changed: _ChangedTensors, stream: StreamRotation, turn: torch.Tensor) -> None:
    for name in stream.embeddings:
        changed.tensor(f"{name}.weight", lambda rows: rows @ turn)
    for norm in stream.norms:
        changed.tensor(f"{norm.name}.bias", lambda bias: bias @ turn)
        for name in norm.readers:
            changed.matrix(name, lambda weight: weight @ turn)
    for name in stream.writers:
        changed.matrix(name, lambda weight: turn.T @ weight)
        changed.tensor(f"{name}.bias", lambda bias: bias @ turn)


def _turn_values(changed: _ChangedTensors, values: ValueRotation, turn: torch.Tensor) -> None:
    def rows_turned(weight: torch.Tensor) -> torch.Tensor:
        turned = (turn.T @ weight[values.rows]).flatten(0, 1) if weight.ndim > 1 else (weight[values.rows] @ turn).flatten()
        return weight.index_copy(0, values.rows.flatten(), turned)

    changed.matrix(values.source, rows_turned)
    changed.tensor(f"{values.source}.bias", rows_turned)
    changed.matrix(values.reader, lambda weight: (weight.reshape(len(weight), -1, len(turn)) @ turn).flatten(1))


def _dense(rotation: Orthogonal, turn: torch.Tensor) -> Orthogonal:
    whole = rotation(torch.eye(rotation.width, dtype=torch.float64)) @ turn.cpu()
    return Orthogonal(torch.ones(rotation.width, dtype=torch.float64), whole, torch.ones(1, 1, dtype=torch.float64))


def _round_states(model: nn.Module, rotations: Rotations, quant: ChainQuantizer) -> None:
    """Rotate and round layers' inputs, keys and values as they will be, each token's range by itself."""
    hooks = InferenceRounding()
    for name, layer in block_linears(model).items():
        transform = InputTransform(numbers=quant.activations, rotation=rotations.input_rotation(name))
        hooks.on_layers([layer], transform)
    if quant.kv is not None:
        for block in find_blocks(model)[1]:
            hooks.on_keys_and_values(block, rounding(quant.kv, rotations.keys_and_values, block))
