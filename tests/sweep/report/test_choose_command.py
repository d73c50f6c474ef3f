"""`bitsure choose`: the smallest quantizer of each model that may be shipped, from the files of a sweep."""

from __future__ import annotations

import json
import re

import pyarrow.parquet as pq
import pytest

from bitsure.cli import main
from bitsure.results import write
from bitsure.results.verdict import MarginVerdict, Verdict
from bitsure.sweep.report.building import build_sweep_report
from tests.builders.sweeps import leave_unfinished, write_plan, write_quantized

pytestmark = pytest.mark.usefixtures("blank_pictures")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Five quantizers of one model on 600 questions."""
    folder = tmp_path_factory.mktemp("sweeps") / "made"
    flips = {"gptq8": (0, 0), "gptq4": (0, 0), "rtn4": (60, 40), "gptq3": (8, 7), "rtn2": (120, 0)}
    for quantizer, (lost, won) in flips.items():
        write_quantized(folder, quantizer, lost, won, chance=0.5)
    leave_unfinished(folder, "broken", state="failed", error="no memory")
    return folder


def chosen(capsys, folder, *options: str) -> str:
    main(["choose", str(folder), *options])
    return " ".join(capsys.readouterr().out.split())


def test_no_blank_line_comes_first(sweep, capsys):
    main(["choose", str(sweep)])
    assert not capsys.readouterr().out.startswith("\n")


def test_the_smallest_is_named_with_the_runner_up_and_all_others(sweep, capsys):
    out = chosen(capsys, sweep)
    assert "m: choose gptq4. Of 5 it is the smallest that surely loses less than 0.01 of accuracy (unchanged [-0.0" in out
    assert "It is in gptq4. Runner-up: gptq8. Surely worse: rtn2. Undecided in accuracy: gptq3 (" in out
    assert re.search(r"rtn4 \([\d,]+ to [\d,]+ more questions\)\.", out)
    assert "over the 1 task above guessing) and is surely worse in nothing" in out and "changes over the 1 task above" in out
    assert "Mean over t: 600 questions. Intervals and “by accuracy” hold for all candidates at once, at 95%, and allow" in out
    assert "Not in the mean, because full precision is not above guessing there: chance." in out
    assert "other: not judged. No candidate can be judged. Not judged: broken (failed)." in out


def test_a_limit_of_size_and_a_margin_change_the_choice(sweep, capsys):
    out = chosen(capsys, sweep, "--max-bytes", "0.4kB")
    assert "m: no choice yet" in out and "Not judged: gptq4 (500 bytes are more than 400)." in out
    assert "choose gptq3. Of 5 it is the smallest" in chosen(capsys, sweep, "--margin", "0.05")
    for option in (("--max-bytes", "0"), ("--margin", "0"), ("--margin", "nan")):
        with pytest.raises(SystemExit, match=option[0]):
            main(["choose", str(sweep), *option])


def test_undecided_ones_say_how_many_questions_they_need(sweep, capsys):
    main(["choose", str(sweep)])
    rows = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines() if line.startswith(("gptq", "rtn"))}
    assert rows["rtn4"][6:8] == ["undecided", "–"] and int(rows["rtn4"][8].replace(",", "")) > 10_000
    assert rows["rtn2"][3].startswith("-") and rows["rtn2"][6:] == ["inferior", "–"] and rows["gptq8"][1:3] == ["0.001", "8.00"]


def test_a_candidate_without_its_changes_or_a_task_is_not_judged(tmp_path, capsys):
    for quantizer in ("gptq8", "gptq4", "gptq3"):
        write_quantized(tmp_path, quantizer, 0, **({"easy": 0.9} if quantizer != "gptq4" else {}))
    (tmp_path / "gptq3" / "changes.parquet").write_bytes(b"")
    out = chosen(capsys, tmp_path)
    assert "Not judged: gptq3 (gptq3/changes.parquet is missing or damaged)." in out
    assert "Not judged: gptq4 (was not asked easy)." in out
    assert "no choice yet" in out  # 40 questions of a task are too few to be sure


def test_one_that_saves_hardly_a_byte_is_not_judged(tmp_path, capsys):
    """A checkpoint's headers are no weights, so that half precision rounded to bfloat16 takes a little less than the file."""
    write_quantized(tmp_path, "gptq8", 0)
    file = write_quantized(tmp_path, "gptq4", 0) / "quantization.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | {"bits_per_weight": 15.9}), encoding="utf-8")
    out = chosen(capsys, tmp_path)
    assert "choose gptq8" in out and "Not judged: gptq4 (is not smaller than the full-precision checkpoint)." in out


