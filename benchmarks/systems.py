"""The tables of docs/systems.md: `make systems ARGS=multirun/best_practice` writes them between its comments.

From a finished run of sweeps/best_practice.yaml, benchmarks/qllm.md (`make bench-qllm`) and published.csv. Each change is of a
quantized model against full precision on the same questions, the mean over tasks with its interval: comparison.json's.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.contrast import METRICS, MeanContrast, between
from benchmarks.markdown_table import markdown_table
from benchmarks.regions import write_from_sweep
from benchmarks.swept_cells import option_of
from bitsure.base.decimals import decimal, with_ends
from bitsure.base.errors import UserError
from bitsure.comparison.published_numbers import published_rows
from bitsure.config.paths import PROJECT
from bitsure.metrics.metric_names import ECE, MACRO
from bitsure.report import compress_command
from bitsure.results.measurement import Measurement
from bitsure.sweep.report.cell_results import CellResult, read_cells

PAGE, QLLM = PROJECT / "docs" / "systems.md", PROJECT / "benchmarks" / "qllm.md"
SHOWN = {"accuracy": "accuracy", "true_label_prob": "true-label prob.", "confidence": "confidence", ECE: "calibration error"}
SAME_BITS = 3  # at which algorithms are compared
MARGIN = 0.01  # of accuracy, as in conf/verdict
WHAT = {"weights": "of weights alone", "activations": "with activations", "cache": "with keys and values"}


def main() -> None:
    """Fill the page."""
    write_from_sweep(__doc__, PAGE, lambda sweep: tables(sweep, QLLM.read_text(encoding="utf-8")))


def tables(sweep: Path, qllm: str) -> dict[str, list[str]]:
    """Return region of the page → its lines.

    Raises UserError for a sweep with cells that are not done, or without the cells that a question needs.
    """
    cells = read_cells(sweep)
    if waiting := [cell.name for cell in cells if not cell.done]:
        raise UserError(f"{sweep}: {len(waiting)} cells are not done, such as {waiting[0]}. Run the sweep again first.")
    cells = sorted(cells, key=lambda cell: (cell.model.parameters, -_bits(cell), cell.quantizer))
    quantized = [cell for cell in cells if cell.comparison]
    text = next((cell.config["calib"]["name"] for cell in quantized), None)  # the first is what is compared elsewhere
    first = [cell for cell in quantized if cell.config["calib"]["name"] == text]
    if not first:
        raise UserError(f"{sweep}: no cell of it quantizes a model.")
    rounded = {what: [cell for cell in first if kind(cell) == what] for what in WHAT}
    alike = [cell for cell in rounded["weights"] if cell.config["quant"].get("bits") == SAME_BITS]
    plain = [cell for cell in rounded["weights"] if cell.config["quant"].get("transforms") == [] and not _is_gptq(cell)]
    chains = [cell for cell in rounded["activations"] if cell.config["quant"]["transforms"] or _format(cell) != "int"]
    return {
        "sweep": _about(first, text),
        "published-study": _published("Proskurina", "task"),
        "published-evaluating": _published("Li et al.", "setting"),
        "published-qllm": _published("Liu", "setting"),
        "study": _levels([cell for cell in rounded["weights"] if _is_gptq(cell) and not cell.config["quant"]["transforms"]]),
        "bits": [*_changes(plain), "", *_fewest(plain, "weights")],
        "activations": [*_changes(rounded["activations"]), "", *_fewest(rounded["activations"], "activations")],
        "cache": [*_changes(rounded["cache"]), "", *_fewest(rounded["cache"], "cache")],
        "chains": _changes(chains),
        "qllm": qllm.partition("\n\n")[2].replace("\n## ", "\n### ").splitlines(),  # without its title
        "data": _data(quantized, text),
        "algorithms": _against_best(alike),
        "costs": _costs(first),
        "loading": compress_command.markdown(
            [compress_command.read_run(cell.directory, MACRO) for cell in first if _is_coded(cell)]
        ),
    }


def kind(cell: CellResult) -> str:
    """Return what is rounded besides or instead of weights: keys and values (`cache`) or `activations`; else `weights`."""
    quant = cell.config["quant"]
    return "cache" if quant.get("kv") else "activations" if quant.get("activations") else "weights"


def _is_gptq(cell: CellResult) -> bool:
    return "damp_percent" in cell.config["quant"]


def _format(cell: CellResult) -> str:
    return cell.config["quant"].get("format", "int")


def _bits(cell: CellResult) -> float:
    return cell.quantization.bits_per_weight if cell.quantization else 0.0


def _is_coded(cell: CellResult) -> bool:
    return cell.quantization is not None and cell.quantization.bits_per_weight_coded is not None


def _about(first: list[CellResult], text: str) -> list[str]:
    models = list(dict.fromkeys(cell.model_name for cell in first))
    questions = {task: numbers["accuracy"].n for task, numbers in first[0].metrics.items() if task != MACRO}
    return [
        f"{len(first)} quantized models of {', '.join(models)}, calibrated on `{text}` where that is not said; "
        f"{', '.join(f'{task} ({n:,} questions)' for task, n in questions.items())}.",
        *_options(first),
    ]


def _options(cells: list[CellResult]) -> list[str]:
    """Return by which option each quantizer was chosen, where that is not its name in the tables."""
    options = {cell.quantizer: option_of(cell) for cell in cells}
    named = [f"`quant={option}` is `{name}`" for name, option in options.items() if option != name]
    return (
        ["", f"The tables have full names of quantizers: {', '.join(named)}. Other names are options themselves."]
        if named
        else []
    )


def number_cell(number: Measurement | MeanContrast, form: str = "+.3f") -> str:
    low, high = number.ci_low, number.ci_high
    return decimal(number.value, form) if low is None else with_ends(number.value, low, high, form)


def _published(source: str, across: str) -> list[str]:
    """Return rows of published.csv as a table whose columns are the values of `across`."""
    chosen = [row for row in published_rows() if row.source.startswith(source)]
    names = [name for name in ("model", "setting", "task", "metric") if name != across]
    columns = list(dict.fromkeys(getattr(row, across) for row in chosen))
    rows: dict[tuple, dict] = {}
    for row in chosen:
        rows.setdefault(tuple(getattr(row, name) for name in names), {})[getattr(row, across)] = f"{row.value:g}"
    sources = list(dict.fromkeys(row.source for row in chosen))
    return [
        *markdown_table(
            [*names, *columns], ([*key, *(values.get(column, "") for column in columns)] for key, values in rows.items())
        ),
        "",
        f"Source: {'; '.join(sources)}.",
    ]


def _levels(quantized: list[CellResult]) -> list[str]:
    """Return the study's numbers, corrected, for full precision and each quantizer, and the change that its test is about."""
    rows, metrics = [], SHOWN | {"entropy": "entropy"}
    for model in dict.fromkeys(cell.model_name for cell in quantized):
        here = [cell for cell in quantized if cell.model_name == model]
        lines = [("full precision", here[0].baseline, "")]
        lines += [(cell.quantizer, cell.metrics, number_cell(cell.comparison[MACRO]["true_label_prob"])) for cell in here]
        for name, values, change in lines:
            rows.append([model, name, *(number_cell(values[MACRO][metric], ".3f") for metric in metrics), change])
    return markdown_table(["model", "quantizer", *metrics.values(), "change of the true-label prob."], rows)


