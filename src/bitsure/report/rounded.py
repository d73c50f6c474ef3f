"""What a run rounded: weights, activations, keys and values, each with its bits, its error and its bytes."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

from bitsure.base.byte_sizes import decimal_size
from bitsure.results import Provenance, Quantization
from bitsure.results.quantization import RoundedStates
from bitsure.results.run_files import ModelOrigin

WEIGHTS = "weights"
STATE_BITS = 16  # the least that full precision computes in: a weight file with fewer was rounded, its states are not
TASKS_NAMED = 3  # tasks whose number of questions is written out; of more the sum is


@dataclass(frozen=True)
class RoundedPart:
    """A part of the model that a quantizer rounds, or the weights, which it may keep."""

    name: str
    """`weights`, `activations` or `keys and values`."""
    number_format: str | None
    """Such as `int` or `mxfp4`; None for weights, whose format a checkpoint may not name."""
    bits: float | None
    """Bits of a number, scales and zero points counted; None where it is not known."""
    error: float | None
    """‖Q(x) − x‖ / ‖x‖: of the weights together, otherwise the mean over layers; None for weights that are kept."""
    bytes: float | None
    """Bytes of the whole model as shipped, or that a token takes; None where it is not known."""
    full_bytes: float | None
    """The same in full precision."""

    @property
    def sentence(self) -> str:
        """Return the part in words, such as `weights: 4.25 bits, rounding error 9.8% of their norm, model 1.2 MB`."""
        kind = f"{self.number_format} " if self.number_format not in (None, "int") else ""
        facts = [] if self.bits is None else [f"{kind}{self.bits:.4g} bits"]
        facts.append("not rounded" if self.error is None else f"rounding error {self.error:.1%} of their norm")
        if self.bytes is not None:
            instead = "" if self.full_bytes in (None, self.bytes) else f" instead of {decimal_size(self.full_bytes)}"
            size = f"{decimal_size(self.bytes)}{instead}"
            facts.append(f"model {size}" if self.name == WEIGHTS else f"{size} a token")
        return f"{self.name}: {', '.join(facts)}"


def rounded_parts(quantization: Quantization, model: ModelOrigin | None) -> list[RoundedPart]:
    """Return what was rounded: the weights first, whether or not they were, then activations, and keys and values.

    Args:
        quantization: The proof of what was quantized.
        model: The full-precision model; None where it is not known, and with it the sizes.
    """
    full, parameters = (model.bytes_on_disk, model.parameters) if model else (None, None)
    weights = RoundedPart(
        name=WEIGHTS,
        number_format=None,
        bits=quantization.bits_per_weight,
        error=quantization.relative_error if quantization.modules_quantized else None,
        bytes=shipped_bytes(quantization, model),
        full_bytes=full,
    )
    stored_bits = max(STATE_BITS, round(8 * full / parameters)) if full and parameters else None  # headers count a little
    states = {"activations": quantization.activations, "keys and values": quantization.keys_and_values}
    return [weights, *(_states(name, rounded, stored_bits) for name, rounded in states.items() if rounded)]


def shipped_bytes(quantization: Quantization | None, model: ModelOrigin | None) -> int | None:
    """Return the bytes of a whole model as it would be shipped: quantized weights at their bits, the rest as before.

    This is not the size of a file written here, since backends differ in what they keep besides the quantized layers; but a
    GGUF file is shipped as it is. Where layers of a model from such a file are quantized, the rest is shipped decoded.

    Args:
        quantization: The proof of what was quantized; None in full precision.
        model: The full-precision model.

    Returns:
        The size; None where the model's is not known.
    """
    if quantization is not None and quantization.tensor_types and quantization.bytes_on_disk is not None:
        return quantization.bytes_on_disk
    if quantization is None or model is None or model.bytes_on_disk is None or model.parameters is None:
        return model.bytes_on_disk if model else None
    share, parameters = quantization.parameter_share, quantization.parameters or model.parameters
    whole = model.parameters * model.gguf.decoded_bits / 8 if model.gguf and share else model.bytes_on_disk
    kept = whole / model.parameters * parameters * (1 - share)
    return round(kept + parameters * share * quantization.bits_per_weight / 8)


def at_run_time(quantization: Quantization) -> list[str]:
    """Return what is rounded while the model runs, which no published layout of a checkpoint says."""
    states = {"activations": quantization.activations, "keys and values": quantization.keys_and_values}
    return [what for what, rounded in states.items() if rounded]


def checkpoint(quantization: Quantization) -> str | None:
    """Return where the checkpoint is, and whether only bitsure can run it; None where it is not known."""
    if (place := quantization.checkpoint) is None or not (rounds := at_run_time(quantization)):
        return place
    return f"{place} (for bitsure alone: `bitsure export` cannot write that {' and '.join(rounds)} are rounded)"


def summary(quantization: Quantization, model: ModelOrigin | None) -> str:
    """Return what was rounded as one line; the arguments are those of `rounded_parts`."""
    return "; ".join(part.sentence for part in rounded_parts(quantization, model)) + "."


def questions_asked(provenance: Provenance | None) -> str | None:
    """Return how many of their questions the tasks were asked, such as `asked: 40 of 2,376 questions of arc_easy`.

    Returns:
        One line; None where no limit was set, or it left no question out.
    """
    limit = (provenance.asked or {}).get("limit") if provenance else None
    if provenance is None or limit is None:
        return None
    counts = provenance.questions
    if not counts:
        return f"asked: the first questions of each task only (task.limit={limit})."
    if all(count.asked == count.available for count in counts.values()):
        return None
    named = [f"{count.asked:,} of {count.available:,} questions of {task}" for task, count in counts.items()]
    if len(named) > TASKS_NAMED:
        asked, available = (sum(getattr(count, field) for count in counts.values()) for field in ("asked", "available"))
        named = [f"{asked:,} of {available:,} questions of {len(counts)} tasks"]
    return f"asked: {', '.join(named)} (task.limit={limit})."


def _states(name: str, rounded: RoundedStates, stored_bits: float | None) -> RoundedPart:
    values, bits = rounded.values_per_token, rounded.bits_per_value
    return RoundedPart(
        name=name,
        number_format=rounded.format,
        bits=rounded.bits if bits is None else bits,
        error=fmean(rounded.errors.values()) if rounded.errors else None,
        bytes=None if values is None or bits is None else values * bits / 8,
        full_bytes=None if values is None or stored_bits is None else values * stored_bits / 8,
    )
