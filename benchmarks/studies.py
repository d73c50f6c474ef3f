"""Tables of studies' grids: `make studies ARGS="mx multirun/mx …"`; also `qllm`, `compressibility`, `rotations` and `mixed`.

Several directories of one sweep, such as the embedded models' and a real one's, make one table. They may be unfinished: what
is missing is left blank and counted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.contrast import MeanContrast
from benchmarks.drawn_quantizers import drawn_tables
from benchmarks.markdown_table import markdown_table
from benchmarks.regions import fill
from benchmarks.systems import PAGE as SYSTEMS
from benchmarks.systems import number_cell
from benchmarks.text_contrast import ln_perplexity
from bitsure.base.errors import UserError
from bitsure.comparison.published_numbers import TEXT
from bitsure.config.paths import PROJECT
from bitsure.results import Compressibility, Measurement, read
from bitsure.results.compressibility import Codes
from bitsure.sweep.report.cell_results import CellResult, read_cells

Row = dict[tuple[str, ...], CellResult]
METHODS = ("nearest", "SmoothQuant", "GPTQ", "both")  # of Sharify et al.: how weights are rounded, after which transform
GRAIN = {0: "tensor", -1: "channel"}
ROTATED, FOLDED, SMOOTH, PLAIN = "quarot", "rotate", "smooth", ""  # what goes before rounding: R1, R2 and R4, or R1 and R2
AGAINST = [(ROTATED, PLAIN), (ROTATED, SMOOTH), (FOLDED, PLAIN), (FOLDED, SMOOTH), (ROTATED, FOLDED)]
MIXED = [
    ("mixed-3", "gptq-own-3"),
    ("mixed-4", "gptq-own-4"),
    ("auto-scheme-3", "gptq-own-3"),
    ("auto-scheme-4", "gptq-own-4"),
    ("mixed-3", "auto-scheme-3"),
    ("mixed-4", "auto-scheme-4"),
]


def main() -> None:
    """Fill the regions of one study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("sweeps", type=Path, nargs="+", help="directories of the study's sweep")
    parser.add_argument("--page", type=Path)
    given = parser.parse_args()
    own_page, tables = STUDIES[given.study]
    page = given.page or own_page
    try:
        cells = [cell for sweep in given.sweeps for cell in read_cells(sweep)]
        filled = fill(page.read_text(encoding="utf-8"), tables(cells))
    except UserError as error:
        sys.exit(f"Error: {error}")
    page.write_text(filled, encoding="utf-8")
    print(f"{page}: written from {', '.join(map(str, given.sweeps))}")


def mx(planned: Sequence[CellResult]) -> dict[str, list[str]]:
    """Return Sharify et al.'s table: perplexity by number format and method; and what each method and format changes."""
    of = {(cell.model_name, *_mx_place(cell)): cell for cell in _done(planned)}
    rows, changes = [], []
    for model, bits, numbers in dict.fromkeys(key[:3] for key in of):
        here = {method: of.get((model, bits, numbers, method)) for method in METHODS}
        rows.append([model, _full(here.values()), bits, numbers, *map(_perplexity, here.values())])
        pairs = {"SmoothQuant": "nearest", "GPTQ": "nearest", "both": "GPTQ"}
        effects = [_text_change(here[first], here[second]) for first, second in pairs.items()]
        other = of.get((model, bits, "fixed point", "both"))
        effects.append("" if numbers == "fixed point" else _text_change(here["both"], other))
        changes.append([model, bits, numbers, *effects])
    return {
        "mx": [
            *_about(planned),
            "",
            *markdown_table(["model", "full precision", "bits", "numbers", *METHODS], rows),
            "",
            "ln perplexity of one less the other, below 0 where the first is better:",
            "",
            *markdown_table(
                [
                    "model",
                    "bits",
                    "numbers",
                    "SmoothQuant − nearest",
                    "GPTQ − nearest",
                    "both − GPTQ",
                    "both: MXINT − fixed point",
                ],
                changes,
            ),
        ]
    }


def _mx_place(cell: CellResult) -> tuple[str, str, str]:
    quant = cell.config["quant"]
    numbers = "fixed point" if quant["format"] == "int" else "MXINT"
    smooth, gptq = bool(quant["transforms"]), "damp_percent" in quant
    return f"W4A{quant['activations']['bits']}", numbers, METHODS[smooth + 2 * gptq]


def qllm(planned: Sequence[CellResult]) -> dict[str, list[str]]:
    """Return QLLM's table: perplexity by how channels are taken apart and merged, with and without tuning."""
    of: Row = {}
    for cell in _done(planned):
        quant = cell.config["quant"]
        kind = next(iter(quant["transforms"]), "")
        of[cell.model_name, kind, _expansion(quant, kind), "tuned" if quant["tuning"] else "not"] = cell
    rows = []
    for model, kind, expansion in dict.fromkeys(key[:3] for key in of):
        here = [of.get((model, kind, expansion, tuned)) for tuned in ("not", "tuned")]
        plain = [of.get((model, "", "", tuned)) for tuned in ("not", "tuned")]
        marks = ["✓" if kind else "", "✓" if kind == "reassemble" else "", expansion]
        effects = [_text_change(cell, other) if kind else "" for cell, other in zip(here, plain, strict=True)]
        rows.append([model, _full(here), *marks, *map(_perplexity, here), *effects])
    columns = ["model", "full precision", "taken apart", "merged", "γ", "not tuned", "tuned"]
    changes = ["not tuned, less plain", "tuned, less plain tuned"]
    return {"ablation": [*_about(planned), "", *markdown_table([*columns, *changes], rows)]}


