"""Rotations, SmoothQuant and plain rounding at W4A4: `make bench-rotations` writes benchmarks/rotations.md.

As benchmarks/qllm.py, whose outliers, draws and intervals these are.
"""

from __future__ import annotations

import argparse

from benchmarks.qllm import HERE, INTERVALS, OUTLIERS, TASKS, arguments, measured, tables
from bitsure.config.number_formats import Activations
from bitsure.config.quantizers import Rounded
from bitsure.config.rotation_settings import RotationSettings
from bitsure.quantize.libraries.gptq import Gptq
from bitsure.quantize.native.rtn import Rtn

MOST = list(OUTLIERS)[-1]
PLAIN, SMOOTH, FOLDED, ONLINE = "plain", "SmoothQuant", "rotated: R1, R2", "rotated: R1, R2, R4"
TRANSFORMS: dict[str, tuple[list[str], list[str] | None]] = {
    PLAIN: ([], None),
    SMOOTH: (["smooth"], None),
    FOLDED: (["rotate"], ["r1", "r2"]),
    ONLINE: (["rotate"], ["r1", "r2", "r4"]),
}


def _with_gptq(name: str) -> str:
    return f"{name}, GPTQ"


AGAINST = [(ONLINE, PLAIN), (ONLINE, SMOOTH), (ONLINE, FOLDED), (FOLDED, PLAIN), (FOLDED, SMOOTH)]
PAIRS = [
    *AGAINST,
    *((_with_gptq(first), _with_gptq(second)) for first, second in AGAINST),
    *((_with_gptq(name), name) for name in TRANSFORMS),
]


def quantizers(draw: int) -> dict[str, Rounded]:
    """W4A4 with a scale for each row of the weights and each token, all asymmetric; the draw seeds the rotations."""
    chains: dict[str, Rounded] = {}
    for name, (transforms, kinds) in TRANSFORMS.items():
        rotation = None if kinds is None else RotationSettings(kinds, seed=draw)
        chain = {"transforms": transforms, "activations": Activations(4), "rotation": rotation}
        chains[name] = Rtn(4, -1, False, **chain)
        chains[_with_gptq(name)] = Gptq(4, -1, False, backend="native", desc_act=False, damp_percent=0.01, **chain)
    return chains


def introduction(given: argparse.Namespace) -> str:
    return "\n".join(
        [
            "# Rotations, SmoothQuant and plain rounding at W4A4",
            "",
            f"`make bench-rotations`: {given.model}, {given.draws} draws of outliers, calibration text ({given.windows} × 256 "
            f"tokens) and rotations; {len(TASKS)} tasks, {given.questions} questions each, the same in every draw. Weights are "
            "asymmetric with one scale a row, activations asymmetric with one a token. Output error: ‖Q(X)Ŵᵀ − XWᵀ‖ / ‖XWᵀ‖ on "
            "held-out text, the mean over layers, with its 95% t interval over draws. True-label probability: quantized less "
            f"full precision. {INTERVALS}",
            "",
            "The outliers are gains of norms that the next weights take back. SmoothQuant's scales can undo them, and so does "
            "R1, which folds the norms' gains into the weights. Outliers of large models need not be of that kind.",
            "",
            "",
        ]
    )


def main() -> None:
    given = arguments(__doc__.splitlines()[0], HERE / "rotations.md")
    text = introduction(given) + tables(measured(given, quantizers, {name: OUTLIERS[name] for name in ("none", MOST)}), PAIRS)
    print(text)
    given.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
