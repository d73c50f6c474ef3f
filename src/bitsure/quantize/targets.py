"""Which layers a quantizer must change: every linear layer inside the model's blocks."""

from __future__ import annotations

from torch import nn


def block_linears(model: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers inside the model's repeated blocks, by their names."""
    blocks = tuple(name for name, module in model.named_modules() if isinstance(module, nn.ModuleList))
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and any(name.startswith(f"{block}.") for block in blocks)
    }


def unknown_weights(model: nn.Module) -> list[str]:
    """Weights of two or more dimensions inside the blocks that no quantizer here touches (fused experts, convolutions)."""
    known = {f"{name}.weight" for name in block_linears(model)}
    blocks = tuple(name for name, module in model.named_modules() if isinstance(module, nn.ModuleList))
    inside = [(name, p) for name, p in model.named_parameters() if any(name.startswith(f"{block}.") for block in blocks)]
    return [name for name, parameter in inside if parameter.ndim >= 2 and name not in known]


def skipped_modules(model: nn.Module) -> dict[str, str]:
    """The other modules that hold a weight matrix, and why they keep it."""
    chosen = block_linears(model)
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    skipped = {}
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if name in chosen or weight is None or weight.ndim < 2:
            continue
        if module is head:
            tied = embedding is not None and head.weight is embedding.weight
            skipped[name] = "output head" + (", tied to the embedding" if tied else "")
        elif isinstance(module, nn.Embedding):
            skipped[name] = "embedding"
        else:
            skipped[name] = "outside the blocks"
    return skipped
