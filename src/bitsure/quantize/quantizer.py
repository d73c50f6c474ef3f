"""The interface of a quantizer: its settings, what rules it out, and its work, in one class.

A quantizer of one's own derives from `Quantizer`; docs/extending.md has an example.
"""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitsure.base import terminal
from bitsure.base.errors import UserError
from bitsure.base.store import Store, hash_files
from bitsure.config.model import ModelSettings
from bitsure.config.number_formats import Activations
from bitsure.config.quantizers import QuantizerSettings, Rounded
from bitsure.models.load import load_model
from bitsure.models.locate import Source
from bitsure.results.quantization import Quantization

if TYPE_CHECKING:
    import torch
    from torch import nn

    from bitsure.quantize.weights import Weight


@dataclass(frozen=True)
class QuantizationTarget:
    """The model that is to be quantized, before its weights are loaded."""

    source: Source
    """The full-precision model's files."""
    dtype: str
    """The type that is computed in, such as `float32`."""
    modules: nn.Module
    """The model's modules on the meta device, its experts one by one: shapes without weights."""

    @property
    def layer_shapes(self) -> dict[str, tuple[int, int]]:
        """Return the layers that have to be quantized, by name, with the shape (out, in) of their weights."""
        from bitsure.quantize.walk.targets import block_linears, matrix

        shapes = {name: matrix(layer).shape for name, layer in block_linears(self.modules).items()}
        return {name: (shape[0], shape[1]) for name, shape in shapes.items()}

    @property
    def has_experts(self) -> bool:
        """Whether the model is a mixture of experts."""
        from bitsure.quantize.walk.mixtures import expert_lists

        return bool(expert_lists(self.modules))


@dataclass
class QuantizationJob:
    """What a quantizer works with, and where it writes."""

    source: Source
    """The full-precision model's files."""
    dtype: str
    """The type that is computed in, such as `float32`."""
    windows: torch.Tensor
    """Calibration text as token ids, shape (nsamples, seqlen); no rows where `needs_data` is False."""
    held_out: torch.Tensor
    """Text that the proof is measured on, shape (windows, seqlen); quantizing must not learn from it."""
    directory: Path
    """The empty directory that the checkpoint is written into."""
    parts: Path
    """A directory that outlives an interrupted run; what lies there may be taken up again. It may not exist."""
    store: Store
    """Where results are kept that other quantizers can use too."""
    log_file: Path
    """Where the output of libraries goes."""
    advance: Callable[..., None] = lambda *steps, **total: None
    """Progress: `advance(1, total=n, unit="layers")` after each of n steps."""
    matched: Quantization | None = None
    """The proof of `matched_quantizer`; None where the quantizer has none."""
    checkpoint: Path | None = None
    """The files of `checkpoint_settings`; None where the quantizer makes its own."""
    all_experts: bool = False
    """Whether a mixture's experts each learn from every token, whatever the gate decides."""
    calibration: Mapping[str, Any] = field(default_factory=dict)
    """What text `windows` are of, for readers: its name, nsamples, seqlen and seed."""
    places: Mapping[str, str] | None = None
    """Where the model's weights lie, as accelerate's `device_map`; None: all of them in main memory."""
    _model: nn.Module | None = field(default=None, init=False, repr=False)

    @property
    def model(self) -> nn.Module:
        """The full-precision model, in evaluation mode on the CPU, a mixture's experts one by one; loaded when first used.

        With `places` its blocks are on disk: `bitsure.models.offloading.weights_in_memory` brings one.
        """
        if self._model is None:
            from bitsure.quantize.walk.mixtures import read_all, separate_experts

            with terminal.output_to(self.log_file):
                self._model, _ = load_model(self.source.path, self.dtype, "cpu", self.source.settings, self.places)
            separate_experts(self._model)
            if self.all_experts:
                read_all(self._model)
        return self._model

    def forget_model(self) -> None:
        """Load the model again when it is next used, because it was changed."""
        self._model = None

    def layers(self) -> dict[str, torch.Tensor]:
        """Return the weights that have to be quantized, by layer name, as (out, in) float32."""
        from bitsure.quantize.walk.targets import block_linears, matrix

        return {name: matrix(layer).detach().float() for name, layer in block_linears(self.model).items()}

    def write(self, weights: Mapping[str, Weight]) -> None:
        """Write the checkpoint and read it back.

        Args:
            weights: Layer name → quantized weight, for every name that `layers` has. `DenseWeight(values, bits)` of
                `bitsure.quantize.weights` is the simplest: what dequantizing gives, and the bits that a weight takes.

        Raises:
            UserError: If a value is no `Weight`.
        """
        from bitsure.quantize.checkpoint.write_checkpoint import write_checkpoint
        from bitsure.quantize.weights import Weight

        for name, weight in weights.items():
            if not isinstance(weight, Weight):
                raise UserError(
                    f"job.write: {name} is a {type(weight).__name__}; a Weight of bitsure.quantize.weights is needed, such as "
                    f"DenseWeight(values, bits)."
                )
        write_checkpoint(self.directory, weights)


