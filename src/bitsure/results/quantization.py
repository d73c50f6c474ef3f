"""quantization.json: the proof of what a quantizer changed."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from bitsure.results.experts import Experts
from bitsure.results.gguf import TensorType
from bitsure.results.result import Integer, Result


class LayerError(Result):
    """How far one layer moved."""

    weight_error: float
    """‖Ŵ − W‖ / ‖W‖, at least 0."""
    output_error: float
    """‖E‖ / ‖XWᵀ‖ on held-out calibration text with E = Q(X)Ŵᵀ − XWᵀ, at least 0."""
    centred_error: float | None = None
    """‖E − ē‖ / ‖XWᵀ‖ with ē the mean of E over tokens: `output_error` without the offset that is the same for every token; at
    most `output_error`. Absent in older files."""
    first_token_error: float | None = None
    """`output_error` of the texts' first tokens alone, which attention reads most; absent in older files, and where a layer is
    given tokens without their places."""
    bits_per_weight: float | None = None
    """Bits that a weight of the layer takes, scales and zero points counted; absent where weights are kept, and in older
    files."""


class RoundedStates(Result):
    """What rounding activations, or keys and values, did; the number format's own settings stand first."""

    bits: int | None
    """Bits of a number."""
    group_size: int | None
    """Values that share a scale; −1: a token (or head), 0: a tensor."""
    symmetric: bool | None
    """Whether there are no zero points; true for every format but integers."""
    format: str
    """The number format, such as `int` or `mxfp4`."""
    errors: dict[str, float]
    """Layer, or block and `keys` or `values` → ‖Q(x) − x‖ / ‖x‖ on held-out text."""
    off_grid: float
    """The largest relative part of a value that the model's own type rounds away from the grid; 0 in float32."""
    always_zero: list[str]
    """Names whose values are all zero, so that rounding has nothing to change."""
    values_per_token: float | None = None
    """Values that are rounded for each token of text, over all layers or blocks; absent in older files."""
    bits_per_value: float | None = None
    """Bits that a value takes where the method is deployed: for each group a scale of 16 bits (8 in MX formats, NVFP4 and
    int4_fp8) and, where there are zero points, one of `bits`; absent in older files."""


class ReassemblySearch(Result):
    """The search of the threshold above which channels are taken apart, for layers that read one input."""

    largest_over_median: float
    """The largest magnitude of a channel ÷ the median channel's, at least 1 (or 0 where all are 0)."""
    channels_moved: int
    """Copies of outlier channels that were made."""
    error_whole: float
    """‖change of the block's output‖ / ‖output‖ by rounding these layers, with whole channels."""
    error: float
    """The same with the channels that were taken apart."""
    tokens: int
    """Tokens of calibration text that thresholds were compared on."""


class TransformEffect(Result):
    """What a transform before rounding did."""

    measure: str
    """What the numbers in `layers` measure."""
    layers: dict[str, float]
    """Layers that read one input → how strongly the transform changed them."""
    nothing_to_move: list[str]
    """Layers where the transform found nothing to do."""
    searched: dict[str, ReassemblySearch] | None = None
    """Reassembly: layers → the search of their threshold."""
    folded_into: dict[str, str] | None = None
    """Smoothing: layers → the layer that takes up the division, or `at run time`."""
    largest_input: dict[str, tuple[float, float]] | None = None
    """Reassembly: layer → the largest |input| before and after."""
    rotations: dict[str, str] | None = None
    """Rotations: `r1` … `r4` → the matrix and where it is applied."""
    learned_loss: tuple[float, float] | None = None
    """Learned rotations: the loss of the rounded model on calibration text before and after, nats a token."""


class CalibrationText(Result):
    """The quantizer's data."""

    name: str
    """The text's name."""
    windows: int
    """Windows of it that the quantizer was given."""
    seqlen: int
    """Tokens of a window."""


class Quantization(Result):
    """quantization.json."""

    modules_quantized: list[str]
    """The layers whose weights were quantized."""
    modules_skipped: dict[str, str]
    """Module → why it keeps its weights."""
    parameter_share: Annotated[float, Field(ge=0, le=1)]
    """The share of the model's parameters that was quantized, in [0, 1]."""
    parameters: Integer | None = None
    """The quantized model's parameters, where they are not as many as full precision's: a rotated model's head is no longer the
    embedding's matrix."""
    bits_per_weight: Annotated[float, Field(ge=0, le=128)]
    """Bits a quantized weight takes, scales and zero points counted."""
    relative_error: float
    """‖Ŵ − W‖ / ‖W‖ over all quantized layers."""
    group_sizes: dict[str, int]
    """How many weights share a scale → in how many layers."""
    other_tensors_rounded: list[str]
    """Tensors other than the layers' weights that changed, such as norms under a cast."""
    layers: dict[str, LayerError]
    """Layer → how far it moved."""
    activations: RoundedStates | None = None
    """Absent where activations are not rounded."""
    keys_and_values: RoundedStates | None = None
    """Absent where keys and values are not rounded."""
    transforms: dict[str, TransformEffect] | None = None
    """Transform → what it did; absent where there was none."""
    experts: Experts | None = None
    """A mixture's experts and the decisions of its gates; absent for other models."""
    quantizer: str | None = None
    """The quantizer's name."""
    not_applied: list[str] | None = None
    """What the quantizer rounds besides weights where it is deployed, and is not rounded here."""
    not_used: list[str] | None = None
    """Of a GGUF file: what llama.cpp computes with and is not used here, a sentence each; absent for other checkpoints."""
    tensor_types: dict[str, TensorType] | None = None
    """Of a GGUF file: type, such as `Q4_K` → its tensors; absent for other checkpoints."""
    calib_data: CalibrationText | None = None
    """The calibration text."""
    seconds: float | None = None
    """Wall time of quantizing, seconds, when the weights were made."""
    peak_memory_bytes: int | None = None
    """The most memory that the process held while it quantized and verified, bytes, its libraries' too; older files count
    quantizing alone."""
    peak_gpu_memory_bytes: int | None = None
    """The most that tensors took on all GPUs meanwhile, bytes; null without one."""
    bytes_on_disk: int | None = None
    """Bytes of the quantized checkpoint's weight files."""
    checkpoint: str | None = None
    """The directory of the quantized checkpoint, which `bitsure export` writes as other programs load it where a layout has
    room for it, or its GGUF file; absent in older files."""
    bits_per_weight_coded: float | None = None
    """Bits a weight takes after entropy coding; absent where there are no codes."""
    coded_with: str | None = None
    """The coder of `bits_per_weight_coded`."""
    code_entropy: float | None = None
    """The codes' entropy, bits a code."""
    load_seconds: float | None = None
    """The shortest time to load the weights over `compress.bandwidth`, seconds."""
