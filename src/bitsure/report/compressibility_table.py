"""compressibility.json in a sentence and as tables."""

from __future__ import annotations

from bitsure.compress.coders import AS_STORED, NAMES

CODER_COLUMNS = ("", "", "bits a weight", "times smaller", "decoded MB/s", "MB", "seconds to load", "sooner below MB/s")
ENTROPY_COLUMNS = ("", "", "bits", "entropy", "corrected", "at most times smaller", "n")


def sentence(found: dict) -> str:
    """What the codes take and what that means for loading."""
    weights, loading = found["weights"], found["loading"]
    if weights is None:
        one = found["activations"]
        return f"Weights are kept. Activations: {one['entropy']['tensor']['value']:.2f} bits of entropy in {one['bits']:g}."
    seconds = {name: one["seconds"] for name, one in loading["by_coder"].items()}
    quickest = min(seconds, key=seconds.get)
    said = f"Size: {weights['bits_per_weight']:.2f} bits a weight as stored"
    if weights["best"] != AS_STORED:
        said += f", {weights['bits_per_weight_coded']:.2f} by {NAMES[weights['best']]}"
    said += f" (the codes' entropy: {weights['entropy']['tensor']['value']:.2f} of {weights['bits']:.2f} bits). "
    how = "as stored" if quickest == AS_STORED else f"by {NAMES[quickest]}, decoded on one thread here"
    return said + f"Loaded soonest over {loading['bandwidth_mb_per_second']:g} MB/s {how}: {_time(seconds[quickest])}."


def shown(found: dict) -> dict:
    """The tables of a page, as strings, and what is to be known about them."""
    weights, activations, loading = found["weights"], found["activations"], found["loading"]
    parts = {what: part for what, part in {"weights": weights, "activations": activations}.items() if part}
    return {
        "sentence": sentence(found),
        "measured": "; ".join(f"of {part['n']:,} codes of {what} {part['n_measured']:,}" for what, part in parts.items()),
        "bandwidth": loading and loading["bandwidth_mb_per_second"],
        "activations": activations and f"{activations['format']}, on {activations['tokens']:,} tokens of {activations['text']}",
        "coder_columns": CODER_COLUMNS,
        "coders": [_row(what, name, part, loading) for what, part in parts.items() for name in (AS_STORED, *NAMES)],
        "entropy_columns": ENTROPY_COLUMNS,
        "entropies": [
            (what, f"by {level}", f"{part['bits']:.2f}", *_numbers(one))
            for what, part in parts.items()
            for level, one in part["entropy"].items()
        ],
    }


def _row(what: str, name: str, part: dict, loading: dict) -> tuple[str, ...]:
    """A coder's size and speed; activations are not loaded."""
    if name == AS_STORED:
        size = ("as stored", f"{part['bits_per_weight']:.3f}", "1", "")
    else:
        one = part["coders"][name]
        size = (NAMES[name], f"{one['bits_per_weight']:.3f}", f"{one['ratio']:.3f}", f"{one['decoded_mb_per_second']:,.0f}")
    if what == "activations":
        return (what, *size, "", "", "")
    load = loading["by_coder"][name]
    below = load.get("faster_below_mb_per_second")
    sooner = "" if name == AS_STORED else "never" if below is None else f"{below:,.3g}"
    return (what, *size, f"{load['mb']:.4g}", _time(load["seconds"]), sooner)


def _numbers(one: dict) -> tuple[str, ...]:
    bound = "–" if one["bound"] is None else f"{one['bound']:.3f}"
    return (f"{one['value']:.3f}", f"{one['corrected']:.3f}", bound, f"{one['n']:,}")


def _time(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
