"""GPTQ (Frantar et al. 2023) through auto-gptq 0.7.1, the study's own library; only its environment has it.

It was last changed in 2024 and expects a GPU. What it assumes of torch and transformers is provided around it.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitsure.base import terminal
from bitsure.base.errors import UserError
from bitsure.config.gptq_settings import GptqSettings
from bitsure.quantize.libraries.gptq_library import GptqLibrary
from bitsure.quantize.quantizer import QuantizationJob, QuantizationTarget

if TYPE_CHECKING:
    import torch
    from torch import nn

# Those of its families that run on transformers 4.57: it does not reach the first block of Qwen2 and GPT-2, nor Mixtral's gate.
FAMILIES = ("opt", "bloom", "llama", "mistral", "gpt_neox", "gemma", "falcon")


class AutoGptq(GptqLibrary):
    """auto-gptq, which replaces the layers of the model that it is given."""

    packages = ("auto_gptq",)
    changes_model = True
    loads_model = True

    def check(self, quant: GptqSettings, target: QuantizationTarget) -> None:
        """Raise UserError for a family, a type or widths that the library cannot do."""
        check_fits(quant, _family(target.modules), target.dtype, target.layer_shapes)

    def bytes_needed(self, quant: GptqSettings, modules: nn.Module, dtype: str) -> int:
        """Return the bytes of the whole model, with scales of the computing type and a tied head once more."""
        from bitsure.quantize.checkpoint import disk_space

        size = disk_space.item_bytes(dtype)
        packed = disk_space.packed_bytes(modules, quant.bits or 0, quant.group_size or 0, size + (quant.bits or 0) / 8)
        numbers: int = sum(tensor.numel() for tensor in modules.state_dict().values())
        others = numbers - disk_space.layer_numbers(modules)
        return packed + others * size

    def quantize(self, quant: GptqSettings, job: QuantizationJob) -> None:
        """Write auto-gptq's own checkpoint."""
        quantize(job.model, quant, job.windows, job.directory, job.log_file, job.advance)


def _family(model: nn.Module) -> str:
    """Return transformers' model type."""
    config: Any = model.config
    return str(config.model_type)


def check_fits(quant: GptqSettings, family: str, dtype: str, shapes: dict[str, tuple[int, int]]) -> None:
    """Raise UserError for what the library cannot do, or would write wrongly without a warning.

    Args:
        quant: The settings of GPTQ.
        family: transformers' model type.
        dtype: The type that the model computes in, a torch type's name.
        shapes: Layer → (out, in).
    """
    ways_out = "Ways out: quant.backend=native or quant.backend=gptqmodel."
    if family not in FAMILIES:
        raise UserError(f"quant.backend=auto_gptq: it can do {', '.join(FAMILIES)}, and not {family}. {ways_out}")
    if odd := {name: shape for name, shape in shapes.items() if shape[0] % 32 or shape[1] % 32}:
        name, (out, width) = next(iter(odd.items()))
        raise UserError(
            f"quant.backend=auto_gptq: it packs whole words only, so widths must be multiples of 32; {len(odd)} layers "
            f"are not, such as {name} with {out} × {width}. {ways_out}"
        )
    if quant.bits == 8 and dtype == "bfloat16":
        raise UserError(
            "quant.backend=auto_gptq: it stores scales in the computing type, and bfloat16 has too few digits for 8 bits. "
            "Give model.dtype=float16 or model.dtype=float32."
        )


