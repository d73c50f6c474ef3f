"""A run's charts as W&B draws them itself, so that those of several runs lie over each other.

A run logs the tables of the page's charts, which presets that every W&B server has draw. The dashboard draws them as pages do.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bitsure.report.charts import Chart, Row
from bitsure.report.forest import ForestPanel, forest_panels, forest_rows
from bitsure.report.report_contents import Report
from bitsure.run.wandb_names import fit


@dataclass(frozen=True)
class ChartPreset:
    """How W&B draws a table by itself.

    Attributes:
        name: A preset that every W&B server has.
        fields: Its fields → the table's columns.
        columns: All columns of the table: those of the page's chart.
    """

    name: str
    fields: Mapping[str, str]
    columns: Sequence[str]

    def draw(self, rows: Sequence[Row], **strings: str) -> Any:
        """Return a chart as W&B logs it: the table, and how to draw it.

        Args:
            rows: Rows of the columns.
            **strings: The preset's texts.
        """
        import wandb

        table = wandb.Table(columns=list(self.columns), data=[[row[name] for name in self.columns] for row in rows])
        return wandb.plot_table(self.name, table, dict(self.fields), strings)


LINES = ChartPreset(
    "wandb/lineseries/v0",
    {"step": "x", "lineKey": "line", "lineVal": "y"},
    ("line", "x", "y", "low", "high", "hover"),
)
FOREST = ChartPreset(
    "wandb/bar/v0",
    {"label": "task", "value": "change"},
    ("task", "change", "ci_low", "ci_high", "margin", "outcome", "n", "numbers", "hover"),
)


class TrackedChart(ABC):
    """A chart that W&B draws from a table."""

    @abstractmethod
    def for_wandb(self) -> Any:
        """Return the chart as W&B logs it."""


@dataclass(frozen=True)
class LineChart(TrackedChart):
    """The lines of one of the page's charts: W&B tells lines of a run apart by dashes, and runs by colours.

    Attributes:
        title: Its title.
        chart: The page's chart.
    """

    title: str
    chart: Chart

    def for_wandb(self) -> Any:
        """Return the chart, whose table has a row a point."""
        rows = [row for line in self.chart.series for row in line.labelled_rows]
        return LINES.draw(rows, title=self.title, xname=self.chart.x_title)


@dataclass(frozen=True)
class ForestChart(TrackedChart):
    """The change of a metric on each task, as bars; the table behind them has intervals, margin and outcome.

    Attributes:
        panel: The page's panel.
    """

    panel: ForestPanel

    def for_wandb(self) -> Any:
        """Return the chart, whose table has a row a task."""
        margin = self.panel.margin
        rows = [row for row in forest_rows(self.panel) if row["change"] is not None]
        title = f"Change in {self.panel.metric.title}" + ("" if margin is None else f", margin {margin:+g}")
        return FOREST.draw(rows, title=title)


def run_charts(report: Report) -> dict[str, TrackedChart]:
    """Return key → the charts over all tasks: forests of the metrics."""
    if report.comparison is None or report.verdict is None:
        return {}
    return {
        f"forest/{metric}": ForestChart(panel) for metric, panel in forest_panels(report.comparison, report.verdict).items()
    }


def task_charts(report: Report, task: str) -> dict[str, TrackedChart]:
    """Return key → a task's charts: reliability of both models, deferral, and retrieval."""
    titles = {
        "reliability": "accuracy against confidence",
        "deferral": "accuracy if full precision answers the least confident",
        "retrieval": "accuracy against the depth of the answer",
    }
    return {
        f"{kind}/{fit(task)}": LineChart(f"{task}: {title}", report.figures[kind][task].chart)
        for kind, title in titles.items()
        if task in report.figures.get(kind, {})
    }
