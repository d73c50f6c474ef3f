"""Where in a long text the answer is found: accuracy by length and depth, a heat map for each task, model and quantizer."""

from __future__ import annotations

from bitsure.metrics.retrieval_metrics import Place, place_in_name
from bitsure.report.charts import Chart
from bitsure.report.retrieval_charts import place_panel
from bitsure.report.retrieval_section import where
from bitsure.report.tables import number
from bitsure.sweep.report.line_panels import with_interval
from bitsure.sweep.report.picture import Picture
from bitsure.sweep.report.study_row import StudyRow, grouped


def retrieval_picture(rows: list[StudyRow]) -> Picture | None:
    """Return the accuracies; None if no run was asked questions that have a length and a depth."""
    placed = {row.metric: parts[1] for row in rows if (parts := place_in_name(row.metric)) and parts[0] == "accuracy"}
    rows = [row for row in rows if row.metric in placed]
    if not rows:
        return None
    groups = grouped(rows, lambda row: (row.task, row.model, row.label))
    panels = [
        _panel(f"{task}, {label}" if len({row.model for row in rows}) == 1 else f"{task}, {model}, {label}", members, placed)
        for (task, model, label), members in sorted(groups.items(), key=lambda group: group[0][:2])
    ]
    caption = (
        "Accuracy over the questions of each length of the text that is searched (across) and each depth at which the answer "
        "stands in it (down; 0% is the beginning). All choices stand in the text."
    )
    columns = len({row.label for row in rows})
    return Picture(
        "retrieval", "Where in a long text the answer is found", caption, panels[0].finding, panels, [], rows, columns=columns
    )


def _panel(title: str, rows: list[StudyRow], placed: dict[str, Place]) -> Chart:
    numbers = {
        placed[row.metric]: (row.value, f"{with_interval(row.value, row.ci_low, row.ci_high)}, {row.n:,} questions")
        for row in rows
    }
    worst = min(rows, key=lambda row: row.value)
    return Chart(
        place_panel(title, numbers), f"{title}: the lowest accuracy is {number(worst.value)}, at {where(placed[worst.metric])}."
    )