def test_cells_with_other_tasks_of_one_quantizer_are_one_candidate(tmp_path, capsys):
    for quantizer in ("gptq8", "gptq4"):
        write_quantized(tmp_path, quantizer, 0)
        cell = write_quantized(tmp_path / "other", quantizer, 0)
        for file in ("metrics.json", "comparison.json"):
            content = json.loads((cell / file).read_text(encoding="utf-8"))
            (cell / file).write_text(json.dumps({"u": content["t"]}), encoding="utf-8")
        cell.rename(tmp_path / f"u-{quantizer}")
    (tmp_path / "other").rmdir()
    assert "m: choose gptq4. Of 2 it is the smallest" in chosen(capsys, tmp_path)


@pytest.mark.parametrize(
    ("decision", "words"),
    [
        ("inferior", "m: choose gptq8. {} It is in gptq8. Runner-up: none. Surely worse: gptq4 (negative log-likelihood). Und"),
        ("undecided", "m: choose gptq4 by accuracy alone. {} Its own verdict leaves undecided: negative log-likelihood."),
        ("non-inferior", "m: choose gptq4. {} It is in gptq4. Runner-up: gptq8."),
    ],
)
def test_a_smaller_one_that_keeps_accuracy_and_loses_nll_is_not_simply_chosen(tmp_path, capsys, decision, words):
    loss = MarginVerdict(verdict=decision, loss=0.02, ci_low=0.01, ci_high=0.03, margin=0.015, n=600)
    accuracy = MarginVerdict(verdict="non-inferior", loss=0.0, ci_low=0.0, ci_high=0.0, margin=0.01, n=600)
    margins = {"accuracy": accuracy, "nll": loss}
    verdict = Verdict(verdict=decision, margins=margins, strict=False, level=0.95, noise_control=None, tasks={})
    write_quantized(tmp_path, "gptq8", 0)
    write(write_quantized(tmp_path, "gptq4", 0) / "verdict.json", verdict)
    printed = chosen(capsys, tmp_path)
    assert re.sub(r"Of 2 it is the smallest.*? nothing else\.", "{}", printed).startswith(words)
    assert re.search(rf"gptq4 .*? non-inferior {decision} gptq8", printed)  # by accuracy, and its own verdict
    [choice] = build_sweep_report(tmp_path).choices
    assert choice.outcome == ("undecided" if decision == "undecided" else "non-inferior")


def test_a_sweep_of_texts_alone_says_what_a_choice_goes_by(tmp_path, capsys):
    cell = write_quantized(tmp_path, "gptq4", 0, questions=40)
    comparison = json.loads((cell / "comparison.json").read_text(encoding="utf-8"))
    del comparison["t"]["accuracy"]
    (cell / "comparison.json").write_text(json.dumps(comparison))
    write(
        cell / "verdict.json", Verdict(verdict="undecided", margins={}, strict=False, level=0.95, noise_control=None, tasks={})
    )
    origin = json.loads((cell / "provenance.json").read_text(encoding="utf-8"))
    origin["model"]["training_seed"] = 0  # which is not known of the cell that was skipped
    (cell / "provenance.json").write_text(json.dumps(origin))
    skipped = tmp_path / "hqq4"
    skipped.mkdir()
    (skipped / "status.json").write_text(json.dumps({"state": "skipped", "error": "hqq is not installed", "seconds": {}}))
    write_plan(tmp_path, ("gptq4", "m gptq4"), ("hqq4", "m hqq4"))
    out = chosen(capsys, tmp_path)
    assert out.startswith("m: not judged. A choice goes by accuracy, which none of these runs has; the KL divergence and")
    assert "Not judged: m hqq4 (skipped)." in out


def test_few_questions_decide_nothing(tmp_path, capsys):
    write_quantized(tmp_path, "gptq4", 0, questions=20)
    out = chosen(capsys, tmp_path)
    assert "no choice yet" in out and "fewer than 30 questions, or clusters of them, in t." in out


def test_there_is_no_choice_among_runs_of_other_questions(tmp_path, capsys):
    write_quantized(tmp_path, "gptq8", 0)
    write_quantized(tmp_path, "gptq4", 0)
    table = pq.read_table(tmp_path / "gptq4" / "changes.parquet")
    numbers = (table["question"].to_numpy() // 2).astype("uint64")
    pq.write_table(table.set_column(1, "question", [numbers]), tmp_path / "gptq4" / "changes.parquet")
    out = chosen(capsys, tmp_path)
    assert "m: not judged. No question of t was put to all of gptq4, gptq8." in out


def test_what_is_no_sweep_or_holds_no_quantized_model_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="neither a run's directory nor a sweep's, and a sweep's is needed"):
        main(["choose", str(tmp_path)])
    cell = write_quantized(tmp_path, "gptq4", 0, questions=40)
    (cell / "records.parquet").touch()
    with pytest.raises(SystemExit, match="is a run's directory, and a sweep's is needed: `bitsure report "):
        main(["choose", str(cell)])
    config = cell / "config.yaml"
    config.write_text(config.read_text(encoding="utf-8").replace("gptq4", "none"), encoding="utf-8")
    with pytest.raises(SystemExit, match="holds no quantized model"):
        main(["choose", str(tmp_path)])
