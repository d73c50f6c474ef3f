"""The proof that a quantizer did something: what changed, by how much, and what it cost in bits."""

from __future__ import annotations

import torch
from torch import nn

from bitsure.errors import UserError
from bitsure.quantize.formats import IntegerWeight
from bitsure.quantize.targets import block_linears, skipped_modules


@torch.no_grad()
def report(
    model: nn.Module, weights: dict[str, IntegerWeight], others: dict[str, torch.Tensor], held_out: torch.Tensor
) -> dict:
    """What quantization changed, for quantization.json.

    model: the full-precision model; weights, others: what a checkpoint holds, read back from disk; held_out: (windows,
    seqlen) token ids that the quantizer did not see. Raises UserError naming the layers that should have changed and did not.
    """
    linears = block_linears(model)
    dequantized = {name: weight.dequantize().to(linears[name].weight) for name, weight in weights.items() if name in linears}
    _check_all_changed(linears, dequantized)
    output_errors = _output_errors(model, linears, dequantized, held_out)
    squared_change = squared_norm = 0.0
    layers = {}
    for name, linear in linears.items():
        change, norm = (dequantized[name] - linear.weight).float().square().sum(), linear.weight.float().square().sum()
        squared_change, squared_norm = squared_change + change.item(), squared_norm + norm.item()
        layers[name] = {"weight_error": (change / norm).sqrt().item(), "output_error": output_errors[name]}
    n_quantized = sum(linear.weight.numel() for linear in linears.values())
    return {
        "modules_quantized": sorted(linears),
        "modules_skipped": skipped_modules(model),
        "parameter_share": n_quantized / sum(p.numel() for p in model.parameters()),
        "bits_per_weight": sum(weight.storage_bits for weight in weights.values()) / n_quantized,
        "relative_error": (squared_change / squared_norm) ** 0.5,
        "group_sizes": _group_sizes(weights),
        "other_tensors_rounded": sorted(
            name for name, tensor in others.items() if _differs(model.state_dict().get(name), tensor)
        ),
        "layers": layers,
    }


def _check_all_changed(linears: dict[str, nn.Linear], dequantized: dict[str, torch.Tensor]) -> None:
    if not linears:
        raise UserError("The model has no linear layer inside repeated blocks: there is nothing this quantizer could change.")
    problems = {
        "were not quantized": [name for name in linears if name not in dequantized],
        "hold NaN or infinite weights": [n for n, w in dequantized.items() if not w.isfinite().all()],
        "have another shape": [n for n, w in dequantized.items() if w.shape != linears[n].weight.shape],
    }
    problems["are unchanged"] = [
        n for n, w in dequantized.items() if w.shape == linears[n].weight.shape and torch.equal(w, linears[n].weight)
    ]
    found = [f"{len(names)} of {len(linears)} layers {what}: {', '.join(names)}" for what, names in problems.items() if names]
    if found:
        raise UserError("The quantizer did not do its work. " + ". ".join(found) + ". No score is taken from such a model.")


def _output_errors(
    model: nn.Module, linears: dict[str, nn.Linear], dequantized: dict[str, torch.Tensor], held_out: torch.Tensor
) -> dict[str, float]:
    """‖X(Ŵ − W)ᵀ‖ / ‖XWᵀ‖ for each layer, with X the inputs that the full-precision model gives it (no bias)."""
    sums = {name: torch.zeros(2, dtype=torch.float64) for name in linears}

    def watch(name: str, linear: nn.Linear):
        def hook(module, inputs, output):
            x = inputs[0].reshape(-1, linear.in_features)
            exact = x @ linear.weight.T
            sums[name] += torch.stack([(x @ dequantized[name].T - exact).square().sum(), exact.square().sum()]).double().cpu()

        return linear.register_forward_hook(hook)

    handles = [watch(name, linear) for name, linear in linears.items()]
    try:
        for window in held_out:
            model(input_ids=window[None].to(model.device))
    finally:
        for handle in handles:
            handle.remove()
    return {name: (change / norm).sqrt().item() for name, (change, norm) in sums.items()}


def _differs(original: torch.Tensor | None, tensor: torch.Tensor) -> bool:
    return original is not None and not torch.equal(original.cpu().float(), tensor.float())


def _group_sizes(weights: dict[str, IntegerWeight]) -> dict[str, int]:
    """How many weights share a scale → in how many layers; a width that no group divides leaves a shorter last group."""
    found: dict[str, int] = {}
    for weight in weights.values():
        sizes = torch.bincount(weight.group_of).unique().tolist()
        key = " and ".join(str(size) for size in sorted(sizes, reverse=True))
        found[key] = found.get(key, 0) + 1
    return found