def _changes(quantized: list[CellResult]) -> list[str]:
    rows = [
        [
            cell.model_name,
            cell.quantizer,
            f"{_bits(cell):.2f}",
            *(number_cell(cell.comparison[MACRO][metric]) for metric in SHOWN),
        ]
        for cell in quantized
    ]
    return markdown_table(["model", "quantizer", "bits a weight", *SHOWN.values()], rows)


def _fewest(quantized: list[CellResult], what: str) -> list[str]:
    """Return for each model the fewest bits that were tried whose accuracy is not inferior."""
    at_run_time = {"weights": None, "activations": "activations", "cache": "kv"}[what]

    def bits(cell: CellResult) -> tuple[float, float]:
        return (cell.config["quant"][at_run_time]["bits"] if at_run_time else 0, _bits(cell))

    answers, tried = [], len({bits(cell)[0] or cell.config["quant"]["bits"] for cell in quantized})
    for model in dict.fromkeys(cell.model_name for cell in quantized):
        here = [cell for cell in quantized if cell.model_name == model]
        held = [cell for cell in here if cell.comparison[MACRO]["accuracy"].ci_low > -MARGIN]
        least = min(held, key=bits, default=None)
        answer = f"`{least.quantizer}`" if least else "none"
        answers.append(
            f"- {model}: of {tried} widths the least {WHAT[what]} whose accuracy is surely less than {MARGIN:g} worse: "
            f"{answer}."
        )
    return answers


