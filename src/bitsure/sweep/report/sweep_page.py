"""sweep.html: one file that opens from disk, needs no script and no network, and escapes all text."""

from __future__ import annotations

import base64
from importlib.resources import files
from typing import TYPE_CHECKING

from bitsure.config.schema import MetricSettings
from bitsure.metrics.measure import MACRO
from bitsure.report.tables import number, p_value
from bitsure.sweep.report.labels import groups, label, short, smaller, star, tasks_of
from bitsure.sweep.report.sweep_statistics import STUDY
from bitsure.sweep.report.sweep_table import FULL

if TYPE_CHECKING:
    from bitsure.sweep.report.sweep_report import Sweep

PAPER = {  # the study's own numbers, as its notebook computes them
    "paper_compat/ace": "calibration error (ACE)",
    "paper_compat/conf": "confidence",
    "paper_compat/conf_true": "true-label confidence",
    "paper_compat/entropy": "entropy, bits",
}
MOST_ROWS = 400  # of a table on the page; its CSV has all


def render(sweep: Sweep, tables: dict[str, list[dict]], unread: list[str], metric: MetricSettings) -> str:
    """The page as a string. tables: study, heterogeneity, contrasts, contrasts_of_quantizers and draws, as
    `bitsure.sweep.report.sweep_report.build` makes them."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(files("bitsure.sweep.report").joinpath("sweep_page.html").read_text())
    pictures = [
        {"title": one.title, "caption": one.caption, "name": one.name, "png": base64.b64encode(path.read_bytes()).decode()}
        for one, path in sweep.pictures
    ]
    return template.render(
        title=sweep.directory.resolve().name,
        states=sweep.states,
        total=len(sweep.cells),
        unfinished=[(cell.name, cell.directory.name, cell.state, cell.error or "") for cell in sweep.cells if not cell.done],
        strays=sweep.strays,
        sentences=sentences(tables["heterogeneity"], metric.alpha),
        study=study(sweep.models, STUDY),
        paper=study(sweep.models, PAPER),
        pictures=pictures,
        heterogeneity=[_spread(one) for one in tables["heterogeneity"]],
        contrasts=[_contrast(label(one), one["model"], one) for one in tables["contrasts"][:MOST_ROWS]],
        n_contrasts=len(tables["contrasts"]),
        quantizers=[
            _contrast(one["model"], label(one), one | {"other": _other(one)})
            for one in tables["contrasts_of_quantizers"][:MOST_ROWS]
        ],
        n_quantizers=len(tables["contrasts_of_quantizers"]),
        draws=[_drawn(one) for one in tables["draws"][:MOST_ROWS]],
        n_draws=len(tables["draws"]),
        unread=unread,
        level=f"{metric.confidence_level:.0%}",
        alpha=f"{metric.alpha:g}",
    )


def study(models: list[dict], metrics: dict[str, str]) -> dict[str, dict]:
    """The study's table, one for each quantizer: {quantizer: {columns, rows}}, a row a model and task, each metric in full
    precision and quantized; * where the primary test is significant.
    """
    rows = [row for row in models if row["metric"] in metrics]
    quantized = [row for row in rows if row["quantizer"] != FULL]
    if not quantized:  # a sweep over models in full precision has one column a metric
        return {one: _study(of, metrics, False) for (one,), of in groups(rows, label).items()}
    return {one: _study(of, metrics, True) for (one,), of in groups(quantized, label).items()}


def _study(rows: list[dict], metrics: dict[str, str], paired: bool) -> dict:
    known = {name: said for name, said in metrics.items() if any(row["metric"] == name for row in rows)}
    tasks, lines = tasks_of(rows), []
    for (model,), of_model in groups(rows, "model").items():
        said = model
        for task, name in zip(tasks, short(tasks), strict=True):
            by_metric, cells = {row["metric"]: row for row in of_model if row["task"] == task}, []
            for metric in known if by_metric else ():
                row = by_metric.get(metric)
                if paired:
                    cells.append(number(row["baseline"]) if row else "")
                cells.append(number(row["value"]) + star(row) if row else "")
            if cells:
                lines.append((said, name, cells))
                said = ""  # once is enough
    return {"columns": list(known.values()), "rows": lines, "paired": paired}


def study_numbers(models: list[dict]) -> list[dict]:
    """The study's table as plain rows, corrected and as published."""
    keys = ("model", "parameters", "quantizer", "setting", "bits_per_weight", "size_bytes", "task", "metric")
    keys += ("baseline", "value", "ci_low", "ci_high", "n", "delta", "delta_ci_low", "delta_ci_high", "p_adjusted")
    wanted = sorted((row for row in models if row["metric"] in {**STUDY, **PAPER}), key=smaller)
    return [{key: row[key] for key in keys} for row in wanted]


def sentences(spreads: list[dict], alpha: float) -> list[str]:
    """Do models differ in what quantization does to them? A sentence for each quantizer, over its tasks."""
    found = []
    for key in dict.fromkeys((one["quantizer"], one["setting"]) for one in spreads):
        of = [one for one in spreads if (one["quantizer"], one["setting"]) == key and one["metric"] == "true_label_prob"]
        single = [one for one in of if one["task"] != MACRO]
        if not single:
            continue
        apart = [one["task"] for one in single if one["p_adjusted"] < alpha]
        name = label({"quantizer": key[0], "setting": key[1]})
        ends = f"{min(o['smallest'] for o in single):+.4f} to {max(o['largest'] for o in single):+.4f}"
        said = f"{name}: the true-label probability changed by {ends} over models and tasks. "
        if apart:
            said += f"Models differ in how much by more than their errors explain on {', '.join(apart)}"
            rest = [one["task"] for one in single if one["task"] not in apart]
            said += f"; on {', '.join(rest)} this is not shown, which does not make them equal." if rest else "."
        else:
            said += "That models differ in how much is shown on no task, which does not make them equal."
        found.append(said)
    return found


def _spread(one: dict) -> tuple[str, ...]:
    ends = f"{number(one['smallest'], True)} … {number(one['largest'], True)}"
    numbers = (f"{one['q']:.1f}", p_value(one["p_adjusted"]), f"{one['i_squared']:.0%}", f"{one['tau']:.4f}")
    return label(one), one["task"], one["metric"], str(one["models"]), ends, *numbers


def _contrast(of: str, first: str, one: dict) -> tuple[str, ...]:
    """of: what the two have in common; first: the one whose change is subtracted."""
    name = of + ("" if one["calib_seed"] in (None, 0) else f", calibration seed {one['calib_seed']}")
    name += f", {one['draws']} calibration seeds" if one["draws"] > 1 else ""
    ends = f"[{number(one['ci_low'], True)}, {number(one['ci_high'], True)}]"
    tested = p_value(one["p_adjusted"]) if one["p_value"] is not None else ""
    pair, n = f"{one['other']} less {first}", f"{one['n']:,}"
    return name, one["task"], one["metric"], pair, n, number(one["value"], True), ends, tested


def _other(one: dict) -> str:
    return label({"quantizer": one["other"], "setting": one["other_setting"]})


def _drawn(one: dict) -> tuple[str, ...]:
    what = one["model"] or f"{one['series']}, {one['parameters']:,} parameters"
    ends = f"[{number(one['delta_ci_low'], True)}, {number(one['delta_ci_high'], True)}]"
    change, between = number(one["delta"], True), f"{one['between_draws']:.4f}"
    return label(one), what, one["task"], one["metric"], one["draws"], change, ends, between
