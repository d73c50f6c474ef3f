"""GPTQ (Frantar et al. 2023) through gptqmodel: a real packed checkpoint, as people deploy it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import sys
from collections.abc import Iterator
from inspect import isfunction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitsure.base import terminal
from bitsure.base.errors import UserError
from bitsure.base.library_errors import logged_or_quoted
from bitsure.base.out_of_memory import is_out_of_memory
from bitsure.config.gptq_settings import GptqSettings
from bitsure.models.load import BUILD_ERRORS
from bitsure.quantize.libraries.gptq_library import GptqLibrary
from bitsure.quantize.modules import empty_modules
from bitsure.quantize.quantizer import QuantizationJob, QuantizationTarget

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger(__name__)

# Modules whose classes and functions gptqmodel's defuser replaces.
PATCHED = ("transformers.models.", "transformers.conversion_mapping", "transformers.modeling_utils")


class GptqModel(GptqLibrary):
    """gptqmodel, which loads the model itself."""

    packages = ("gptqmodel",)
    changes_model = False
    loads_model = True

    def check(self, quant: GptqSettings, target: QuantizationTarget) -> None:
        """Raise UserError if a layer has widths that the packed format cannot hold."""
        check_fits(quant, target.layer_shapes)

    def bytes_needed(self, quant: GptqSettings, modules: nn.Module, dtype: str) -> int:
        """Return the bytes of the whole model, ready to be deployed: packed layers, and the rest in the computing type."""
        from bitsure.quantize.checkpoint import disk_space

        packed = disk_space.packed_bytes(modules, quant.bits or 0, quant.group_size or 0, 2 + (quant.bits or 0) / 8)
        others = sum(parameter.numel() for parameter in modules.parameters()) - disk_space.layer_numbers(modules)
        return packed + others * disk_space.item_bytes(dtype)

    def quantize(self, quant: GptqSettings, job: QuantizationJob) -> None:
        """Write gptqmodel's own checkpoint."""
        quantize(quant, job)


def check_fits(quant: GptqSettings, shapes: dict[str, tuple[int, int]]) -> None:
    """Raise UserError if a layer (name → (out, in)) has widths that the packed format cannot hold, before any work."""
    if quant.bits == 3 and (odd := {name: shape for name, shape in shapes.items() if shape[0] % 32 or shape[1] % 32}):
        name, shape = next(iter(odd.items()))
        raise UserError(
            f"quant.bits=3: gptqmodel packs 32 values of 3 bits together, so widths must be multiples of 32; "
            f"{len(odd)} layers are not, such as {name} with {shape[0]} × {shape[1]}. "
            f"Ways out: quant.backend=native, quant=gptq4 or quant=rtn3."
        )


def quantize(quant: GptqSettings, job: QuantizationJob) -> None:
    """Quantize the model and write the packed checkpoint.

    What gptqmodel prints goes to the job's log file. Its folder logs/ is made next to that file.
    """
    import torch

    from bitsure.quantize.walk.mixtures import expert_lists

    model_path, out, log_file = job.source.path.absolute(), job.directory.absolute(), job.log_file.absolute()
    config = json.loads((model_path / "config.json").read_text(encoding="utf-8"))
    if config.get("model_type") == "falcon" and config.get("alibi"):
        log.warning(
            "gptqmodel leaves Falcon with ALiBi about twice the output error that GPTQ should (`make families` shows it): "
            "quant.backend=native does not"
        )
    with terminal.output_to(log_file), _kept_in(log_file.parent), _refusals(quant):
        from gptqmodel import GPTQModel, QuantizeConfig
        from gptqmodel.quantization.config import ExpertsRoutingBypass, Fallback, MoEConfig

        settings = QuantizeConfig(
            bits=quant.bits,
            group_size=quant.group_size,
            sym=quant.symmetric,
            desc_act=quant.desc_act,
            true_sequential=quant.true_sequential,
            damp_percent=quant.damp_percent,
            act_group_aware=False,  # Its default reorders columns; the study's setting does not.
            # The older format stores zero points less one, and cannot hold an asymmetric zero point of 0.
            format="gptq" if quant.symmetric else "gptq_v2",
            # Its default rounds to nearest what had little data and says nothing; without any, experts would be left out.
            fallback=Fallback(threshold=1) if expert_lists(empty_modules(job.source.path)) else None,
            offload_to_disk=False,
            moe=MoEConfig(routing=ExpertsRoutingBypass()) if job.all_experts else None,
        )
        # Its own choice on a CPU is bfloat16, which changes half-precision weights before they are quantized.
        model = GPTQModel.load(str(model_path), settings, dtype=getattr(torch, job.dtype), trust_remote_code=False)
        _check_chosen(quant, job, model)
        blocks = model.model.config.get_text_config().num_hidden_layers
        model.layer_callback = lambda layer_idx, submodule_finalized: (
            None if submodule_finalized else job.advance(1, total=blocks, unit="blocks")
        )
        rows = [{"input_ids": row[None], "attention_mask": torch.ones_like(row[None])} for row in job.windows]
        model.quantize(rows, batch_size=8)
        model.save(str(out))
    _check_complete(quant, job)


