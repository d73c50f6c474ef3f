"""Continuations and whole texts give the harness's own numbers; chat template, system instruction and BOS reach the prompts."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path

import pytest

from bitsure.base.errors import UserError
from bitsure.config.schema import TaskSettings
from bitsure.metrics import measure
from bitsure.models.load import load_model
from bitsure.records.parquet import read_records
from bitsure.records.record import by_task
from bitsure.run import pipeline
from tests.builders.composing import composed
from tests.builders.engines import scored
from tests.builders.marks import SHARED, needs_shared, needs_transformers_5
from tests.builders.settings import METRIC
from tests.builders.tokenizers import CHAT_TEMPLATE

pytestmark = pytest.mark.usefixtures("blank_pictures")


@pytest.fixture(scope="module")
def loaded_model(tiny_model):
    return load_model(tiny_model, "float32")


def ask(loaded_model, own_tasks, name, **changes):
    """The records and prompts of one's own task."""
    from bitsure.scoring.prompting import check_prompting

    chosen = TaskSettings(**({"name": "own", "names": [name], "include_path": str(own_tasks)} | changes))
    check_prompting(loaded_model[1], chosen)
    return scored(chosen, *loaded_model)


def test_a_task_with_several_filters_has_each_question_once(loaded_model, own_tasks, tmp_path):
    for name in ("pets.jsonl", "tiny_pets.yaml"):
        (tmp_path / name).write_text((own_tasks / name).read_text())
    with (tmp_path / "tiny_pets.yaml").open("a") as file:
        file.write("filter_list: [{name: a, filter: [{function: take_first}]}, {name: b, filter: [{function: take_first}]}]\n")
    records, prompts = ask(loaded_model, tmp_path, "tiny_pets")
    assert len(prompts) == len(records) == 20 and records == ask(loaded_model, own_tasks, "tiny_pets")[0]


@pytest.mark.parametrize("name", ["tiny_last", "tiny_pages"])
def test_the_harness_own_numbers(loaded_model, own_tasks, name):
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM

    from bitsure.tasks import harness_tasks as tasks

    rows, _ = ask(loaded_model, own_tasks, name)
    ours = {metric: one.value for metric, one in measure(rows, METRIC)[name].items()}
    chosen = TaskSettings(name="own", names=[name], include_path=str(own_tasks))
    loaded = {"tasks": tasks.load_tasks(chosen, [name], None)[name].tasks}
    lm = HFLM(pretrained=loaded_model[0], tokenizer=loaded_model[1])
    theirs = evaluate(lm, loaded, bootstrap_iters=0)["results"][name]
    compared = {"accuracy": "acc", "perplexity": "perplexity"} if name == "tiny_last" else {}
    compared |= {} if name == "tiny_last" else {m: m for m in ("word_perplexity", "byte_perplexity", "bits_per_byte")}
    for mine, its in compared.items():
        assert ours[mine] == pytest.approx(theirs[f"{its},none"], rel=1e-4), mine
    for row in rows:
        assert row.choice_logprobs[0] == pytest.approx(sum(row.token_logprobs[0])) and len(row.choices) == 1
        assert len(row.token_logprobs[0]) == row.choice_tokens[0] and (row.words is not None) == (name == "tiny_pages")
    if name == "tiny_pages":
        assert max(row.choice_tokens[0] for row in rows) > 1024  # more than a window
        assert rows[0].words == len(rows[0].choices[0].split()) and rows[0].bytes == len(rows[0].choices[0].encode())


def test_chat_template_and_system_instruction_are_in_the_prompts(loaded_model, own_tasks):
    model, tokenizer = loaded_model[0], copy.deepcopy(loaded_model[1])
    with pytest.raises(UserError, match=r"task\.chat_template=true: this model's tokenizer has no chat template"):
        ask(loaded_model, own_tasks, "tiny_pets", chat_template=True)
    tokenizer.chat_template = CHAT_TEMPLATE
    settings = {"chat_template": True, "system_instruction": "Be brief.", "num_fewshot": 2, "limit": 3}
    rows, prompts = ask((model, tokenizer), own_tasks, "tiny_pets", **settings)
    for prompt in prompts:
        assert prompt.startswith("</s><system> Be brief.") and prompt.rstrip().endswith("<assistant>")
        assert prompt.count("<user>") == 3 and prompt.count("<assistant>") == 3  # the examples are turns of their own
    plain, prompts = ask((model, tokenizer), own_tasks, "tiny_pets", limit=3, system_instruction="Be brief.")
    assert all(prompt.startswith("Be brief.") and "<user>" not in prompt for prompt in prompts)
    assert all(a.doc_hash == b.doc_hash and a.prompt_hash != b.prompt_hash for a, b in zip(rows, plain, strict=True))


