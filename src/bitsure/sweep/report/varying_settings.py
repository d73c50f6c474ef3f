"""Which settings differ between the cells of a sweep, so that their numbers must be told apart by them."""

from __future__ import annotations

from collections.abc import Collection

from bitsure.sweep.report.cell_results import CellResult

# Between cells that differ in these, a setting differs as a consequence; the first prefix of its name counts.
WITHIN = {
    "model.dtype": (),
    "model.": ("model",),
    "quant.": ("model", "quantizer"),
    "control.": ("model", "quantizer"),
    "calib.name": ("model", "quantizer"),
    "calib.": ("model", "quantizer", "calib"),
    "": (),
}
TASKS = "task.names"  # the tasks that a mean over tasks is taken over
QUANTIZING_ONLY = ("quant.", "control.", "calib.", "compress.")  # without effect in full precision


def varying_settings(cells: list[CellResult]) -> set[str]:
    """Return the settings that are not the same in all cells, or in all those that WITHIN compares."""
    known = [cell for cell in cells if cell.config]
    varied = {key for key in {key for cell in known for key in cell.settings} if _varies(key, known)}
    names = [cell.config.get("task", {}).get("names") for cell in known]
    return varied | ({TASKS} if any(tasks != names[0] for tasks in names) else set())


def setting_label(cell: CellResult, varied: Collection[str]) -> str:
    """Return the values of a cell's varying settings, such as `task.limit=5 task.num_fewshot=0`."""
    return " ".join(f"{key}={cell.settings[key]}" for key in sorted(varied) if key in cell.settings)


def outside_quantizing(varied: Collection[str]) -> set[str]:
    """Return the settings that also matter to a model in full precision."""
    return {key for key in varied if not key.startswith(QUANTIZING_ONLY)}


def _varies(key: str, cells: list[CellResult]) -> bool:
    within = next(columns for prefix, columns in WITHIN.items() if key.startswith(prefix))
    values: dict[tuple[str | None, ...], set[str]] = {}
    for cell in cells:
        if within or key in cell.settings:
            calib = cell.config.get("calib", {}).get("name")
            columns = {"model": cell.model_name, "quantizer": cell.quantizer, "calib": calib}
            values.setdefault(tuple(columns[name] for name in within), set()).add(repr(cell.settings.get(key)))
    return any(len(different) > 1 for different in values.values())
