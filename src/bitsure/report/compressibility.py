"""compressibility.json in a sentence and as tables."""

from __future__ import annotations

from bitsure.compress.coders import AS_STORED, NAMES

CODER_COLUMNS = ("", "", "bits a weight", "times smaller", "MB", "decoded MB/s", "seconds to load", "sooner below MB/s")
ENTROPY_COLUMNS = ("codes", "entropy", "of", "mean bits", "corrected", "at most times smaller", "n")


def sentence(found: dict) -> str:
    """What the codes take and what that means for loading."""
    weights, loading = found["weights"], found["loading"]
    times = {name: one["seconds"] for name, one in loading["by_coder"].items()}
    quickest = min(times, key=times.get)
    said = f"Size: {weights['bits_per_weight']:.2f} bits a weight as stored"
    if weights["best"] != AS_STORED:
        said += f", {weights['bits_per_weight_coded']:.2f} by {NAMES[weights['best']]}"
    said += f" (the codes' entropy: {weights['entropy']['tensor']['value']:.2f} of {weights['bits']:.2f} bits). "
    how = "as stored" if quickest == AS_STORED else f"by {NAMES[quickest]}, decoded on one thread here"
    return said + f"Loaded soonest over {loading['bandwidth_mb_per_second']:g} MB/s {how}: {_seconds(times[quickest])}."


def shown(found: dict) -> dict:
    """The tables of a page, as strings, and what is to be known about them."""
    weights, loading, activations = found["weights"], found["loading"], found["activations"]
    measured = weights["n_measured"] / weights["n"]
    return {
        "sentence": sentence(found),
        "coder_columns": CODER_COLUMNS,
        "coders": [_loaded(name, loading["by_coder"][name], weights) for name in (AS_STORED, *NAMES)]
        + ([_coded("activations", name, one) for name, one in activations["coders"].items()] if activations else []),
        "about_coders": f"Of the quantized layers, scales and zero points counted; {_share(measured)} of {weights['n']:,} codes were "
        f"coded and decoded on one thread of this machine. Loading reads over {loading['bandwidth_mb_per_second']:g} MB/s "
        "(compress.bandwidth), then decodes; slower than the last column, the coder loads sooner than what is stored."
        + (
            f" Activations: {activations['format']}, of {activations['tokens']:,} tokens of {activations['text']}."
            if activations
            else ""
        ),
        "entropy_columns": ENTROPY_COLUMNS,
        "entropies": [
            row for what, part in (("weights", weights), ("activations", activations)) if part for row in _entropies(what, part)
        ],
        "about_entropies": "Shannon's entropy of the codes, the mean over tensors, channels or groups (of activations: tokens); a "
        "coder with a table of frequencies for each cannot do better, and would have to store the tables. Few codes look "
        "more regular than they are: the corrected column adds what Miller and Madow estimate for that.",
    }


def _loaded(name: str, one: dict, weights: dict) -> tuple[str, ...]:
    if name == AS_STORED:
        return (
            "weights",
            "as stored",
            f"{weights['bits_per_weight']:.3f}",
            "1",
            f"{one['mb']:.4g}",
            "",
            _seconds(one["seconds"]),
            "",
        )
    below = one["faster_below_mb_per_second"]
    middle = _coded("weights", name, weights["coders"][name])
    return (*middle[:4], f"{one['mb']:.4g}", middle[5], _seconds(one["seconds"]), "never" if below is None else f"{below:,.0f}")


def _coded(what: str, name: str, one: dict) -> tuple[str, ...]:
    numbers = (f"{one['bits_per_weight']:.3f}", f"{one['ratio']:.3f}", "", f"{one['decoded_mb_per_second']:,.0f}")
    return (what, NAMES[name], *numbers, "", "")


def _entropies(what: str, part: dict) -> list[tuple[str, ...]]:
    return [
        (
            what,
            f"by {level}",
            f"{part['bits']:.2f}",
            f"{one['value']:.3f}",
            f"{one['corrected']:.3f}",
            "–" if one["bound"] is None else f"{one['bound']:.3f}",
            f"{one['n']:,}",
        )
        for level, one in part["entropy"].items()
    ]


def _seconds(value: float) -> str:
    return f"{value * 1000:.3g} ms" if value < 1 else f"{value:.3g} s"


def _share(measured: float) -> str:
    return "all" if measured == 1 else f"{measured:.1%}"