@needs_transformers_5
def test_a_bos_token_stands_before_prompts_if_asked_for(loaded_model, own_tasks):
    import torch

    def scored_by_hand(row, prompt, bos: bool) -> float:
        model, tokenizer = loaded_model
        context, choice = (tokenizer.encode(text, add_special_tokens=False) for text in (prompt, " " + row.choices[0]))
        ids = [tokenizer.bos_token_id] * bos + context + choice
        with torch.inference_mode():
            logprobs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        return sum(float(logprobs[len(ids) - len(choice) - 1 + i, token]) for i, token in enumerate(choice))

    found = {add_bos: ask(loaded_model, own_tasks, "tiny_pets", limit=2, add_bos=add_bos) for add_bos in (None, True, False)}
    for add_bos, (rows, prompts) in found.items():
        for row, prompt in zip(rows, prompts, strict=True):
            assert row.choice_logprobs[0] == pytest.approx(scored_by_hand(row, prompt, bool(add_bos)), abs=1e-4)
    tokenizer = copy.deepcopy(loaded_model[1])
    tokenizer.bos_token = None
    with pytest.raises(UserError, match=r"task\.add_bos=true: this model's tokenizer puts no BOS token"):
        ask((loaded_model[0], tokenizer), own_tasks, "tiny_pets", add_bos=True)


@needs_shared
def test_a_tokenizer_that_puts_bos_by_itself_can_be_told_not_to(own_tasks):
    loaded = load_model(SHARED / "hub/models/karpathy/stories260K", "float32")
    own, with_bos, without = (
        [row.choice_logprobs for row in ask(loaded, own_tasks, "tiny_pets", limit=3, add_bos=add_bos)[0]]
        for add_bos in (None, True, False)
    )
    assert own == with_bos and own != without


def cell(tmp_path: Path, *overrides: str) -> Path:
    out = tmp_path / f"run{len(os.listdir(tmp_path))}"
    pipeline.run(composed("model=local", f"paths.store={tmp_path / 'store'}", *overrides), out)
    return out


def test_a_run_of_all_kinds_leaves_numbers_verdict_and_page(tiny_model, own_tasks, tmp_path):
    names = "task.names=[tiny_pets,tiny_last,tiny_pages]"
    given = [f"model.path={tiny_model}", "quant=rtn3", "calib=random", "calib.nsamples=2", "calib.seqlen=32"]
    given += ["metric.resamples=100", "task.num_fewshot=null", "tracking.mode=disabled"]
    out = cell(tmp_path, *given, f"task.include_path={own_tasks}", names)
    found = {name: json.loads((out / f"{name}.json").read_text()) for name in ("metrics", "comparison", "verdict")}
    assert set(found["metrics"]) == set(found["comparison"]) == set(found["verdict"]["tasks"])
    assert set(found["metrics"]) == {"tiny_pets", "tiny_last", "tiny_pages"}
    assert found["comparison"]["tiny_pages"]["nll"]["test"] == "paired t-test"
    rows, _ = read_records(out / "records.parquet")
    assert {task: len(one) for task, one in by_task(rows).items()} == {
        "tiny_pets": 20,
        "tiny_last": 20,
        "tiny_pages": 8,
    }
    assert "tiny_pages: the perplexity per word" in (out / "report.html").read_text()


@needs_transformers_5
def test_how_questions_are_put_is_in_provenance_and_key(tiny_model, own_tasks, tmp_path):
    given = [
        f"model.path={tiny_model}",
        "quant=none",
        f"task.include_path={own_tasks}",
        "task.names=[tiny_pets]",
        "task.limit=4",
    ]
    given += ["metric.resamples=100", "tracking.mode=disabled"]
    plain, asked = cell(tmp_path, *given), cell(tmp_path, *given, "task.add_bos=true", "task.system_instruction=Think.")
    assert not (plain / "comparison.json").exists() and not (plain / "quantization.json").exists()  # quant=none
    provenance = json.loads((asked / "provenance.json").read_text())["asked"]
    assert provenance == {
        "num_fewshot": 0,
        "limit": 4,
        "seed": 1234,
        "chat_template": False,
        "system_instruction": "Think.",
        "add_bos": True,
        "score_bos": False,
        "samples": 0,
        "p_true": False,
    }
    assert len(list((tmp_path / "store" / "records").iterdir())) == 2
    found = [read_records(out / "records.parquet")[0]["choice_logprobs"].to_pylist() for out in (plain, asked)]
    assert found[0] != found[1]