@dataclass
class Quantizer(QuantizerSettings):
    """A quantizer: a dataclass whose fields are its settings, filled by Hydra from conf/quant.

    `name` and `quantize` are needed; everything else has a default that suits a quantizer of weights.
    """

    @abstractmethod
    def quantize(self, job: QuantizationJob) -> None:
        """Write the quantized weights of every layer of `job.layers()`, most simply with `job.write`.

        Raises:
            UserError: If that is impossible with this model, text or these settings.
        """

    def check(self, target: QuantizationTarget) -> None:
        """Raise UserError for what the model's layers or its type rule out, before weights are loaded."""
        return

    def check_model_settings(self, model: ModelSettings) -> None:
        """Raise UserError for what the settings of the model rule out, before it is looked for."""
        return

    def bytes_needed(self, modules: nn.Module, dtype: str) -> int:
        """Return about how many bytes the checkpoint takes on disk.

        Args:
            modules: The model; its weights are not needed.
            dtype: The type that is computed in.
        """
        from bitsure.quantize.checkpoint import disk_space

        return disk_space.dense_bytes(modules, "float32")

    def libraries(self) -> tuple[str, ...]:
        """Return the packages whose versions decide what the weights are; they go into the store's key."""
        return ("torch", "transformers")

    def identity(self, checkpoint: Source | None) -> dict[str, Any]:
        """Return what the weights in the store are found by: `method` and the settings.

        Args:
            checkpoint: The already quantized checkpoint of `checkpoint_settings`, if there is one.
        """
        kind = type(self)
        if kind.__module__.partition(".")[0] == __name__.partition(".")[0]:
            return {"method": kind.__name__.lower(), **asdict(self)}
        code = inspect.getsourcefile(kind)
        written = {"code": hash_files([Path(code)])} if code else {}  # another text of it may make other weights
        return {"method": f"{kind.__module__}.{kind.__qualname__}", **written, **asdict(self)}

    @property
    def changes_model(self) -> bool:
        """Whether `quantize` changes `job.model`, so that the proof needs it loaded again."""
        return True

    @property
    def moves_model(self) -> bool:
        """Whether the whole model runs while it is quantized, on a GPU if there is one; otherwise blocks run one by one."""
        return False

    @property
    def copies_model(self) -> bool:
        """Whether a copy of the whole model in float32 runs while it is quantized, on a GPU if there is one."""
        return False

    @property
    def quantizes_whole_model(self) -> bool:
        """Whether tensors outside the blocks' linear layers change too, as under a cast."""
        return False

    @property
    def works_by_block(self) -> bool:
        """Whether `quantize` reads the weights of one block at a time, so that the others stay on disk."""
        return False

    @property
    def has_codes(self) -> bool:
        """Whether weights or activations become codes, whose compressibility can be measured."""
        return True

    @property
    def changes_outputs(self) -> bool:
        """Whether the layers' outputs change, so that noise can be matched to it."""
        return True

    @property
    def rounded_activations(self) -> Activations | None:
        """The number format that layers' inputs are rounded to while the model runs; None where they are not."""
        return None

    @property
    def matched_quantizer(self) -> Quantizer | None:
        """The quantizer whose output error this one is matched to, which is made first; None for most."""
        return None

    @property
    def checkpoint_settings(self) -> ModelSettings | None:
        """Where an already quantized checkpoint lies that has to be found; None for a quantizer that makes its own."""
        return None

    @property
    def reads_checkpoint(self) -> bool:
        """Whether scoring reads the checkpoint of `checkpoint_settings`, and not what `quantize` wrote."""
        return False

    def with_bits(self, bits: int) -> Rounded | None:
        """Return the same quantizer of weights with other bits; None if its layers cannot have bits of their own."""
        return None

    def check_proof(self, proof: Quantization, checkpoint: Source | None, model_name: str) -> None:
        """Raise UserError if quantization.json shows that the weights are not of this model."""
        return

    def not_applied(self, checkpoint: Source | None) -> list[str]:
        """Return what is rounded besides weights where the quantizer is deployed, and is not rounded here."""
        return []


def as_quantizer(settings: QuantizerSettings) -> Quantizer:
    """Return the quantizer of a config. Raises UserError for a class that has settings and does no work."""
    if isinstance(settings, Quantizer):
        return settings
    kind = type(settings)
    raise UserError(
        f"quant._target_={kind.__module__}.{kind.__qualname__}: it must derive from bitsure.quantize.Quantizer, which says "
        f"how a model is quantized."
    )
