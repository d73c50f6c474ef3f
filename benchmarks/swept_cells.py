"""The finished cells of a sweep, by quantizer, calibration text and draw, and what each changed in its tasks' questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, cached_property

from bitsure.base.errors import UserError
from bitsure.comparison.changes import AnswerChanges, before_changes, read_changes
from bitsure.comparison.published_numbers import TEXT
from bitsure.config.report_settings import read_report_settings
from bitsure.records import read_own_baseline, read_saved_run
from bitsure.records.joining import join
from bitsure.results import Provenance, read
from bitsure.sweep.report.cell_results import CellResult

FULL_PRECISION = "full precision"
ALIKE = [("task", "limit"), ("text", "limit"), ("calib", "nsamples"), ("calib", "seqlen")]  # settings of all cells of a model


class SweptCells:
    """The finished cells of one model in a sweep over quantizers, calibration texts and seeds.

    Raises:
        UserError: If two cells have the same quantizer, text and seed, or cells were asked or calibrated differently.
    """

    def __init__(self, cells: Sequence[CellResult]) -> None:
        _check_alike(cells)
        self.model = cells[0].model_name
        self.tasks = [task for task in next(cell.tasks for cell in cells if cell.done) if not task.startswith(TEXT)]
        self.by_calibration: dict[str, dict[str, dict[int, CellResult]]] = {}  # quantizer → calibration text → seed → cell
        for cell in cells:
            option, calib = option_of(cell), cell.config["calib"]
            seeds = self.by_calibration.setdefault(option, {}).setdefault(calib["name"], {})
            if other := seeds.get(calib["seed"]):
                raise UserError(
                    f"{other.directory} and {cell.directory} have the same quantizer, quant={option}, "
                    f"calib.name={calib['name']} and calib.seed={calib['seed']}. Give each directory once; cells that differ "
                    "in other settings need options of their own."
                )
            seeds[calib["seed"]] = cell
        self.changes = cache(self._changes)

    def by_seed(self, quantizer: str, text: str) -> Mapping[int, CellResult]:
        """Return seed → cell; the one cell of a quantizer without data under its seed, whatever the text."""
        texts = self.by_calibration.get(quantizer, {})
        return texts.get(text, {}) or (next(iter(texts.values())) if not self.reads_text(quantizer) else {})

    def reads_text(self, quantizer: str) -> bool:
        """Return whether the quantizer was calibrated; True where no cell of it is done."""
        cells = (cell for seeds in self.by_calibration.get(quantizer, {}).values() for cell in seeds.values())
        return all(cell.quantization is None or cell.quantization.calib_data.windows for cell in cells)

    def is_drawn(self, quantizer: str) -> bool:
        """Return whether the quantizer depends on the seed, however few of its cells are done: it reads a text, or rotates."""
        cells = (cell for seeds in self.by_calibration[quantizer].values() for cell in seeds.values())
        return self.reads_text(quantizer) or any("rotate" in cell.config["quant"].get("transforms", ()) for cell in cells)

    def _changes(self, quantizer: str, text: str, seed: int, task: str) -> AnswerChanges:
        if quantizer == FULL_PRECISION:
            return self.before[task]
        return read_changes(self.cell(quantizer, text, seed).directory / "changes.parquet", task)

    @cached_property
    def before(self) -> dict[str, AnswerChanges]:
        """What full precision gives on the questions of each task."""
        cell = next(iter(next(iter(next(iter(self.by_calibration.values())).values())).values()))
        baseline = read_own_baseline(cell.directory)
        if baseline is None:
            raise UserError(f"{cell.directory} holds no full-precision records.")
        settings, _ = read_report_settings(cell.directory / "config.yaml")
        return before_changes(join(baseline.records, read_saved_run(cell.directory).records), settings)

    def draws(self, quantized: Sequence[tuple[str, str]]) -> list[int]:
        """Return the draws that quantizers on texts have in common; one that stands for all where nothing is drawn."""
        if not all(self.by_seed(*each) for each in quantized):
            return []
        drawn = [set(self.by_seed(*each)) for each in quantized if self.is_drawn(each[0])]
        return sorted(set.intersection(*drawn)) if drawn else [0]

    def cell(self, quantizer: str, text: str, seed: int) -> CellResult:
        """Return the cell of a draw; the one that there is of a quantizer in which nothing is drawn."""
        cells = self.by_seed(quantizer, text)
        return cells[seed] if self.is_drawn(quantizer) else next(iter(cells.values()))


def _check_alike(cells: Sequence[CellResult]) -> None:
    """Raise UserError if cells of one model differ in ALIKE."""
    first = cells[0]
    for cell in cells[1:]:
        for group, name in ALIKE:
            values = [each.config.get(group, {}).get(name) for each in (first, cell)]
            if values[0] != values[1]:
                raise UserError(
                    f"{first.directory} has {group}.{name}={values[0]} and {cell.directory} {values[1]}. One table needs the "
                    "same in all cells of a model: give the directories of one sweep."
                )


def option_of(cell: CellResult) -> str:
    """Return the option that a cell's quantizer was chosen by, which is the same for all its draws, also of recipes."""
    labels = read(cell.directory / "provenance.json", Provenance).labels
    return labels.preset if labels and labels.preset else cell.label