def _data(quantized: list[CellResult], text: str) -> list[str]:
    """Return every quantizer that reads text: its change with another text less that with the first, on the same questions."""
    rows, verdicts = [], []
    of = {(cell.model_name, cell.quantizer, cell.config["calib"]["name"]): cell for cell in quantized}
    for (model, quantizer, other), cell in of.items():
        before = of.get((model, quantizer, text))
        if other == text or before is None or not cell.quantization.calib_data.windows:
            continue
        change = between(before, cell)
        verdicts.append(_which(change["true_label_prob"]))
        rows.append([model, quantizer, f"{other} − {text}", *(number_cell(number) for number in change.values())])
    if not rows:
        raise UserError("The sweep has no quantizer with data on two calibration texts.")
    counts = ", ".join(f"{what} in {verdicts.count(what)}" for what in ("better", "worse", "undecided"))
    columns = ["model", "quantizer", "text", *(SHOWN[metric] for metric in METRICS)]
    return [*markdown_table(columns, rows), "", f"By the true-label probability the other text is {counts} of {len(verdicts)}."]


def _against_best(quantized: list[CellResult]) -> list[str]:
    """Return each algorithm's change less that of the best one of its model, on the same questions."""
    rows, answers = [], []
    for model in dict.fromkeys(cell.model_name for cell in quantized):
        here = [cell for cell in quantized if cell.model_name == model]
        ordered = sorted(here, key=lambda cell: -cell.comparison[MACRO]["true_label_prob"].value)
        best, others = ordered[0], ordered[1:]
        rows.append([model, f"{best.quantizer} (best)", number_cell(best.comparison[MACRO]["true_label_prob"]), "", ""])
        equal, worse = [], 0
        for cell in others:
            change = between(best, cell)
            own = number_cell(cell.comparison[MACRO]["true_label_prob"])
            rows.append([model, cell.quantizer, own, *(number_cell(change[metric]) for metric in METRICS)])
            is_worse = _which(change["true_label_prob"]) == "worse"
            worse += is_worse
            equal += [] if is_worse else [f"`{cell.quantizer}`"]
        rest = f"; {worse} of {len(others)} others are worse" + (f", these may be as good: {', '.join(equal)}" if equal else "")
        answers.append(f"- {model}: the highest true-label probability has `{best.quantizer}`{rest}.")
    columns = ["model", "quantizer", "true-label prob. less full precision's"]
    return [*markdown_table([*columns, *(f"{SHOWN[metric]} less the best's" for metric in METRICS)], rows), "", *answers]


def _which(change: MeanContrast) -> str:
    return "better" if change.ci_low > 0 else "worse" if change.ci_high < 0 else "undecided"


def _costs(quantized: list[CellResult]) -> list[str]:
    columns = ["model", "quantizer", "quantizing, s", "peak, MB", "scoring, tokens/s", "full precision's, tokens/s", "peak, MB"]
    rows = []
    for cell in quantized:
        costs = cell.costs
        quantizing, quantized, full = costs.quantizing, costs.scoring_quantized, costs.scoring_full_precision
        numbers = [
            _plain(quantizing and quantizing.seconds, 1, ".1f"),
            _plain(quantizing and quantizing.peak_memory_bytes, 1e6),
        ]
        numbers += [_plain(scoring and scoring.tokens_per_second, 1) for scoring in (quantized, full)]
        rows.append([cell.model_name, cell.quantizer, *numbers, _plain(quantized and quantized.peak_memory_bytes, 1e6)])
    return markdown_table(columns, rows)


def _plain(value: float | None, unit: float, form: str = ",.0f") -> str:
    return "" if value is None else f"{value / unit:{form}}"


if __name__ == "__main__":
    main()
