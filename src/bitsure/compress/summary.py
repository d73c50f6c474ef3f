"""Entropies of a model's codes and their sizes after coding, over all tensors and of each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bitsure.compress import coders
from bitsure.compress.coders import CodedSize
from bitsure.compress.codes import CodedTensor
from bitsure.compress.entropy import Entropy, entropy
from bitsure.results.compressibility import AS_STORED, CoderResult, Codes, EntropyLevel, ScaleBits, TensorCodes


@dataclass(frozen=True)
class _Measured:
    """Entropies and sizes of one tensor; those of some rows are scaled up to all."""

    bits: int
    n: int
    n_measured: int
    weights: int
    stored_bits: float
    statistics_bits: float
    statistics_zstd: CodedSize
    entropy: dict[str, Entropy]
    coded_bits: dict[str, float]
    decode_seconds: dict[str, float]


def summarize(tensors: Iterable[tuple[str, CodedTensor]]) -> Codes | None:
    """Return the entropies and coded sizes of all tensors together and of each; None without tensors.

    Sizes are in bits a weight (or number), scales and zero points counted. Entropies are in bits a code: the mean over tensors,
    weighted by their codes. A tensor of which some rows were measured is assumed to be like these rows.
    """
    measured = {name: _measure(tensor) for name, tensor in tensors}
    if not measured:
        return None
    each = list(measured.values())
    weights = sum(tensor.weights for tensor in each)
    stored_bits = sum(tensor.stored_bits for tensor in each)
    statistics_bits = sum(tensor.statistics_bits for tensor in each)
    bits = _mean_over_codes([tensor.bits for tensor in each], each)
    coded_statistics: float = sum(tensor.statistics_zstd.bits for tensor in each)
    statistics_seconds = sum(tensor.statistics_zstd.seconds for tensor in each)
    if coded_statistics >= statistics_bits:  # Scales that zstd cannot compress stay as they are.
        coded_statistics, statistics_seconds = statistics_bits, 0.0
    results = {}
    for coder in coders.NAMES:
        coded = sum(tensor.coded_bits[coder] for tensor in each) + coded_statistics
        seconds = sum(tensor.decode_seconds[coder] for tensor in each) + statistics_seconds
        results[coder] = CoderResult(
            bits_per_weight=coded / weights,
            ratio=stored_bits / coded,
            seconds_to_decode=seconds,
            decoded_mb_per_second=stored_bits / 8e6 / seconds,
        )
    stored = stored_bits / weights
    best = min(results, key=lambda coder: results[coder].bits_per_weight)
    if results[best].bits_per_weight >= stored:
        best = AS_STORED
    return Codes(
        n=sum(tensor.n for tensor in each),
        n_measured=sum(tensor.n_measured for tensor in each),
        weights=weights,
        bits=bits,
        entropy=_entropy_levels(each, bits),
        bits_per_weight=stored,
        beside_bits_per_weight=ScaleBits(stored=statistics_bits / weights, coded=coded_statistics / weights),
        coders=results,
        best=best,
        bits_per_weight_coded=stored if best == AS_STORED else results[best].bits_per_weight,
        tensors={name: _tensor_codes(tensor) for name, tensor in measured.items()},
    )


def _mean_over_codes(values: Sequence[float], tensors: Sequence[_Measured]) -> float:
    total = sum(tensor.n for tensor in tensors)
    return sum(value * tensor.n for value, tensor in zip(values, tensors, strict=True)) / total


def _entropy_levels(tensors: Sequence[_Measured], bits: float) -> dict[str, EntropyLevel]:
    """Return the mean entropy at each level that all tensors have: tensor, channel, group or token."""
    levels = {}
    for level in [level for level in tensors[0].entropy if all(level in tensor.entropy for tensor in tensors)]:
        entropies = [tensor.entropy[level] for tensor in tensors]
        value = _mean_over_codes([each.value for each in entropies], tensors)
        levels[level] = EntropyLevel(
            value=value,
            corrected=_mean_over_codes([each.corrected for each in entropies], tensors),
            bound=bits / value if value else None,
            n=sum(each.units for each in entropies),
        )
    return levels


def _measure(tensor: CodedTensor) -> _Measured:
    sizes = coders.sizes(tensor.codes, tensor.bits)
    levels = {level: entropy(tensor.codes, tensor.bits, units) for level, units in tensor.units.items()}
    return _Measured(
        bits=tensor.bits,
        n=round(tensor.codes.size / tensor.share),
        n_measured=tensor.codes.size,
        weights=tensor.weights,
        stored_bits=tensor.stored_bits,
        statistics_bits=tensor.statistics_bits,
        statistics_zstd=coders.zstd(tensor.statistics),
        entropy={"tensor": entropy(tensor.codes, tensor.bits)} | levels,
        coded_bits={coder: size.bits / tensor.share for coder, size in sizes.items()},
        decode_seconds={coder: size.seconds / tensor.share for coder, size in sizes.items()},
    )


def _tensor_codes(tensor: _Measured) -> TensorCodes:
    """Return a tensor's part of the summary; its coders' sizes are of the codes alone."""
    return TensorCodes(
        bits=tensor.bits,
        n=tensor.n,
        n_measured=tensor.n_measured,
        entropy={level: each.value for level, each in tensor.entropy.items()},
        bits_per_code={coder: bits / tensor.n for coder, bits in tensor.coded_bits.items()},
    )
