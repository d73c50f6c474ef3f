"""QLLM, SmoothQuant and plain rounding at W4A4 with and without outliers: `make bench-qllm` writes benchmarks/qllm.md.

Outlier channels are put into a pocket model without changing its function (`pocket.outliers`). Each quantizer then goes the way
of any run: quantized, read back from disk, proved, scored. A draw is a place of the outliers, a choice of calibration text and
a seed of the tuning.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from bitsure.base.decimals import with_ends
from bitsure.base.files import atomic_path
from bitsure.base.store import Store
from bitsure.config.calib_settings import CalibSettings
from bitsure.config.number_formats import Activations
from bitsure.config.paths import PROJECT
from bitsure.config.quantizers import Rounded, Tuning
from bitsure.config.schema import ModelSettings, ScoringSettings, TaskSettings
from bitsure.metrics import across
from bitsure.metrics.bootstrap import resample_weights
from bitsure.metrics.questions import question_set
from bitsure.models.load import load_model
from bitsure.models.locate import locate_model
from bitsure.quantize.calibration.calibration_text import locate_text
from bitsure.quantize.make import ensure_quantized
from bitsure.quantize.native.rtn import Rtn
from bitsure.quantize.plan import Plan
from bitsure.records.joining import join
from bitsure.scoring.question_source import locate_questions
from bitsure.scoring.scored_model import ScoredModel
from bitsure.scoring.scorer import Scorer

HERE = Path(__file__).parent
OUTLIERS = {"none": None, "1 channel in 128, × 16": (16, 128), "4 channels in 128, × 16": (16, 32)}  # strength, one in how many
TRANSFORMS = {
    "plain": ([], False),
    "SmoothQuant": (["smooth"], False),
    "reassembled": (["reassemble"], False),
    "QLLM": (["reassemble"], True),
    "SmoothQuant, tuned": (["smooth"], True),
}
PAIRS = [("QLLM", "plain"), ("QLLM", "SmoothQuant"), ("reassembled", "plain"), ("QLLM", "SmoothQuant, tuned")]
TASKS = ["pocket_recall", "pocket_reading", "pocket_stories"]
RESAMPLES, LEVEL = 2000, 0.95
FULL, CLUSTERS = "full precision", "clusters"


def quantizer(name: str, seed: int) -> Rtn:
    """W4A4 as the paper has it: a scale for each row of the weights and each token, all asymmetric."""
    transforms, tuned = TRANSFORMS[name]
    return Rtn(4, -1, False, transforms=transforms, activations=Activations(4), tuning=Tuning(4, seed=seed) if tuned else None)


def write_model(name: str, outliers: tuple[int, int] | None, seed: int, path: Path) -> None:
    import torch

    from pocket.outliers import inject

    model, tokenizer = load_model(PROJECT / "pocket" / "models" / name, "float32", device="cpu")
    if outliers is not None:
        windows = torch.arange(256).remainder(model.config.vocab_size).view(4, 64)
        inject(model, windows, *outliers, seed)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)


def measure_draw(
    model: str, outliers: tuple[int, int] | None, draw: int, given: argparse.Namespace, quantizers: dict[str, Rounded]
) -> dict[str, np.ndarray]:
    """Return what one draw gives: by quantizer the layers' mean output error, then the right answers' probabilities, (1 + n,).

    CLUSTERS has the n questions' clusters, (n,). All are kept beside the page under the settings that they come from, so
    that a command that was broken off goes on where it stopped. After a change of the code, remove that folder.
    """
    import torch

    settings = repr((outliers, draw, TASKS, {name: quant.identity(None) for name, quant in quantizers.items()}))
    digest = hashlib.sha256(settings.encode()).hexdigest()[:8]
    file = given.out.with_suffix("") / f"{model}-{draw}-{given.windows}-{given.questions}-{digest}.npz"
    numbers = dict(np.load(file)) if file.is_file() else {}

    def keep(name: str, error: float, records: pa.Table) -> None:
        numbers[name] = np.append(error, question_set(records).true_label_prob)
        numbers[CLUSTERS] = np.unique(records["cluster"].to_pylist(), return_inverse=True)[1]
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(file) as temporary, temporary.open("wb") as opened:
            np.savez(opened, **numbers)

    torch.set_num_threads(1)
    text = PROJECT / "pocket" / "text" / "calibration.txt"
    calib = CalibSettings(name="pocket", path=str(text), nsamples=given.windows, seqlen=256, seed=draw)
    task = TaskSettings(name="pocket", names=TASKS, include_path=str(PROJECT / "pocket" / "tasks"), limit=given.questions)
    with tempfile.TemporaryDirectory() as folder:
        path, log, store = Path(folder) / "model", Path(folder) / "log", Store(Path(folder) / "store")
        write_model(model, outliers, draw, path)
        source = locate_model(ModelSettings(path=str(path)), None)
        scorer = Scorer(locate_questions(task, None), ScoringSettings(), "float32", store, log)
        missing = {name: quant for name, quant in quantizers.items() if name not in numbers}
        full = scorer.score(ScoredModel(source), None, FULL) if missing else None
        for name, quant in missing.items():
            plan = Plan(source, quant, calib, locate_text(calib, None), "float32")
            made = ensure_quantized(plan, store, log)
            error = np.mean([layer.output_error for layer in made.proof.layers.values()])
            rows = scorer.score(ScoredModel(source, plan.made_from), partial(Path, made.checkpoint), name)
            keep(name, float(error), join(full, rows).quantized)
            keep(FULL, 0.0, full)
    return numbers


def over_draws(values: np.ndarray) -> tuple[float, float, float]:
    """The mean of a number a draw, (draws,), and its t interval: draws are what varies."""
    mean = across.over_draws(values, np.zeros(len(values)), LEVEL)
    return mean.value, mean.ci_low, mean.ci_high


def over_draws_and_questions(values: np.ndarray, clusters: np.ndarray) -> tuple[float, float, float]:
    """The mean of (draws, questions) and its interval: draws by t, questions resampled by their clusters, (questions,)."""
    weights = resample_weights(len(clusters), RESAMPLES, 0, clusters)
    errors = (values @ weights / weights.sum(0)).std(1, ddof=1)
    mean = across.over_draws(values.mean(1), errors, LEVEL)
    return mean.value, mean.ci_low, mean.ci_high


INTERVALS = (
    "Its 95% intervals are over draws, by t, and over questions, resampled by their clusters, both random. The pairs are "
    "exploratory: no interval is adjusted for their number."
)


def introduction(given: argparse.Namespace) -> str:
    lines = [
        "# QLLM, SmoothQuant and plain rounding at W4A4",
        "",
        f"`make bench-qllm`: {given.model}, {given.draws} draws of outliers, calibration text ({given.windows} × 256 tokens) "
        f"and seed; {len(TASKS)} tasks, {given.questions} questions each, the same in every draw. Weights are asymmetric with "
        "one scale a row, activations asymmetric with one a token. Tuned: rank 4, 10 epochs, AdamW at 5e-4. Output error: "
        "‖Q(X)Ŵᵀ − XWᵀ‖ / ‖XWᵀ‖ on held-out text, the mean over layers, with its 95% t interval over draws. True-label "
        f"probability: quantized less full precision. {INTERVALS}",
        "",
        "The outliers are gains of norms that the next weights take back, which is what SmoothQuant's scales can undo to the "
        "last channel: its numbers hardly depend on them. Outliers of large models need not be of that kind.",
        "",
        "",
    ]
    return "\n".join(lines)


def tables(by_outliers: dict[str, list[dict[str, np.ndarray]]], pairs: list[tuple[str, str]]) -> str:
    """Return the numbers of each quantizer and the differences of pairs, from what `measured` returns."""
    lines = []
    for outliers, runs in by_outliers.items():
        lines += [f"## Outliers: {outliers}", "", "| | output error | true-label probability |", "|---|---|---|"]
        names = [name for name in runs[0] if name != CLUSTERS]
        errors = {name: np.array([run[name][0] for run in runs]) for name in names}
        p = {name: np.array([run[name][1:] for run in runs]) for name in names}
        interval = partial(over_draws_and_questions, clusters=runs[0][CLUSTERS])
        for name in [name for name in names if name != FULL]:
            shift = interval(p[name] - p[FULL])
            lines.append(f"| {name} | {with_ends(*over_draws(errors[name]), '.4f')} | {with_ends(*shift, '+.4f')} |")
        lines += ["", "| one less the other | output error | true-label probability | wins |", "|---|---|---|---|"]
        for first, second in pairs:
            error, shift = over_draws(errors[first] - errors[second]), interval(p[first] - p[second])
            winners = f"{_winner(first, second, error, -1)}; {_winner(first, second, shift, 1)}"
            lines.append(f"| {first} − {second} | {with_ends(*error, '+.4f')} | {with_ends(*shift, '+.4f')} | {winners} |")
        lines.append("")
    return "\n".join(lines)


def _winner(first: str, second: str, interval: tuple[float, float, float], sign: int) -> str:
    """Whose number is better, where the interval of the difference does not hold 0; sign: 1 if more is better."""
    _, low, high = interval
    if low <= 0 <= high:
        return "undecided"
    return first if sign * low > 0 else second


def arguments(description: str, out: Path) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--model", default="pocket-1m")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--windows", type=int, default=32)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="of one thread each")
    parser.add_argument("--out", type=Path, default=out)
    return parser.parse_args()


def measured(
    given: argparse.Namespace,
    quantizers: Callable[[int], dict[str, Rounded]],
    outliers: Mapping[str, tuple[int, int] | None] = OUTLIERS,
) -> dict[str, list[dict[str, np.ndarray]]]:
    """Return, by outliers, what `measure_draw` returns for each draw; quantizers: those of a draw, by name."""
    with ProcessPoolExecutor(given.processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        jobs = {
            name: [pool.submit(measure_draw, given.model, how, draw, given, quantizers(draw)) for draw in range(given.draws)]
            for name, how in outliers.items()
        }
        return {name: [job.result() for job in submitted] for name, submitted in jobs.items()}


def main() -> None:
    given = arguments(__doc__.splitlines()[0], HERE / "qllm.md")
    by_outliers = measured(given, lambda draw: {name: quantizer(name, draw) for name in TRANSFORMS})
    text = introduction(given) + tables(by_outliers, PAIRS)
    print(text)
    given.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
