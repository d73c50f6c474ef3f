"""Make a sweep's dashboard in W&B: a workspace to work in, and a report to send to somebody."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bitsure.base import terminal
from bitsure.base.errors import UserError
from bitsure.config.extras import how_to_install
from bitsure.config.schema import TrackingSettings
from bitsure.records.directory_kinds import is_sweep, wrong_directory
from bitsure.results import check
from bitsure.run.logged_keys import read_keys
from bitsure.run.wandb_run import is_logged_in
from bitsure.sweep.dashboard.chart_presets import register
from bitsure.sweep.dashboard.dashboard_sections import SECTIONS, DashboardSection
from bitsure.sweep.dashboard.panel import TrackedSweep
from bitsure.sweep.report.cell_results import read_cells
from bitsure.sweep.report.sweep_tracking import SWEEP, group_of

PACKAGE = "wandb_workspaces"
COLUMNS, WIDTH, HEIGHT = 3, 8, 6  # of a report's panels; its grid is 24 wide
WIDE_HEIGHT = 14  # of tables and pages
MOST_TITLE = 128  # letters of a report's title


@dataclass(frozen=True)
class Dashboard:
    """Where a dashboard is.

    Attributes:
        workspace: The workspace's address.
        report: The report's.
    """

    workspace: str
    report: str


def make_dashboard(sweep_dir: Path) -> Dashboard:
    """Make a workspace and a report of a sweep's runs in W&B, with a panel for each question that they can answer.

    Args:
        sweep_dir: The directory of a sweep that was tracked.

    Raises:
        UserError: If its runs were not tracked, the package is missing, nobody is logged in, or W&B refuses.
    """
    if find_spec(PACKAGE) is None:
        raise UserError(f"bitsure dashboard: wandb-workspaces is not installed: {how_to_install('dashboard')}")
    tracking, group, keys = _tracked(sweep_dir)
    log_file = sweep_dir / "libraries.log"
    with terminal.output_to(log_file):
        logged_in = is_logged_in()
    if not logged_in:
        raise UserError(
            "bitsure dashboard: not logged in to Weights & Biases. Run `wandb login`, or set the environment variable "
            "WANDB_API_KEY; send offline runs by `wandb sync`."
        )
    with terminal.output_to(log_file), _refusals(log_file):
        import wandb

        api = wandb.Api()
        entity = str(tracking.entity or api.default_entity)
        presets = register(api, entity)
    sweep = TrackedSweep(entity, tracking.project, group, keys, presets)
    workspace, report = build_workspace(sweep), build_report(sweep)
    with terminal.output_to(log_file), _refusals(log_file):
        address = str(report.save().url)  # first: it is refused where no run of the project was sent yet
        return Dashboard(str(workspace.save().url), address)


@contextmanager
def _refusals(log_file: Path) -> Iterator[None]:
    """Turn what the network or W&B's server refuses into a sentence."""
    try:
        yield
    except Exception as error:  # only calls of the server stand in such a block, and they raise many kinds
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise UserError(
            f"W&B does not take the dashboard: {reason}. Check the network, `wandb login`, and the runs' tracking.entity and "
            f"tracking.project. Details: {log_file}"
        ) from error


def _tracked(sweep_dir: Path) -> tuple[TrackingSettings, str, set[str]]:
    """Return how a sweep's runs are tracked, their group and the keys that they logged."""
    if not is_sweep(sweep_dir):
        raise wrong_directory(sweep_dir, "bitsure dashboard is made of a sweep whose runs W&B has")
    cells = read_cells(sweep_dir)
    settings = next((cell.config["tracking"] for cell in cells if "tracking" in cell.config), {"mode": "disabled"})
    tracking = check(settings, TrackingSettings, "tracking")
    keys = set().union(read_keys(sweep_dir), *(read_keys(cell.directory) for cell in cells))
    if not keys:
        raise UserError(
            f"{sweep_dir}: none of its runs was logged to W&B (tracking.mode={tracking.mode}). Run it again with "
            "tracking.mode=online, or with tracking.mode=offline and then `wandb sync`."
        )
    return tracking, group_of(tracking, sweep_dir), keys


def build_workspace(sweep: TrackedSweep) -> Any:
    """Return the workspace, which is not saved yet."""
    from wandb_workspaces import expr, workspaces

    sections = [
        workspaces.Section(name=section.title, panels=panels, is_open=True)
        for section in SECTIONS
        if (panels := _panels(section, sweep))
    ]
    columns = [column for section in SECTIONS for column in _columns(section, sweep.keys)]
    runs = workspaces.RunsetSettings(
        filters=[expr.Metric("Group") == sweep.group], pinned_columns=["run:displayName", *dict.fromkeys(columns)]
    )
    return workspaces.Workspace(
        entity=sweep.entity,
        project=sweep.project,
        name=f"bitsure {sweep.group}",
        sections=sections,
        runset_settings=runs,
    )


def build_report(sweep: TrackedSweep) -> Any:
    """Return the report, which is not saved yet."""
    from wandb_workspaces.reports import v2 as reports

    intro = (
        "Each run is a model and a quantizer, beside the model in full precision on the same questions. A change is quantized "
        "less full precision. The page of a run says which changes are surely within the margins; the sweep's says what may be "
        "shipped."
    )
    blocks: list[Any] = [reports.P(intro)]
    for section in SECTIONS:
        panels, columns = _panels(section, sweep), _columns(section, sweep.keys)
        if panels or columns:
            runs = _runset(sweep, section, columns)
            blocks += [reports.H2(section.title), reports.PanelGrid(runsets=[runs], panels=panels)]
    return reports.Report(
        entity=sweep.entity,
        project=sweep.project,
        title=f"What quantization does in {sweep.group}"[:MOST_TITLE],
        description="Made by `bitsure dashboard`.",
        width="fluid",
        blocks=blocks,
    )


def _runset(sweep: TrackedSweep, section: DashboardSection, columns: list[str]) -> Any:
    from wandb_workspaces import expr
    from wandb_workspaces.reports import v2 as reports

    job = expr.Metric("JobType")
    return reports.Runset(
        entity=sweep.entity,
        project=sweep.project,
        name="the sweep" if section.of_sweep else "its cells",
        filters=[expr.Metric("Group") == sweep.group, job == SWEEP if section.of_sweep else job != SWEEP],
        pinned_columns=["run:displayName", *columns],
    )


def _columns(section: DashboardSection, keys: Collection[str]) -> list[str]:
    return [column for shown in section.shown for column in shown.columns(keys)]


def _panels(section: DashboardSection, sweep: TrackedSweep) -> list[Any]:
    """Return a section's panels with their places: narrow ones side by side, wide ones below each other."""
    from wandb_workspaces.reports import v2 as reports

    narrow, wide = (
        [panel for shown in section.shown if shown.is_wide == is_wide for panel in shown.panels(sweep)]
        for is_wide in (False, True)
    )
    for panel, (x, y, w, h) in zip([*narrow, *wide], _places(len(narrow)), strict=False):
        panel.layout = reports.Layout(x=x, y=y, w=w, h=h)
    return [*narrow, *wide]


def _places(narrow: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield x, y, width and height of so many narrow panels and then of wide ones."""
    for i in range(narrow):
        yield i % COLUMNS * WIDTH, i // COLUMNS * HEIGHT, WIDTH, HEIGHT
    y = -(-narrow // COLUMNS) * HEIGHT
    while True:
        yield 0, y, COLUMNS * WIDTH, WIDE_HEIGHT
        y += WIDE_HEIGHT
