"""The tables of docs/systems.md come from a sweep's cells, and claim no more than the intervals allow."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import yaml
from scipy.stats import norm

from benchmarks import systems
from benchmarks.contrast import MeanContrast, between
from benchmarks.regions import REGION, fill
from benchmarks.sweep import METRIC, write_sweep
from bitsure.base.errors import UserError
from bitsure.comparison.changes import read_changes
from bitsure.metrics.metric_names import MACRO
from bitsure.sweep.report.cell_results import read_cells

PLAIN = {"transforms": [], "format": "int", "activations": None, "kv": None}
A4 = {"bits": 4, "format": "int"}
QUANTIZERS = {
    "w3": PLAIN,
    "w2": PLAIN,
    "gptq3": PLAIN | {"damp_percent": 0.01},
    "wa4": PLAIN | {"activations": A4},
    "smooth8": PLAIN | {"activations": A4, "transforms": ["smooth"]},
    "kv4": {"transforms": [], "activations": None, "kv": A4},
}
QLLM = "# QLLM\n\nAbout.\n\n## Outliers: none\n\n| a |\n\n## Outliers: some\n\n| b |\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One model and two calibration texts, of which gptq alone reads any."""
    place = tmp_path_factory.mktemp("systems")
    folder = place / "sweep"
    for number, text in enumerate(("pocket", "random")):
        write_sweep(place / text, 1, 2, 60, tuple(QUANTIZERS))
        for cell in sorted((place / text).iterdir()):
            config = yaml.safe_load((cell / "config.yaml").read_text())
            config["quant"] |= QUANTIZERS[config["quant"]["name"]]
            config["calib"]["name"] = text
            (cell / "config.yaml").write_text(yaml.safe_dump(config))
            proof = json.loads((cell / "quantization.json").read_text())
            windows = 16 if "gptq" in proof["quantizer"] else 0
            calib_data = {"name": text, "windows": windows, "seqlen": 2048}
            proof |= {"calib_data": calib_data, "code_entropy": 2.5, "load_seconds": 0.01}
            (cell / "quantization.json").write_text(json.dumps(proof))
            shutil.move(cell, folder / f"{number}-{cell.name}")
    return folder


@pytest.fixture
def sweep(made, tmp_path):
    """Return a copy of the sweep, which a test may change."""
    return shutil.copytree(made, tmp_path / "sweep")


def column(lines: list[str], number: int) -> list[str]:
    return [line.split(" | ")[number].strip("| ") for line in lines if line.startswith("| ")][2:]


def test_each_question_has_the_quantizers_that_answer_it(sweep):
    regions = systems.tables(sweep, QLLM)
    assert column(regions["bits"], 1) == ["w3", "w2"]
    assert column(regions["activations"], 1) == ["smooth8", "wa4"] and column(regions["chains"], 1) == ["smooth8"]
    assert column(regions["cache"], 1) == ["kv4"]
    assert column(regions["study"], 1) == ["full precision", "gptq3"]
    assert sorted(name.removesuffix(" (best)") for name in column(regions["algorithms"], 1)) == ["gptq3", "w3"]
    assert column(regions["data"], 1) == ["gptq3"] and column(regions["data"], 2) == ["random − pocket"]
    assert len(column(regions["costs"], 1)) == 6 and "| 20.0 | 700 | 900 | 1,000 | 800 |" in "\n".join(regions["costs"])
    assert regions["qllm"][0] == "About." and "### Outliers: none" in regions["qllm"] and "# QLLM" not in regions["qllm"]
    assert regions["loading"][-1].startswith("model0: the cheapest to load is w2")
    assert column(regions["published-qllm"], 0).count("llama-2-7b") == 1
    assert "| llama-2-7b | text/wikitext2/gptq | perplexity | 11.75 |  |  |" in regions["published-qllm"]


def test_a_quantizer_whose_name_is_no_option_is_told_with_the_option_that_chose_it(sweep):
    for path in sweep.glob("*/provenance.json"):
        name = yaml.safe_load((path.parent / "config.yaml").read_text())["quant"]["name"]
        labels = {"model": "model0", "quantizer": name, "preset": {"wa4": "w4a4"}.get(name, name)}
        path.write_text(json.dumps(json.loads(path.read_text()) | {"labels": labels}))
    assert "\nThe tables have full names of quantizers: `quant=w4a4` is `wa4`. Other" in "\n".join(
        systems.tables(sweep, QLLM)["sweep"]
    )


def test_the_real_page_has_a_place_for_each_table_and_what_is_around_it_stays(sweep):
    page, regions = systems.PAGE.read_text(), systems.tables(sweep, QLLM)
    filled = fill(page, regions)
    assert all("\n".join(lines) in filled for lines in regions.values())
    assert fill(filled, regions) == filled
    around = REGION.sub("", page)
    assert REGION.sub("", filled) == around and "## QLLM (Liu et al. 2024)" in around
    with pytest.raises(UserError, match="The page has the regions "):
        fill(page.replace("made: bits", "made: bots"), regions)


def test_the_least_is_the_one_whose_interval_is_above_the_margin(sweep):
    for quantizer, low in (("w3", -0.009), ("w2", -0.011)):
        file = next(sweep.glob(f"0-*-{quantizer}")) / "comparison.json"
        comparison = json.loads(file.read_text())
        comparison[MACRO]["accuracy"] |= {"value": 0.0, "ci_low": low, "ci_high": 0.01}
        file.write_text(json.dumps(comparison))
    assert "of weights alone whose accuracy is surely less than 0.01 worse: `w3`." in systems.tables(sweep, QLLM)["bits"][-1]


def test_a_sweep_that_is_not_finished_is_refused(sweep):
    status = next(sweep.glob("0-*-w3")) / "status.json"
    status.write_text(json.dumps({"state": "failed", "error": "no"}))
    with pytest.raises(UserError, match="1 cells are not done, such as 0-0-model0-w3"):
        systems.tables(sweep, QLLM)


def test_a_contrast_is_of_the_same_questions(sweep):
    """The mean over tasks of the mean difference, with the standard error that pairing leaves."""
    first, second = (cell for cell in read_cells(sweep) if cell.quantizer in ("w3", "w2") and cell.name.startswith("0-"))
    accuracy = between(first, second)["accuracy"]
    differences = []
    for task in ("task_0", "task_1"):
        before, after = (read_changes(cell.directory / "changes.parquet", task) for cell in (first, second))
        differences.append(after.values["accuracy"] - before.values["accuracy"])
    error = sum(change.var() / len(change) for change in differences) ** 0.5 / 2
    assert accuracy.value == pytest.approx(np.mean(differences))
    half = norm.ppf((1 + METRIC.confidence_level) / 2) * error
    assert (accuracy.ci_high - accuracy.ci_low) / 2 == pytest.approx(half, rel=0.1)
    assert between(first, first)["true_label_prob"] == MeanContrast(0.0, 0.0, 0.0)
