"""Kinds of panels: what each shows of which keys, and the W&B panels that it becomes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from bitsure.run.tracked_charts import LINES, ChartPreset
from bitsure.run.tracked_numbers import MEAN

TASK = "<task>"  # in a key: any task
CONFIG = "config."  # what the name of a setting begins with, where a panel shows one
MOST_BARS = 100  # runs in a bar chart, where W&B would show ten


@dataclass(frozen=True)
class TrackedSweep:
    """A sweep whose runs are logged.

    Attributes:
        entity: The W&B user or team.
        project: The W&B project.
        group: The runs' group.
        keys: What the runs logged.
        presets: Presets that take the place of W&B's own, by the latter's names.
    """

    entity: str
    project: str
    group: str
    keys: Collection[str]
    presets: Mapping[str, str]


@dataclass(frozen=True)
class DashboardPanel(ABC):
    """What a question's panels show.

    Attributes:
        question: What it answers; the panels' title.
        keys: The keys that it shows, with TASK for any task.
    """

    question: str
    keys: tuple[str, ...]
    kind: ClassVar[str]
    is_wide: ClassVar[bool] = False  # takes the whole width of a report

    @abstractmethod
    def panels(self, sweep: TrackedSweep) -> list[Any]:
        """Return its panels, of wandb_workspaces' kinds, without those that no run has anything for."""

    def columns(self, keys: Collection[str]) -> list[str]:
        """Return the columns of the run table that it shows, as W&B names them; most panels show none."""
        return []

    def logged(self, keys: Collection[str]) -> list[str]:
        """Return the panel's keys that were logged, those of all tasks for TASK."""
        return [match for key in self.keys for match in matching(key, keys)]


def matching(key: str, keys: Collection[str]) -> list[str]:
    """Return the logged keys that a panel's key stands for."""
    if TASK not in key:
        return [key] if key in keys else []
    before, after = key.split(TASK)
    others = (f"{before}{MEAN}{after}", f"{before}{MEAN}/")  # the mean over tasks is no task
    return [
        name
        for name in sorted(keys)
        if name.startswith(before)
        and name.endswith(after)
        and not name.startswith(others)
        and (after or name.rpartition("/")[0] not in keys)  # a number beside a task's own; a text's name has slashes too
    ]


@dataclass(frozen=True)
class Bars(DashboardPanel):
    """A bar a run and key."""

    kind: ClassVar[str] = "bar chart"

    def panels(self, sweep: TrackedSweep) -> list[Any]:
        """Return a bar chart of each key."""
        from wandb_workspaces.reports import v2 as reports

        return [
            reports.BarPlot(title=f"{self.question} {key}", metrics=[key], max_bars_to_show=MOST_BARS)
            for key in self.logged(sweep.keys)
        ]


@dataclass(frozen=True)
class Scatter(DashboardPanel):
    """A point a run: the first key is across, each other one up in a panel of its own."""

    kind: ClassVar[str] = "scatter plot"
    log_x: bool = False

    def panels(self, sweep: TrackedSweep) -> list[Any]:
        """Return a scatter plot for each key that is up."""
        from wandb_workspaces.reports import v2 as reports

        x = self.keys[0]
        if not (x.startswith(CONFIG) or x in sweep.keys):
            return []
        across = reports.Config(x.removeprefix(CONFIG)) if x.startswith(CONFIG) else reports.SummaryMetric(x)
        return [
            reports.ScatterPlot(title=self.question, x=across, y=reports.SummaryMetric(key), log_x=self.log_x)
            for key in self.keys[1:]
            if key in sweep.keys
        ]


@dataclass(frozen=True)
class Charts(DashboardPanel):
    """Charts of tables that runs log; those of the runs that are shown lie over each other."""

    kind: ClassVar[str] = "custom chart"
    x_title: str = ""
    preset: ChartPreset = LINES

    def panels(self, sweep: TrackedSweep) -> list[Any]:
        """Return a custom chart of each key, as the page draws it or as W&B does."""
        from wandb_workspaces.reports import v2 as reports

        builtin = self.preset
        own = sweep.presets.get(builtin.name)
        return [
            reports.CustomChart(
                query={"summaryTable": {"tableKey": f"{key}_table"}},
                chart_name=own or builtin.name,
                chart_fields={name: name for name in builtin.columns} if own else dict(builtin.fields),
                chart_strings={"title": f"{self.question} {key}", "xname": self.x_title},
            )
            for key in self.logged(sweep.keys)
        ]


@dataclass(frozen=True)
class Tables(DashboardPanel):
    """Tables, those of all runs that are shown together."""

    kind: ClassVar[str] = "table"
    is_wide: ClassVar[bool] = True

    def panels(self, sweep: TrackedSweep) -> list[Any]:
        """Return a table of each key."""
        from wandb_workspaces.reports import v2 as reports

        return [reports.WeavePanelSummaryTable(table_name=key) for key in self.logged(sweep.keys)]


@dataclass(frozen=True)
class Pages(DashboardPanel):
    """Pages of the runs, whole."""

    kind: ClassVar[str] = "media panel"
    is_wide: ClassVar[bool] = True

    def panels(self, sweep: TrackedSweep) -> list[Any]:
        """Return one panel for all keys."""
        from wandb_workspaces.reports import v2 as reports

        shown = self.logged(sweep.keys)
        return [reports.MediaBrowser(title=self.question, media_keys=shown, num_columns=1)] if shown else []


@dataclass(frozen=True)
class Columns(DashboardPanel):
    """Columns of the run table."""

    kind: ClassVar[str] = "run table columns"

    def panels(self, sweep: TrackedSweep) -> list[Any]:
        """Return none: the run table has the columns."""
        return []

    def columns(self, keys: Collection[str]) -> list[str]:
        """Return the columns as W&B names them."""
        return [
            f"config:{key.removeprefix(CONFIG)}.value" if key.startswith(CONFIG) else f"summary:{key}"
            for key in self.keys
            if key.startswith(CONFIG) or key in keys
        ]
