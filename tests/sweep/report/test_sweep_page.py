"""The page opens alone: no script, no network, hostile text escaped; and what is missing is in plain sight."""

from __future__ import annotations

import csv
import re
import shutil

import pytest

from bitsure.base.plain_text import without_controls
from bitsure.cli import main
from bitsure.sweep.report.building import build_sweep_report
from bitsure.sweep.report.contrast_words import spread_sentences
from bitsure.sweep.report.run_columns import parameter_count
from bitsure.sweep.report.study_tables import study_tables
from bitsure.sweep.report.sweep_figures import NAMES
from bitsure.sweep.report.sweep_statistics import STUDY, ModelSpread
from tests.builders.study_rows import study_row as row
from tests.builders.sweeps import HOSTILE, leave_unfinished, write_plan


@pytest.fixture(scope="module")
def made(finished, tmp_path_factory):
    """A sweep of which one cell failed and one was never begun."""
    folder = shutil.copytree(finished, tmp_path_factory.mktemp("half") / "half")
    leave_unfinished(folder, "90-hostile", state="failed", error=f"RuntimeError: {HOSTILE}\nout of memory")
    config = folder / "0-model0-gptq4" / "config.yaml"
    config.write_text(config.read_text().replace("name: gptq4", f"name: 'gptq4{HOSTILE}'"))
    write_plan(folder, *((path.name, path.name) for path in sorted(folder.glob("*-*"))), ("91", f"later {HOSTILE}"))
    return build_sweep_report(folder)


def test_the_page_needs_nothing_and_escapes_all_text(made):
    html = made.page.read_text()
    assert html.count("<script") == 1 and "alert(" in html and '<script>alert("x")' not in html
    assert without_controls(HOSTILE) != HOSTILE and without_controls(html) == html
    assert "default-src 'none'" in html  # no address is loaded, whatever a name says
    links = {link for link in re.findall(r'(?:src|href)="([^"]*)"', html) if not link.startswith("data:image/png;base64,")}
    assert all(link.startswith("#") or link.endswith("/report.html") for link in links)
    assert len(html.encode()) < 5_000_000


def test_the_choice_comes_first_and_then_a_matrix_with_the_way_to_each_cell(two_cells, tmp_path):
    folder = shutil.copytree(two_cells, tmp_path / "sweep")
    (folder / "0-model0-rtn4" / "report.html").touch()
    text = (folder / "1-model0-rtn2" / "comparison.json").read_text()
    (folder / "1-model0-rtn2" / "comparison.json").write_text(text[:99])
    html = build_sweep_report(folder).page.read_text()
    order = [html.index(part) for part in ("not judged", "<nav", 'id="matrix"', 'id="choice"', 'id="numbers"')]
    assert order == sorted(order) and html.index('id="tables"') > order[-1]
    assert 'href="0-model0-rtn4/report.html"' in html
    assert 'class="badge damaged"' in html and "Missing or failed" in html


def test_what_is_missing_or_failed_is_in_plain_sight(made):
    html = made.page.read_text()
    assert "14 cells: 12 done, 1 failed, 1 not started." in html
    assert html.index("Missing or failed") < html.index("<figure") and "out of memory" in html
    assert 'class="badge failed"' in html and 'class="badge not-started"' in html
    assert made.states == {"done": 12, "failed": 1, "not started": 1}


def test_every_picture_has_its_numbers(made):
    names = {picture.name for picture in made.pictures}
    assert names == {
        *(f"scale_{metric}" for metric in ("true_label_prob", "accuracy", "expected_calibration_error", "confidence")),
        *("bits_true_label_prob", "bits_accuracy", "heat_map", "pareto", "coded", "quantizing_time"),
        "shift_by_certainty",
    }
    assert {path.stem for path in (made.directory / "figures").glob("*.png")} == names
    of_texts = {name for name in NAMES if name.startswith("fidelity_")}
    assert of_texts and names == set(NAMES) - of_texts - {"scoring_speed", "retrieval", "task_types"}
    for picture in made.pictures:
        with made.png(picture).with_suffix(".csv").open() as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == len(picture.rows) > 0 and {"model", "value", "ci_low"} <= set(rows[0])
        drawn = {"2 training seeds"} if picture.name.startswith(("scale", "bits", "shift")) else set()
        assert all(panel.finding for panel in picture.panels), picture.name
        assert {one["draws"] for one in rows if one["draws"]} == drawn, picture.name
    tables = {"study", "heterogeneity", "contrasts", "contrasts_of_quantizers", "draws"}
    assert {path.stem for path in (made.directory / "tables").glob("*.csv")} == tables


def test_quantizers_are_compared_and_the_page_says_what_that_holds_for(made):
    html = " ".join(made.page.read_text().split())
    assert "Between quantizers" in html and ">rtn4 less gptq4</td>" in html
    assert "a claim about quantizers needs 5 calibration seeds or more" in html


