"""Show compressibility.json: as a sentence, and as the tables of the page."""

from __future__ import annotations

from dataclasses import dataclass

from bitsure.results import Compressibility
from bitsure.results.compressibility import AS_STORED, CODER_LABELS, Codes, EntropyLevel, Loading

CODER_COLUMNS = (
    "",
    "",
    "bits per weight",
    "times smaller",
    "decoded MB/s",
    "MB",
    "seconds to load",
    "faster below MB/s",
)
ENTROPY_COLUMNS = ("", "", "bits", "entropy", "corrected", "times smaller at most", "n")


@dataclass(frozen=True)
class CompressibilitySection:
    """What the page shows; all numbers are formatted."""

    sentence: str
    measured: str
    """How many codes there are and how many were measured."""
    bandwidth: float | None
    """Megabytes per second; None where weights are kept."""
    activations: str | None
    """Format and text of the activations that were measured; None where none were."""
    coders: list[tuple[str, ...]]
    """Rows under CODER_COLUMNS."""
    entropies: list[tuple[str, ...]]
    """Rows under ENTROPY_COLUMNS."""
    coder_columns: tuple[str, ...] = CODER_COLUMNS
    entropy_columns: tuple[str, ...] = ENTROPY_COLUMNS


def sentence(result: Compressibility) -> str:
    """Return the size of the codes, coded and not, and which coder loads fastest, in words."""
    weights, loading = result.weights, result.loading
    if weights is None or loading is None:
        states = result.activations
        if states is None:
            return "Weights are kept in full precision."
        entropy = states.entropy["tensor"].value
        return f"Weights are kept in full precision. Activations: {states.bits:g} bits with an entropy of {entropy:.2f} bits."
    coded = ""
    if weights.best != AS_STORED:
        coded = f", {weights.bits_per_weight_coded:.2f} with the {CODER_LABELS[weights.best]}"
    fastest = min(loading.by_coder, key=lambda coder: loading.by_coder[coder].seconds)
    how = "as stored" if fastest == AS_STORED else f"with the {CODER_LABELS[fastest]}, decoded on one thread here"
    return (
        f"Size: {weights.bits_per_weight:.2f} bits per weight as stored{coded} (the codes have "
        f"{weights.bits:.2f} bits and an entropy of {weights.entropy['tensor'].value:.2f}). "
        f"Fastest to load at {loading.bandwidth_mb_per_second:g} MB/s: {how}, {_time(loading.by_coder[fastest].seconds)}."
    )


def section(result: Compressibility) -> CompressibilitySection:
    """Return what the page shows of compressibility."""
    parts = {"weights": result.weights, "activations": result.activations}
    measured = {what: codes for what, codes in parts.items() if codes}
    states, loading = result.activations, result.loading
    return CompressibilitySection(
        sentence=sentence(result),
        measured="; ".join(f"{codes.n_measured:,} of {codes.n:,} codes of {what}" for what, codes in measured.items()),
        bandwidth=loading.bandwidth_mb_per_second if loading else None,
        activations=f"{states.format}, on {states.tokens:,} tokens of {states.text}" if states else None,
        coders=[
            (what, *_size(codes, coder), *_loading(loading if what == "weights" else None, coder))
            for what, codes in measured.items()
            for coder in (AS_STORED, *CODER_LABELS)
        ],
        entropies=[
            (what, f"per {level}", f"{codes.bits:.2f}", *_entropy(entropy))
            for what, codes in measured.items()
            for level, entropy in codes.entropy.items()
        ],
    )


def _size(codes: Codes, coder: str) -> tuple[str, str, str, str]:
    if coder == AS_STORED:
        return "as stored", f"{codes.bits_per_weight:.3f}", "1", ""
    result = codes.coders[coder]
    decoded = f"{result.decoded_mb_per_second:,.0f}"
    return CODER_LABELS[coder], f"{result.bits_per_weight:.3f}", f"{result.ratio:.3f}", decoded


def _loading(loading: Loading | None, coder: str) -> tuple[str, str, str]:
    """Megabytes, seconds and break-even bandwidth; empty for activations, which are not loaded."""
    if loading is None:
        return "", "", ""
    load = loading.by_coder[coder]
    below = load.faster_below_mb_per_second
    faster = "" if coder == AS_STORED else "never" if below is None else f"{below:,.3g}"
    return f"{load.mb:.4g}", _time(load.seconds), faster


def _entropy(entropy: EntropyLevel) -> tuple[str, str, str, str]:
    bound = "–" if entropy.bound is None else f"{entropy.bound:.3f}"
    return f"{entropy.value:.3f}", f"{entropy.corrected:.3f}", bound, f"{entropy.n:,}"


def _time(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
