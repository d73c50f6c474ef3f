"""A run's charts as W&B draws them itself, so that those of several runs lie over each other.

They use the presets of custom charts that every W&B server has. The numbers are those of the page's charts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from bitsure.report.charts import Chart
from bitsure.report.forest import ForestPanel, forest_panels
from bitsure.report.report_contents import Report
from bitsure.run.wandb_names import fit

FOREST_COLUMNS = ("task", "change", "ci_low", "ci_high", "margin", "outcome", "n")


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
        import wandb

        return wandb.plot.line_series(
            xs=[[row["x"] for row in line.rows] for line in self.chart.series],
            ys=[[row["y"] for row in line.rows] for line in self.chart.series],
            keys=[line.label for line in self.chart.series],
            title=self.title,
            xname=self.chart.x_title,
        )


@dataclass(frozen=True)
class ForestChart(TrackedChart):
    """The change of a metric on each task, as bars; the table behind them has intervals, margin and outcome.

    Attributes:
        panel: The page's panel.
    """

    panel: ForestPanel

    def for_wandb(self) -> Any:
        """Return the chart, whose table has a row a task, under FOREST_COLUMNS."""
        import wandb

        margin = self.panel.margin
        rows = [
            [row.name, row.value, row.low, row.high, margin, row.outcome, row.n]
            for row in self.panel.rows
            if row.value is not None
        ]
        table = wandb.Table(columns=list(FOREST_COLUMNS), data=rows)
        title = f"Change in {self.panel.metric.title}" + ("" if margin is None else f", margin {margin:+g}")
        return wandb.plot.bar(table, "task", "change", title=title)


def run_charts(report: Report) -> dict[str, TrackedChart]:
    """Return key → the charts over all tasks: forests of the metrics."""
    if report.comparison is None or report.verdict is None:
        return {}
    return {
        f"forest/{metric}": ForestChart(panel) for metric, panel in forest_panels(report.comparison, report.verdict).items()
    }


def task_charts(report: Report, task: str) -> dict[str, TrackedChart]:
    """Return key → a task's charts: reliability of both models, and deferral."""
    titles = {
        "reliability": "accuracy against confidence",
        "deferral": "accuracy if full precision answers the least confident",
    }
    return {
        f"{kind}/{fit(task)}": LineChart(f"{task}: {title}", report.figures[kind][task].chart)
        for kind, title in titles.items()
        if task in report.figures.get(kind, {})
    }