def quantize(
    model: nn.Module, quant: GptqSettings, windows: torch.Tensor, out: Path, log_file: Path, advance: Callable[..., None]
) -> None:
    """Quantize a model and write the packed checkpoint.

    Args:
        model: In full precision, on the CPU. Its layers are replaced.
        quant: The settings of GPTQ.
        windows: Token ids, shape (nsamples, seqlen).
        out: The checkpoint's directory.
        log_file: Receives what auto-gptq prints and logs.
        advance: Called after each block.

    Raises:
        UserError: If a Hessian is not positive definite after the damping, or the checkpoint cannot hold a zero point.
    """
    import torch

    with terminal.output_to(log_file), _logged_to(log_file), _patched(model), _returning_tuples(model, advance):
        from auto_gptq import BaseQuantizeConfig
        from auto_gptq.modeling.auto import GPTQ_CAUSAL_LM_MODEL_MAP

        settings = BaseQuantizeConfig(
            bits=quant.bits,
            group_size=quant.group_size,
            sym=quant.symmetric,
            desc_act=quant.desc_act,
            damp_percent=quant.damp_percent,
            true_sequential=quant.true_sequential,
        )
        # Its from_pretrained refuses a machine without a GPU, and reads the config with remote code.
        library = GPTQ_CAUSAL_LM_MODEL_MAP[_family(model)](model, False, settings)
        library.quantize([{"input_ids": row[None], "attention_mask": torch.ones_like(row[None])} for row in windows])
        library.save_quantized(str(out))


@contextlib.contextmanager
def _patched(model: nn.Module) -> Iterator[None]:
    """Let the library use the CPU if there is no GPU, and a solver that names the layer on which it fails."""
    import torch
    from auto_gptq.modeling import _base

    names = {module: name for name, module in model.named_modules()}

    class Solver(_base.GPTQ):  # type: ignore[misc]  # the library has no types
        def fasterquant(self, percdamp: float, **settings: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            name = names[self.layer]
            try:
                scales, zeros, groups = super().fasterquant(percdamp=percdamp, **settings)
            except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]  # torch documents it, its stubs do not
                raise UserError(
                    f"quant.damp_percent={percdamp}: the Hessian of {name} is not positive definite after this damping. "
                    f"Give more of it, or more text (calib.nsamples)."
                ) from error
            if (zeros == 0).any():  # They are stored less one: 0 would set all bits, also those of other rows.
                raise UserError(
                    f"quant.symmetric=false: {name} got zero points of 0, which auto-gptq's checkpoints cannot hold. "
                    f"Ways out: quant.symmetric=true, quant.backend=native or quant.backend=gptqmodel."
                )
            return scales, zeros, groups

    def no_synchronize(device: object = None) -> None:
        """Do nothing: a CPU has nothing to wait for."""

    originals = _base.GPTQ, _base.CUDA_0, torch.cuda.synchronize
    _base.GPTQ = Solver
    if not torch.cuda.is_available():
        _base.CUDA_0, torch.cuda.synchronize = torch.device("cpu"), no_synchronize
    try:
        yield
    finally:
        _base.GPTQ, _base.CUDA_0, torch.cuda.synchronize = originals


@contextlib.contextmanager
def _returning_tuples(model: nn.Module, advance: Callable[..., None]) -> Iterator[None]:
    """Let blocks return tuples, as they did when the library was written: of a tensor it would take the first window's states.

    `advance` is called for each block when the next one begins, and for the last at the end.
    """
    from bitsure.quantize.walk.targets import find_blocks

    _, blocks = find_blocks(model)
    begun: list[nn.Module] = []

    def as_tuple(block: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor | tuple[Any, ...]) -> tuple[Any, ...]:
        if block not in begun:
            begun.append(block)
            advance(1 if len(begun) > 1 else 0, total=len(blocks), unit="blocks")
        return output if isinstance(output, tuple) else (output,)

    handles = [block.register_forward_hook(as_tuple) for block in blocks]
    try:
        yield
        advance(1, total=len(blocks), unit="blocks")
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def _logged_to(file: Path) -> Iterator[None]:
    """Send what the library logs to a file, and not through other handlers to the terminal."""
    logger, handler = logging.getLogger("auto_gptq"), logging.FileHandler(file)
    logger.propagate = False
    logger.addHandler(handler)
    try:
        from auto_gptq.modeling import _base

        _base.logger.handlers.clear()  # Its own handler holds the stderr of the first run.
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()
