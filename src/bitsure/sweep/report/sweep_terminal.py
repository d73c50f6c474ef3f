"""A sweep's headline numbers for a terminal: over all tasks, a row a model and quantizer."""

from __future__ import annotations

from rich import box
from rich.markup import escape
from rich.table import Table

from bitsure.sweep.report.labels import groups, label, overall

COLUMNS = {
    "accuracy": "accu-\nracy",
    "confidence": "confi-\ndence",
    "true_label_prob": "true-\nlabel\nprob.",
    "expected_calibration_error": "calib.\nerror",
}


def table(models: list[dict]) -> Table:
    """Each metric's value and, in the next column, its difference from full precision; the mean over the tasks."""
    table = Table(title="mean over the tasks", title_justify="left", box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    for name in ("model", "quantizer"):  # a long one goes on in the next line; numbers are never cut
        table.add_column(name, overflow="fold")
    for said in COLUMNS.values():
        table.add_column(said, justify="right", no_wrap=True)
        table.add_column("Δ", justify="right", no_wrap=True)
    rows = overall([row for row in models if row["metric"] in COLUMNS])
    for (model,), of in groups(rows, "model").items():
        table.add_section()
        for k, ((name,), one) in enumerate(groups(of, label).items()):
            by_metric = {row["metric"]: row for row in one}
            numbers = []
            for metric in COLUMNS:
                row = by_metric.get(metric, {})
                delta = row.get("delta")
                numbers += [_short(row.get("value")), "" if delta is None else _short(delta, "+")]
            table.add_row(escape(model) if k == 0 else "", escape(name), *numbers)
    return table


def _short(value: float | None, sign: str = "") -> str:
    """Three decimals: that many columns leave no room for more."""
    return "–" if value is None else f"{round(value, 3) + 0.0:{sign}.3f}"  # + 0.0: no -0.000