def test_the_studys_table_is_corrected_and_as_published(made):
    tables = study_tables(made.models, STUDY)
    assert tables["rtn4"].columns == list(STUDY.values())
    model, task, cells = tables["rtn4"].rows[1]
    assert (model, task, len(cells)) == ("", "0", 2 * 5)  # under model0; what the tasks' names have in common is left out
    assert "The same as published" in made.page.read_text() and "ACE" in made.page.read_text()


def test_full_precision_stands_beside_what_was_scored_in_the_same_setting():
    few, many = ({"setting": f"task.limit={n}", "conditions": f"task.limit={n}", "bits_per_weight": 4.2} for n in (5, 90))
    rows = [row(**few, baseline=0.6), row(**many, baseline=0.7)]
    full = {"quantizer": "none", "quantizer_label": "full precision"}
    rows += [row(**one, **full, value=value) for one, value in ((few, 0.6), (many, 0.7))]
    found = {name: table.rows for name, table in study_tables(rows, STUDY).items()}
    assert found == {
        "gptq4, task.limit=5": [("m", "t", ["0.6000", "0.5000*"])],
        "gptq4, task.limit=90": [("m", "t", ["0.7000", "0.5000*"])],
    }
    assert set(study_tables(rows[2:], STUDY)) == {"full precision, task.limit=5", "full precision, task.limit=90"}


def test_words_never_set_a_star_against_none():
    fields = {
        "quantizer": "q",
        "setting": "",
        "label": "q",
        "metric": "true_label_prob",
        "smallest": -0.3,
        "largest": -0.1,
        "models": 2,
    }
    fields |= {"q": 1.0, "i_squared": 0.0, "tau": 0.0, "p_value": 0.5}
    spreads = [ModelSpread(**fields, task=task, p_adjusted=p) for task, p in (("a", 1e-5), ("b", 0.5))]
    [sentence] = spread_sentences(spreads, 0.01)
    assert (
        "differ in this by more than their errors explain on a; no difference is shown on b, which does not prove" in sentence
    )
    [sentence] = spread_sentences(spreads[1:], 0.01)
    assert "No task shows that models differ in this. This does not prove that they are equal." in sentence


@pytest.mark.parametrize(
    ("n", "name"), [(345_984, "346K"), (1_006_592, "1.0M"), (125_000_000, "125M"), (6_700_000_000, "6.7B")]
)
def test_sizes_are_named_as_models_are(n, name):
    assert parameter_count(n) == name


def test_a_sweep_without_one_finished_cell_has_a_page(tmp_path):
    leave_unfinished(tmp_path, "0-other", state="running")
    made = build_sweep_report(tmp_path)
    assert made.pictures == [] and "1 running" in made.page.read_text() and (tmp_path / "sweep.parquet").is_file()


def test_a_sweep_of_full_precision_alone_has_its_table(finished, tmp_path):
    for i, name in enumerate(("0-model0-gptq4", "6-model2-gptq4")):
        cell = shutil.copytree(finished / name, tmp_path / f"{i}-{name}")
        for gone in ("comparison.json", "baseline_metrics.json", "quantization.json", "changes.parquet"):
            (cell / gone).unlink()
        (cell / "config.yaml").write_text((cell / "config.yaml").read_text().replace("name: gptq4", "name: none"))
    (tmp_path / "figures").mkdir()
    for name in ("bits_accuracy.png", "bits_accuracy.csv", "scale_accuracy.csv", "mine.png"):
        (tmp_path / "figures" / name).write_text("of an earlier report")
    made = build_sweep_report(tmp_path)
    assert set(study_tables(made.models, STUDY)) == {"full precision"}
    left = {path.name for path in (tmp_path / "figures").iterdir()}
    assert {"scale_accuracy.png", "mine.png"} <= left and not {"bits_accuracy.png", "bits_accuracy.csv"} & left
    assert "of an earlier report" not in (tmp_path / "figures" / "scale_accuracy.csv").read_text()


def test_the_command_takes_a_sweeps_directory(two_cells, tmp_path, capsys):
    folder = shutil.copytree(two_cells, tmp_path / "sweep")
    leave_unfinished(folder, "90-killed", state="killed", error="signal 9")
    main(["report", str(folder)])
    printed = capsys.readouterr().out
    assert "3 cells: 2 done, 1 killed" in printed and "signal 9" in printed and "full precision" in printed
    lines = printed.splitlines()
    table = lines[lines.index("task_0, and its change from full precision") :]
    assert max(map(len, table[:12])) <= 80 and "model0: not judged. Full precision is not above guessing on any task." in lines
    assert not (folder / "wandb").exists()
    with pytest.raises(SystemExit, match="--metric works on one of its runs"):
        main(["report", str(folder), "--metric", "paper_compat"])