def _check_chosen(quant: GptqSettings, job: QuantizationJob, model: Any) -> None:
    """Raise UserError if gptqmodel's table of the family lacks layers of a loaded model, before it quantizes the others."""
    inside = {name for together in model.simple_layer_modules(model.model.config, model.quantize_config) for name in together}
    begin = tuple(f"{blocks}." for blocks in model.extract_layers_node())
    names = [name for name, _ in model.model.named_modules() if name.startswith(begin)]
    # in a list of blocks a layer's name begins with its block's number
    chosen = {n for n in names if any(n.startswith(b) and n.removeprefix(b).partition(".")[2] in inside for b in begin)}
    _check_none_left_out(quant, job, chosen)


def _check_complete(quant: GptqSettings, job: QuantizationJob) -> None:
    """Raise UserError if gptqmodel left out layers or stored them in parts, which it does without a word."""
    from safetensors import safe_open

    written = set()
    for path in job.directory.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            written |= {key.removesuffix(".qweight") for key in file.keys() if key.endswith(".qweight")}  # noqa: SIM118 - not a dict
    _check_none_left_out(quant, job, written)


def _check_none_left_out(quant: GptqSettings, job: QuantizationJob, quantized: set[str]) -> None:
    """Raise UserError unless all linear layers in the model's blocks are among those that gptqmodel names."""
    from bitsure.quantize.checkpoint.read_checkpoint import own_names
    from bitsure.quantize.walk.targets import block_linears

    modules = empty_modules(job.source.path)
    own, layers = own_names(modules), block_linears(modules)
    if left_out := sorted(layers.keys() - {own(f"{name}.weight").removesuffix(".weight") for name in quantized}):
        raise UserError(
            f"quant={quant.name}: gptqmodel leaves out {len(left_out)} of the {len(layers)} linear layers in this family's "
            f"blocks, or stores parts of them, such as {left_out[0]}. quant.backend=native quantizes them by our own solver."
        )


def load_packed(directory: Path, dtype: str, device: str = "cpu") -> nn.Module:
    """Return a packed checkpoint as it is deployed, in gptqmodel's plain torch kernel, which serves every bit width."""
    import torch

    directory = directory.absolute()
    with _kept_in(directory):
        from gptqmodel import BACKEND, GPTQModel

        model = GPTQModel.load(
            str(directory), backend=BACKEND.TORCH, device=device, dtype=getattr(torch, dtype), trust_remote_code=False
        )
    packed: nn.Module = model.model.eval()
    return packed


@contextlib.contextmanager
def _refusals(quant: GptqSettings) -> Iterator[None]:
    """Turn what the library raises for families that it does not know into a UserError."""
    from huggingface_hub.errors import StrictDataclassError

    try:
        yield
    except (OSError, StrictDataclassError, *BUILD_ERRORS) as error:
        if is_out_of_memory(error) or getattr(error, "errno", None):  # The latter is a disk's or a network's.
            raise
        raise UserError(
            f"quant={quant.name}: gptqmodel does not quantize this model: {_why(error)}. "
            f"{logged_or_quoted(log, 'gptqmodel', error)} quant.backend=native uses our own solver."
        ) from error


def _why(error: Exception) -> str:
    """Return why gptqmodel refuses or fails, given its error."""
    words = str(error)
    needed = re.search(r"requires (?:package|version) ([\w-]+).* not installed", words)
    if isinstance(error, ImportError):  # transformers', of what a family's code imports
        needed = needed or re.search(r"requires the ([\w-]+) library", words)
    if needed:
        return f"for this family it needs the package {needed[1]}, which is not installed"
    if "failed to auto-detect module tree" in words:
        return "it does not know this family"
    if "Can't load image processor" in words:
        return "it needs the model's preprocessor_config.json, which is not beside the weights"
    return "its code for this family fails"


@contextlib.contextmanager
def _kept_in(folder: Path) -> Iterator[None]:
    """Work in a folder, where the library writes its logs, and restore what it changes for the whole process.

    It sets torch's number of threads to one, gives transformers' modules of mixtures other classes, and classes other methods.
    """
    import torch

    modules: list[Any] = [module for name, module in sys.modules.items() if name.startswith(PATCHED)]
    classes = {part for module in modules for part in vars(module).values() if isinstance(part, type)}
    owners = modules + [kind for kind in classes if kind.__module__.startswith(PATCHED)]
    attributes = [(owner, dict(vars(owner))) for owner in owners]
    os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")  # It requires two, whatever the machine has.
    threads = torch.get_num_threads()
    try:
        with contextlib.chdir(folder):
            yield
    finally:
        torch.set_num_threads(threads)  # Scores must not depend on what was quantized before them.
        for owner, before in attributes:
            for name, value in before.items():
                if vars(owner).get(name) is not value:
                    setattr(owner, name, value)
            for name in [name for name, value in vars(owner).items() if name not in before and isfunction(value)]:
                delattr(owner, name)  # A method that hides an inherited one.
