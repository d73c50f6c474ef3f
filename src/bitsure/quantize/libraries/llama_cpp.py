"""llama.cpp's rounding (libgguf) in its mixtures of types, written as a GGUF file that llama.cpp loads."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import MISSING

from bitsure.base.errors import UserError, one_of
from bitsure.models.gguf.architecture import row_order, tensor_names, values_as_in_file
from bitsure.models.gguf.gemma import FAMILIES
from bitsure.models.gguf.gguf_header import GgufFile, GgufTensor
from bitsure.models.gguf.rotary import DIVISORS, frequency_divisors
from bitsure.models.gguf.write_gguf import architecture_of, model_metadata, write_gguf
from bitsure.models.gguf.written_vocabulary import vocabulary_metadata
from bitsure.quantize.libraries.gguf_checkpoint import BY_KERNELS
from bitsure.quantize.libraries.llama_cpp_mixture import DEFAULTS, NEED_IMATRIX, Mixture
from bitsure.quantize.quantizer import QuantizationJob, QuantizationTarget, Quantizer

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from torch import nn

    from bitsure.models.locate import Source
    from bitsure.quantize.weights import Weight

log = logging.getLogger(__name__)

GGUF = "model.gguf"  # in the directory of the checkpoint


@dataclass
class LlamaCpp(Quantizer):
    """A kind of GGUF file, such as q4_k_m."""

    type: str = MISSING
    imatrix: bool = False  # weigh the errors of columns by the mean square of their inputs on calibration text

    def __post_init__(self) -> None:
        """Raise UserError for a kind that is not written, or not without an importance matrix."""
        one_of("quant.type", self.type, tuple(DEFAULTS))
        if self.type in NEED_IMATRIX and not self.imatrix:
            raise UserError(
                f"quant={self.type}: llama.cpp rounds this kind with an importance matrix alone. Set quant.imatrix=true, or "
                f"take one of {', '.join(kind for kind in DEFAULTS if kind not in NEED_IMATRIX)}."
            )

    @property
    def name(self) -> str:
        """The kind of file, and whether it was given an importance matrix that it does not need."""
        return self.type + "-imatrix" * (self.imatrix and self.type not in NEED_IMATRIX)

    @property
    def needs_data(self) -> bool:
        """Whether an importance matrix is made of calibration text."""
        return self.imatrix

    @property
    def has_integer_weights(self) -> bool:
        """False: GGUF's blocks are of another layout."""
        return False

    @property
    def changes_model(self) -> bool:
        """False: weights are copied."""
        return False

    @property
    def has_codes(self) -> bool:
        """False: llama.cpp's blocks are not taken apart into codes and scales."""
        return False

    def libraries(self) -> tuple[str, ...]:
        """Return what rounds, writes and names tensors."""
        return ("torch", "transformers", "gguf", "libgguf")

    def bytes_needed(self, modules: nn.Module, dtype: str) -> int:
        """Return the bytes of the blocks, which are written twice: as a checkpoint and as a GGUF file."""
        import libgguf

        kind = libgguf.GGMLQuantizationType[DEFAULTS[self.type]]
        return int(2 * sum(parameter.numel() for parameter in modules.parameters()) * libgguf.row_size(kind, 256) / 256)

    def check(self, target: QuantizationTarget) -> None:
        """Raise UserError if llama.cpp does not have the model or its tokenizer; name widths that need other types."""
        modules: Any = target.modules
        try:
            model_metadata(modules.config)
            vocabulary_metadata(target.source.load_tokenizer(), len(modules.get_input_embeddings().weight))
        except UserError as error:
            raise UserError(f"quant={self.name}: {error}") from error
        window = getattr(modules.config, "sliding_window", None)
        if modules.config.model_type not in FAMILIES and window and window < modules.config.max_position_embeddings:
            log.warning(
                "%s: llama.cpp attends to a whole text and this model to the last %d tokens: longer texts differ there",
                *(self.name, window),
            )
        shapes = _matrices(modules)
        types = self._types(modules, shapes)
        usual = self._types(modules, {name: (rows, 256) for name, (rows, _) in shapes.items()})
        if other := [name for name, kind in types.items() if kind != usual[name]]:
            kinds = ", ".join(sorted({types[name] for name in other}))
            listed = ", ".join(f"{name} ({shapes[name][1]} columns)" for name in other[:3]) + " …" * (len(other) > 3)
            log.warning(
                "%s: %d matrices have widths that its blocks do not fill and take other types (%s), as in llama.cpp: %s",
                *(self.name, len(other), kinds, listed),
            )

    def quantize(self, job: QuantizationJob) -> None:
        """Round every matrix, and write the blocks as a checkpoint and as a GGUF file."""
        import libgguf
        import torch

        from bitsure.quantize.checkpoint.write_checkpoint import write_checkpoint
        from bitsure.quantize.weights import GgufWeight

        model: Any = job.model
        header, state = _header(model), model.state_dict()
        names, types = tensor_names(header, model), self._types(model, _matrices(model))
        importance = mean_squares(model, job.windows) if self.imatrix else {}
        weights: dict[str, Weight] = {}
        others: dict[str, torch.Tensor] = {}
        tensors: dict[str, tuple[NDArray[Any], Any]] = {}
        order = _in_order(names, model)
        for name in order:
            values, layer = state[names[name]].float().numpy(), names[name].removesuffix(".weight")
            kind = libgguf.GGMLQuantizationType[types.get(name, "F32")]
            job.advance(1, total=len(order), unit="tensors")
            if name not in types:
                tensors[name] = values_as_in_file(header, name, values, model), kind
                continue
            rows = libgguf.quantize_rows(values, kind, importance.get(layer))
            tensors[name] = _as_in_file(rows, header, name, model), kind
            if kind.name == "F16":
                others[names[name]] = torch.from_numpy(rows)
            else:
                weights[layer] = GgufWeight(torch.from_numpy(rows), kind.value)
        if (divisors := frequency_divisors(model.config)) is not None:
            tensors[DIVISORS] = divisors, libgguf.GGMLQuantizationType.F32
        write_checkpoint(job.directory, weights, others)
        write_gguf(job.directory / GGUF, header.architecture, self._metadata(job, model), tensors)

    def not_applied(self, checkpoint: Source | None) -> list[str]:
        """Return what llama.cpp rounds besides weights."""
        return list(BY_KERNELS)

    def _metadata(self, job: QuantizationJob, model: Any) -> dict[str, Any]:
        import libgguf

        number = libgguf.LlamaFileType[f"MOSTLY_{self.type.upper()}"].value
        name = f"{job.source.name} {self.type}"  # transformers takes a model that is called just "mistral" for another kind
        general = {"general.name": name, "general.file_type": number, "general.quantization_version": 2}
        rows = len(model.get_input_embeddings().weight)
        return general | model_metadata(model.config) | vocabulary_metadata(job.source.load_tokenizer(), rows)

    def _types(self, model: nn.Module, shapes: Mapping[str, tuple[int, int]]) -> dict[str, str]:
        """Return the type of each matrix."""
        config: Any = model.config
        shared = config.num_attention_heads // config.num_key_value_heads
        mixture = Mixture(self.type, config.num_hidden_layers, shared, config.tie_word_embeddings, self.imatrix)
        return {name: mixture.choose(name, width) for name, (_, width) in shapes.items()}


