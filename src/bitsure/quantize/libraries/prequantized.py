"""Checkpoints that others quantized, paired with their full-precision parent; they are read where they are."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitsure.base.errors import UserError
from bitsure.base.store import Store
from bitsure.config.model import ModelSettings, check_gguf_file
from bitsure.config.quantizers import QuantizerSettings
from bitsure.models.gguf.gguf_header import is_gguf, read_gguf
from bitsure.models.locate import Source, locate_model
from bitsure.models.weight_files import weight_files
from bitsure.quantize.libraries.gguf_checkpoint import BY_KERNELS, check_gguf, locate_gguf, read_blocks
from bitsure.quantize.modules import empty_modules
from bitsure.quantize.quantizer import QuantizationJob, Quantizer, as_quantizer
from bitsure.results.quantization import Quantization

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger(__name__)


@dataclass
class Prequantized(Quantizer):
    """A checkpoint that others quantized from `model`: a directory or GGUF file (`path`), or a hub repository (`repo`)."""

    path: str | None = None
    repo: str | None = None
    file: str | None = None  # a GGUF file of the repository
    revision: str = "main"

    def __post_init__(self) -> None:
        """Raise UserError unless exactly one of path and repo is given."""
        if (self.path is None) == (self.repo is None):
            raise UserError(
                f"quant=prequantized: needs either quant.path (a directory or a GGUF file) or quant.repo (a hub repository); "
                f"got path={self.path!r}, repo={self.repo!r}. Example: quant=prequantized quant.path=DIR"
            )
        check_gguf_file("quant", self.repo, self.file)

    @property
    def is_gguf(self) -> bool:
        """Whether the checkpoint is a GGUF file: its blocks are copied into the store in the order of the model's rows."""
        return is_gguf(self.file or self.path)

    @property
    def name(self) -> str:
        """The directory's, the file's or the repository's name."""
        return Path(self.path or self.file or self.repo or "").name or "prequantized"

    @property
    def checkpoint_settings(self) -> ModelSettings:
        """The directory or repository."""
        return ModelSettings(path=self.path, repo=self.repo, file=self.file, revision=self.revision)

    @property
    def reads_checkpoint(self) -> bool:
        """Whether the checkpoint is read where it is: a GGUF file is not."""
        return not self.is_gguf

    @property
    def changes_model(self) -> bool:
        """False."""
        return False

    @property
    def has_codes(self) -> bool:
        """Whether it is no GGUF file, whose blocks are not taken apart into codes and scales."""
        return not self.is_gguf

    def libraries(self) -> tuple[str, ...]:
        """Return torch, which unpacks the weights; of GGUF files those that decode and name them."""
        return ("torch", "gguf", "transformers") if self.is_gguf else ("torch",)

    def identity(self, checkpoint: Source | None) -> dict[str, Any]:
        """Return the method and the fingerprint of the checkpoint's content."""
        return {"method": "prequantized", "checkpoint": checkpoint.fingerprint if checkpoint else None}

    def bytes_needed(self, modules: nn.Module, dtype: str) -> int:
        """Return the size of a GGUF file, which is copied; 0 for a checkpoint that is read where it is.

        Of a repository's file the size is taken as that of 8-bit blocks, the largest that are common.
        """
        if self.is_gguf and self.path:
            return Path(self.path).stat().st_size
        return int(sum(parameter.numel() for parameter in modules.parameters()) * 34 / 32) if self.is_gguf else 0

    def quantize(self, job: QuantizationJob) -> None:
        """Copy a GGUF file's blocks; write nothing for a checkpoint that is read where it is."""
        from bitsure.quantize.checkpoint.write_checkpoint import write_checkpoint

        if self.is_gguf:
            assert job.checkpoint is not None
            write_checkpoint(job.directory, *read_blocks(read_gguf(job.checkpoint), job.model))

    def check_proof(self, proof: Quantization, checkpoint: Source | None, model_name: str) -> None:
        """Raise UserError if weights differ from the parent's as much as those of another model would."""
        far = [name for name, layer in proof.layers.items() if layer.weight_error >= 1]
        if far and checkpoint:
            raise UserError(
                f"{checkpoint.path} is not quantized from {model_name}, though its shapes are the same: {len(far)} layers "
                f"differ by more than their own size, such as {far[0]}."
            )

    def not_applied(self, checkpoint: Source | None) -> list[str]:
        """Return what the checkpoint quantizes besides weights, which stays in full precision here."""
        return list(BY_KERNELS) if self.is_gguf else not_applied(checkpoint) if checkpoint else []


