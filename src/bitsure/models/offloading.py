"""Weights that stay on disk, or in main memory beside a GPU, and come into memory when they are needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def offloaded_parts(module: nn.Module) -> list[nn.Module]:
    """Return the modules inside a module whose own weights accelerate brings when they run."""
    return [part for part in module.modules() if getattr(getattr(part, "_hf_hook", None), "offload", False)]


def blocks_on_disk(model: nn.Module, blocks: str) -> dict[str, str]:
    """Return a `device_map` that leaves a model's blocks on disk and brings everything else into main memory.

    Args:
        model: The model; its weights are not needed.
        blocks: The name of the list of its blocks.
    """
    places = {f"{blocks}.{number}": "disk" for number, _ in model.get_submodule(blocks).named_children()}
    for name, module in model.named_modules():
        if name != blocks and f"{blocks}.".startswith(f"{name}." if name else ""):  # the list stands inside it
            children = [child for child, _ in (*module.named_children(), *module.named_parameters(recurse=False))]
            inside = [f"{name}.{child}" if name else child for child in children]
            places |= {child: "cpu" for child in inside if not f"{blocks}.".startswith(f"{child}.")}
    return places


@contextmanager
def files_not_mapped() -> Iterator[None]:
    """Have transformers read tensors from safetensors files for the length of the `with` block.

    It maps all shards of a checkpoint into memory, which a limit on address space counts.
    """
    import transformers.modeling_utils
    from safetensors import safe_open

    loading: Any = transformers.modeling_utils
    loading.safe_open = _open_unmapped
    try:
        yield
    finally:
        loading.safe_open = safe_open


def bring_without_mapping() -> None:
    """Have accelerate read offloaded tensors for the rest of the process; it maps a whole file for each of them."""
    import accelerate.utils.offload

    bringing: Any = accelerate.utils.offload
    bringing.safe_open = _open_unmapped


def _open_unmapped(*args: Any, **settings: Any) -> Any:
    from safetensors import safe_open

    return safe_open(*args, **settings | {"backend": "pread"})


@contextmanager
def weights_in_memory(module: nn.Module) -> Iterator[None]:
    """Have a module's offloaded weights where it computes for the length of the `with` block, read once however often it runs.

    What is written into them is lost at the end. Other modules stay as they are.
    """
    with ExitStack() as stack:  # which calls back for every part, even where one of them raises
        for part in offloaded_parts(module):
            hook: Any = part._hf_hook
            stack.callback(hook.post_forward, part, None)
            hook.pre_forward(part)
            for name in ("forward", "_hf_hook"):  # by which accelerate, and code of a family, would bring and drop them again
                stack.callback(setattr, part, name, vars(part).pop(name))
        yield