def mean_squares(model: nn.Module, windows: torch.Tensor) -> dict[str, NDArray[np.float32]]:
    """Return the importance of each column of the blocks' layers: the mean of x² over all tokens, x being the layer's input.

    Args:
        model: The full-precision model.
        windows: Calibration text, token ids, shape (windows, seqlen).

    Returns:
        Layer → (in,) float32.

    Reference: llama.cpp's llama-imatrix.
    """
    from bitsure.quantize.walk.blocks import walk
    from bitsure.quantize.walk.targets import linears

    sums: dict[str, torch.Tensor] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(layer: nn.Module, given: tuple[Any, ...]) -> None:
            sums[name] = sums.get(name, 0) + given[0].flatten(0, -2).double().square().sum(0)

        return hook

    with ExitStack() as stack:
        for prefix, block, _ in walk(model, windows):
            for name, layer in linears(block).items():
                stack.callback(layer.register_forward_pre_hook(watch(f"{prefix}.{name}")).remove)
    return {name: (total / windows.numel()).float().cpu().numpy() for name, total in sums.items()}


def _matrices(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Return the names and shapes (out, in) of the matrices that are rounded, as the file has them."""
    names, state = tensor_names(_header(model), model), model.state_dict()
    shapes = {name: state[names[name]].shape for name in _in_order(names, model)}
    return {name: (shape[0], shape[1]) for name, shape in shapes.items() if len(shape) == 2}


def _in_order(names: Mapping[str, str], model: Any) -> list[str]:
    """Return the tensors of the file in their order; a head that is the embedding is not among them."""
    first = sorted(names, key=lambda name: (name != "token_embd.weight", not name.startswith("blk."), name))
    return [name for name in first if not (name == "output.weight" and model.config.tie_word_embeddings)]


def _header(model: Any) -> GgufFile:
    """Return a file of the model's architecture without tensors, for the names in it."""
    return GgufFile(Path(GGUF), {"general.architecture": architecture_of(model.config)}, {})


def _as_in_file(rows: NDArray[Any], header: GgufFile, name: str, model: nn.Module) -> NDArray[Any]:
    """Return the rows of a matrix in the order in which the file has them."""
    from gguf import GGMLQuantizationType

    tensor = GgufTensor(name, (len(rows), rows.shape[1]), GGMLQuantizationType.F32, 0)
    order = row_order(GgufFile(header.path, header.metadata, {name: tensor}), name, model)
    stored = np.empty_like(rows)
    stored[order] = rows
    return stored
