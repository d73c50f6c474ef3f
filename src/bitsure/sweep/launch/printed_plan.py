"""Print what a command would do: its cells, what the store has of them, what is wrong, and how much work remains."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from bitsure.base import terminal
from bitsure.base.byte_sizes import binary_size
from bitsure.base.errors import UserError
from bitsure.base.memo import Memo
from bitsure.compress.model_compressibility import KIND as COMPRESSIBILITY
from bitsure.config.labels import other_settings
from bitsure.config.schema import VLLM
from bitsure.hub.offline import offline
from bitsure.models.weight_files import has_weights
from bitsure.scoring.attribution.part_effects import KIND as ATTRIBUTION
from bitsure.scoring.served.vllm_program import HOW_TO_INSTALL, installed_vllm
from bitsure.sweep.launch import downloads, dry_run, printed_gpus
from bitsure.sweep.launch.assumed_gpu import A100_AT_WORK, gpu_here
from bitsure.sweep.launch.composed_cell import CellErrors, ComposedCell
from bitsure.sweep.launch.dry_run import NO_LOG, InspectedCell
from bitsure.sweep.launch.estimate import WorkEstimator, WorkPiece, seconds_besides
from bitsure.sweep.launch.machine_speed import slowdown

ON_THE_NODE = (
    "Decided on the node that a cell runs on: whether model.device is there and memory is enough. model.dtype=auto is taken "
    "here for the checkpoint's own type, as on a GPU; on a node without one it is float32, and the store has other pieces."
)
MEASURED = (ATTRIBUTION, COMPRESSIBILITY)
COLUMNS = ("baseline", "weights", "records", "texts", *MEASURED)
STAGES = {"weights": "quantizing", ATTRIBUTION: "attributing", COMPRESSIBILITY: "measuring how far codes compress"}
NOTICED = 1.2  # times as slow as without other work
OTHER_WORK = (
    " Other work slows this machine down now: a process takes {:.1f} times as long. That is counted, except in the time of "
    "earlier work, which is as it was."
)
OF_SERVERS = f" A server that was never scored with is taken for one {A100_AT_WORK}."
NO_WEIGHTS = (
    "The weights of {} are not here, and a run needs them: the estimate is from its config.json and tokenizer. If the commit "
    "of its files is not known, neither is what the store has of it."
)
NO_VLLM = (
    f"vLLM is not installed here, and must be where this runs: {HOW_TO_INSTALL}. Which of its records the store has is not "
    "known here."
)
OF_QUANTIZING = " Where no GPU quantized before, the time of GPTQ's authors on one A100 is taken."


def show(cells: Sequence[ComposedCell], errors: CellErrors, on_nodes: bool = False) -> None:
    """Print the plan of some cells.

    Args:
        cells: The cells.
        errors: What is wrong with them already.
        on_nodes: As in `inspect_cells`.

    Raises:
        UserError: With everything that is wrong with the plan.
    """
    memo = Memo()
    inspected = dry_run.inspect_cells(cells, errors, memo, on_nodes)
    out = terminal.console()
    table = Table("cell", "model and quantizer", "state", "in the store", "to make", box=None)
    of_all = set.intersection(*(set(cell.overrides) for cell in cells)) if cells else set()
    for cell in inspected:
        in_store, to_make = _count(cell, cell.present), _count(cell, cell.missing)
        to_make = "known after downloads" if cell.downloads else to_make
        labels = cell.cell.labels
        name = ", ".join([labels.model, labels.quantizer, *other_settings(cell.cell.overrides, of_all)])
        table.add_row(str(cell.cell.number + 1), escape(name), cell.state, in_store, to_make)
    out.print(table)
    if lines := errors.lines():
        raise UserError(
            "\n".join([f"this plan has {len(lines)} error{'s' * (len(lines) > 1)}:", *(f"- {line}" for line in lines)])
        )
    out.print(f"\n{_summary(inspected, memo, on_nodes)}", markup=False, soft_wrap=True)
    if installed_vllm() is None and any(cell.cell.config.scoring.engine == VLLM for cell in inspected if cell.state != "done"):
        out.print(f"\n{NO_VLLM}", markup=False, soft_wrap=True)
    if on_nodes:
        out.print(f"\n{ON_THE_NODE}", markup=False, soft_wrap=True)


def _count(cell: InspectedCell, places: Sequence[Path]) -> str:
    pieces = [cell.pieces[place] for place in places]
    counts = Counter("baseline" if piece.is_baseline else piece.kind for piece in pieces)
    return ", ".join(f"{kind} {counts[kind]}" for kind in COLUMNS if counts[kind])


def _summary(inspected: Sequence[InspectedCell], memo: Memo, on_nodes: bool) -> str:
    """Return how much there is to do, and for how long, as far as that is known."""
    missing = {place: cell.pieces[place] for cell in inspected for place in cell.missing}
    measured = Counter(piece.kind for piece in missing.values() if piece.kind in MEASURED)
    done = sum(cell.state == "done" for cell in inspected)
    here, unknown = [cell for cell in inspected if not cell.downloads], [cell for cell in inspected if cell.downloads]
    text = f"{_cells(len(inspected))}, {done} done"
    known = ", as far as is known before the downloads" if unknown else ""
    also = "".join(f"; {kind} of {_number(number, 'model')} to measure" for kind, number in measured.items())
    sets = len(missing) - measured.total()
    text += f"; {sets} sets of weights or records to make, each once{also}{known}." if here else "."
    if unknown:
        text += "\n" + "\n".join(_unknown(unknown, here, memo, on_nodes))
    pieces = {place: cell.pieces[place] for cell in here for place in cell.missing}
    if not pieces:
        return text
    to_run = sum(cell.state != "done" for cell in here)
    text += "".join(f"\n{sentence}" for sentence in _without_weights(pieces.values()))
    return f"{text}\n{_estimate(list(pieces.values()), to_run, memo, on_nodes)}"


def _without_weights(pieces: Iterable[WorkPiece]) -> list[str]:
    """Return a sentence on each model whose weights are needed here and are not here."""
    sources = [piece.plan.source if piece.plan else piece.run.source for piece in pieces if not piece.is_served]
    names = {source.path: source.name for source in sources}
    return [NO_WEIGHTS.format(f"{name} ({path})") for path, name in names.items() if not has_weights(path)]


def _estimate(pieces: Sequence[WorkPiece], cells: int, memo: Memo, on_nodes: bool) -> str:
    """Return the time, memory and disk that some pieces of so many cells will probably take."""
    estimator = WorkEstimator(pieces[0].run.store, memo, on_nodes)
    with offline(), terminal.output_to(NO_LOG):
        estimates = [estimator.estimate(piece) for piece in pieces]
    seconds, disk = sum(estimate.seconds for estimate in estimates), sum(estimate.disk for estimate in estimates)
    memory: dict[str, float] = {}
    for piece, estimate in zip(pieces, estimates, strict=True):
        stage = STAGES.get(piece.kind, "scoring")
        memory[stage] = max(memory.get(stage, 0), estimate.memory)
    most_memory = ", ".join(f"up to {binary_size(n_bytes)} for {stage}" for stage, n_bytes in memory.items())
    is_elsewhere = on_nodes or any(piece.is_elsewhere for piece in pieces)
    slower = 1.0 if is_elsewhere else slowdown()
    seconds += seconds_besides(cells, slower)
    return (
        "An estimate, from the models' shapes, the number of questions and earlier work in the store: "
        f"{_duration(seconds)} one after the other on {_processors(pieces, estimator)}; main "
        f"memory of a cell: {most_memory}; {binary_size(disk)} of disk in the store."
        + (OTHER_WORK.format(slower) if slower > NOTICED else "")
        + (OF_SERVERS if any(piece.is_served for piece in pieces) else "")
        + _on_vllm([piece for piece in pieces if piece.is_on_vllm], on_nodes)
        + (OF_QUANTIZING if is_elsewhere and not gpu_here() and "quantizing" in memory else "")
        + "".join(f"\n{sentence}" for sentence in printed_gpus.sentences(pieces, memo, on_nodes))
    )


def _processors(pieces: Sequence[WorkPiece], estimator: WorkEstimator) -> str:
    """Return the processors that times are for, unless earlier work had others; those of servers stand apart."""
    not_served = [piece for piece in pieces if not piece.is_served]
    return " and ".join(dict.fromkeys(_processor(estimator.is_on_gpu(piece)) for piece in not_served or pieces))


def _processor(is_gpu: bool) -> str:
    if not is_gpu:
        return "this machine's CPU"
    gpu = gpu_here()
    return f"this machine's {gpu.name}" if gpu else f"another machine's GPU, taken for one {A100_AT_WORK}"


def _unknown(unknown: Sequence[InspectedCell], here: Sequence[InspectedCell], memo: Memo, on_nodes: bool) -> list[str]:
    """Return what is not known of cells that have to download something first, why, and what is known of their models."""
    lines = [f"To be downloaded first: {'; '.join(dry_run.downloads_of(unknown))}."]
    lines += [f"The downloads would fail now: {message}" for message in ([] if on_nodes else dry_run.unreachable(unknown))]
    lines.append(
        f"There is no estimate{f' of {_cells(len(unknown))}' if here else ''}: time, memory and disk follow from a model's "
        "config.json, the questions of its tasks and the calibration text, and not all of them are here."
    )
    sizes = (downloads.known_size(cell.cell.config, memo, on_nodes) for cell in unknown)
    return lines + list(dict.fromkeys(sizes))


def _cells(number: int) -> str:
    return _number(number, "cell")


def _number(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _on_vllm(pieces: Sequence[WorkPiece], on_nodes: bool) -> str:
    """Return what the estimate of vLLM's pieces assumes."""
    if not pieces:
        return ""
    largest = max(pieces, key=lambda piece: piece.gpus)
    gpus, gpu, otherwise = largest.gpus, gpu_here(), "this machine's CPU"
    if gpu or on_nodes or largest.is_elsewhere:
        otherwise = f"{gpus} GPU{'s' * (gpus > 1)}, {'each ' * (gpus > 1)}one {gpu.name if gpu else A100_AT_WORK}"
    return f" The time of vLLM is that of earlier runs with it, otherwise of {otherwise}."


def _duration(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"