def _expansion(quant: dict, kind: str) -> str:
    if not kind:
        return ""
    return "searched" if quant["expansion"] is None else f"{quant['expansion']:.2f}"


def compressibility(planned: Sequence[CellResult]) -> dict[str, list[str]]:
    """Return Mao et al.'s table: entropy, its bound and what coders reach, of weights and activations, and the perplexity."""
    rows = []
    for cell in _done(planned):
        quant, measured = cell.config["quant"], read(cell.directory / "compressibility.json", Compressibility)
        grains = [
            GRAIN[quant["group_size"]],
            {"channel": "token"}.get(grain := GRAIN[quant["activations"]["group_size"]], grain),
        ]
        numbers = [number for codes in (measured.weights, measured.activations) for number in _codes(codes)]
        smooth = "✓" if quant["transforms"] else ""
        rows.append([cell.model_name, f"INT{quant['bits']}", *grains, smooth, *numbers, _perplexity(cell)])
    each = [f"{what}: {name}" for what in ("weights", "activations") for name in ("entropy", "at most", "coded")]
    columns = ["model", "codes", "scale a", "activations: a", "SmoothQuant", *each, "perplexity"]
    return {"mao": [*_about(planned), "", *markdown_table(columns, rows)]}


def _codes(codes: Codes | None) -> list[str]:
    """Return the entropy in bits, its bound, and how many times smaller the best coder makes what is stored."""
    if codes is None:
        return ["", "", ""]
    entropy = codes.entropy["tensor"]
    bound = "" if entropy.bound is None else f"{entropy.bound:.2f}×"
    return [f"{entropy.value:.2f}", bound, f"{codes.bits_per_weight / codes.bits_per_weight_coded:.2f}×"]


def rotations(planned: Sequence[CellResult]) -> dict[str, list[str]]:
    """Return each quantizer of W4A4 with its interval over draws and questions, and rotations beside what they compete with."""

    def option(transform: str, rounding: str) -> str:
        return "-".join(part for part in (transform, rounding, "int-w4a4") if part)

    each = [(option(first, rounding), option(second, rounding)) for rounding in ("", "gptq") for first, second in AGAINST]
    gptq = [(option(name, "gptq"), option(name, "")) for name in (PLAIN, SMOOTH, FOLDED, ROTATED)]
    return {"rotations": drawn_tables(planned, [*each, *gptq])}


def mixed(planned: Sequence[CellResult]) -> dict[str, list[str]]:
    """Return bits of their own for each layer beside the same bits everywhere, and beside AutoScheme's choice."""
    return {"mixed": drawn_tables(planned, MIXED)}


def _done(planned: Sequence[CellResult]) -> list[CellResult]:
    return [cell for cell in planned if cell.done]


def _about(planned: Sequence[CellResult]) -> list[str]:
    """Return how many cells there are and which text they scored. Raises UserError if none is done."""
    done = _done(planned)
    if not done:
        raise UserError("No cell of the sweeps is done.")
    texts = []
    for model in dict.fromkeys(cell.model_name for cell in done):
        first = next(cell for cell in done if cell.model_name == model)
        text, calib = first.config["text"], first.config["calib"]
        limit = f", the first {text['limit']:,} tokens" if text["limit"] else ""
        window = f" in windows of {text['window']}" if text["window"] else ""
        windows = f"{calib['nsamples']} × {calib['seqlen']} tokens of `{calib['name']}`"
        texts.append(f"{model} (`{_text(first)}`{window}{limit}; calibrated on {windows})")
    return [f"{len(done)} of {len(planned)} cells: {'; '.join(texts)}."]


def _text(cell: CellResult) -> str:
    return next(task for task in cell.metrics if task.startswith(TEXT))


def _full(cells: Sequence[CellResult | None]) -> str:
    cell = next(cell for cell in cells if cell is not None)
    return perplexity_cell(cell.baseline[_text(cell)]["perplexity"])


def _perplexity(cell: CellResult | None) -> str:
    return "" if cell is None else perplexity_cell(cell.metrics[_text(cell)]["perplexity"])


def perplexity_cell(perplexity: Measurement) -> str:
    """Return a perplexity with the digits that its size leaves of use: that of a broken model passes its vocabulary's size."""
    form = ".2f" if perplexity.value < 1000 else ",.0f" if perplexity.value < 1e6 else ".1e"
    return number_cell(perplexity, form)


def _text_change(first: CellResult | None, second: CellResult | None) -> str:
    change: MeanContrast | None = None if first is None or second is None else ln_perplexity(first, second)
    return "" if change is None else number_cell(change)


Tables = Callable[[Sequence[CellResult]], dict[str, list[str]]]
QUANTIZERS = PROJECT / "docs" / "quantizers.md"
STUDIES: dict[str, tuple[Path, Tables]] = {
    "mx": (SYSTEMS, mx),
    "qllm": (SYSTEMS, qllm),
    "compressibility": (PROJECT / "docs" / "compressibility.md", compressibility),
    "rotations": (QUANTIZERS, rotations),
    "mixed": (QUANTIZERS, mixed),
}

if __name__ == "__main__":
    main()
