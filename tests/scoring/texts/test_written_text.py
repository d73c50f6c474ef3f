"""What full precision wrote, as a text: both models score its tokens after the very beginning that it wrote them after."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from bitsure import results
from bitsure.base.errors import UserError
from bitsure.config.paths import PROJECT
from bitsure.results import Comparison
from bitsure.run import pipeline
from tests.builders.composing import composed
from tests.builders.sweep_commands import compose_errors

pytestmark = pytest.mark.usefixtures("blank_pictures")

TASK = """task: written_word
dataset_path: json
dataset_kwargs: {data_files: {test: FACTS}}
test_split: test
output_type: generate_until
doc_to_text: "{{context}}"
doc_to_target: "{{choices[label]}}"
metric_list: [{metric: exact_match}]
generation_kwargs: {until: ["."], max_gen_toks: 8}
filter_list: [{name: word, filter: [{function: regex, regex_pattern: '(\\w+)\\.?$'}, {function: take_first}]}]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("facts")
    facts = path / "facts.jsonl"
    facts.write_text("\n".join((PROJECT / "pocket" / "tasks" / "recall.jsonl").read_text().splitlines()[:32]))
    (path / "word.yaml").write_text(TASK.replace("FACTS", str(facts)))
    return path


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("run")
    settings = ["model=pocket-300k", "quant=rtn3", "task.names=[written_word]", f"task.include_path={folder}", "text=written"]
    settings += ["metric.resamples=100", "tracking.mode=disabled", "task.samples=2", f"paths.store={path / 'store'}"]
    pipeline.run(composed(*settings), path / "run")
    return path / "run"


def test_full_precision_gives_its_own_tokens_what_it_gave_them_when_it_wrote(run):
    answers = pq.read_table(run / "baseline_generations.parquet").filter(pc.field("sample") == 0)
    tokens = pq.read_table(run / "baseline_texts.parquet")
    assert set(tokens["task"].to_pylist()) == {"text/written_word/written"}
    own = sorted(value for logprobs in answers["token_logprobs"].to_pylist() for value in logprobs)
    assert sorted(tokens["logprob"].to_pylist()) == pytest.approx(own, abs=1e-4)
    assert np.bincount(tokens["position"]).tolist()[0] == len(answers) == 32


def test_the_two_models_are_compared_along_its_answers_and_the_report_says_where_they_part(run):
    comparison = results.read(run / "comparison.json", Comparison)
    along, written = comparison["text/written_word/written"], comparison["written_word"]
    assert along["kl_divergence_from_token_1"].n == 32 and along["kl_divergence_from_token_1"].value > 0
    assert written["divergence/auroc"].value > 0.5 and written["self_consistency/auroc"].value is not None
    page = (run / "report.html").read_text()
    assert "are word for word full precision" in page and "from it: " in page
    assert "The first token that differs is number 1: full precision gives" in page


def test_without_a_task_there_is_nothing_that_it_could_have_written(tmp_path):
    [error] = compose_errors("task=none", "text=written", "model=pocket-300k", f"hydra.sweep.dir={tmp_path}")
    assert "task=none text=written: there is no task to score" in error


@pytest.mark.parametrize("setting", ["text=written", "task.samples=3", "task.p_true=true"])
def test_what_is_for_written_answers_is_refused_before_anything_is_scored_if_no_task_has_any(setting, tmp_path):
    settings = ["model=pocket-300k", "task.names=[pocket_weather]", "task.limit=4", setting, "tracking.mode=disabled"]
    with pytest.raises(UserError, match=f"{setting}: of the tasks pocket_weather none has answers that the model writes"):
        pipeline.run(composed(*settings, f"paths.store={tmp_path / 'store'}"), tmp_path / "run")
    assert not (tmp_path / "store" / "records").exists()