def locate(quant: QuantizerSettings, hub_mirror: str | None, store: Store | None = None) -> Source | None:
    """Return the files of an already quantized checkpoint; None for a quantizer that makes its own.

    Args:
        quant: The quantizer's settings.
        hub_mirror: As `paths.hub_mirror`.
        store: Keeps the hashes of the files.

    Raises:
        UserError: As `bitsure.models.locate.locate_model`, and for weights that are not safetensors.
    """
    settings = as_quantizer(quant).checkpoint_settings
    if settings is None:
        return None
    if is_gguf(settings.file or settings.path):
        return locate_gguf(settings, hub_mirror, store)
    source = locate_model(settings, hub_mirror, store, "quant")
    if weight_files(source.path)[0].suffix != ".safetensors":
        raise UserError(f"{source.path} holds its weights as .bin, which is not supported: convert them to safetensors.")
    return source


def check(checkpoint: Source, model: nn.Module, parent: Source) -> None:
    """Raise UserError if the checkpoint is not of this model, before weights are loaded.

    Args:
        checkpoint: The quantized checkpoint's files.
        model: The full-precision model's modules, without weights.
        parent: The full-precision model's files.
    """
    if is_gguf(checkpoint.path):
        check_gguf(checkpoint, model, parent)
    else:
        _check_directory(checkpoint, model, parent.name)


def _check_directory(checkpoint: Source, model: nn.Module, parent: str) -> None:
    """Raise UserError if the checkpoint is not of this model, by its config and its files' headers.

    Args:
        checkpoint: The quantized checkpoint's files.
        model: The full-precision model's modules, without weights.
        parent: The model's name, for messages.
    """
    from bitsure.quantize.checkpoint.read_checkpoint import own_names
    from bitsure.quantize.layouts.known import layout_of, read_settings
    from bitsure.quantize.walk.targets import block_linears

    settings = read_settings(checkpoint.path)
    layout = layout_of(settings, checkpoint.path)
    layout.take({}, settings, checkpoint.path)  # Raises UserError for a variant of the layout that is not supported.
    shapes, parents = _shapes(empty_modules(checkpoint.path)), _shapes(model)
    if differ := sorted(name for name in shapes.keys() | parents.keys() if shapes.get(name) != parents.get(name)):
        name = differ[0]
        raise UserError(
            f"{checkpoint.path} is not quantized from {parent}: {len(differ)} tensors differ, such as {name}, "
            f"{shapes.get(name, 'none')} there and {parents.get(name, 'none')} here."
        )
    own, stored = own_names(model), _names(checkpoint)
    quantized = {own(f"{layer}.weight").removesuffix(".weight") for key in stored if (layer := layout.layer_of(key))}
    layers = set(block_linears(model))
    if missing := sorted(name for name in layers - quantized if not layout.leaves_out(name, settings)):
        raise UserError(
            f"{checkpoint.path}: {len(missing)} layers of {parent} are not quantized in it: {', '.join(missing[:5])}"
            f"{' …' if len(missing) > 5 else ''}, and its settings do not leave them out."
        )
    if not layers & quantized:
        raise UserError(f"{checkpoint.path}: its settings leave out every layer of {parent}, so that nothing is quantized.")
    needed = {name for name, _ in model.named_parameters()} - {
        own(key) for key in stored
    }  # A tied parameter has one of its names.
    if missing := sorted(name for name in needed if name.removesuffix(".weight") not in quantized):
        raise UserError(f"{checkpoint.path} lacks {', '.join(missing[:5])}{' …' if len(missing) > 5 else ''}.")
    if unapplied := not_applied(checkpoint):
        log.warning("%s quantizes its %s too, which stay in full precision here", checkpoint.name, " and ".join(unapplied))


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all tensors of a model, by name."""
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _names(checkpoint: Source) -> set[str]:
    """Return the names of all tensors in the checkpoint's files."""
    from safetensors import safe_open

    names: set[str] = set()
    for path in weight_files(checkpoint.path):
        with safe_open(path, "pt", backend="pread") as file:
            names |= set(file.keys())
    return names


def not_applied(checkpoint: Source) -> list[str]:
    """Return what a checkpoint quantizes besides weights, which stays in full precision here."""
    from bitsure.quantize.layouts.known import read_settings

    settings = read_settings(checkpoint.path)
    unapplied = ["keys and values"] if settings.get("kv_cache_scheme") else []
    if any(group.get("input_activations") for group in settings.get("config_groups", {}).values()):
        unapplied.append("activations")
    if settings.get("load_in_8bit"):
        unapplied.append("activations")
    return unapplied
