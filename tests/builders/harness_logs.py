"""Logs that lm-evaluation-harness itself writes, of tasks made for a test and a model that answers by a hash."""

from __future__ import annotations

import json
import zlib


def hashed(text):
    """A log-likelihood between −10 and 0 that only depends on the text."""
    return -(zlib.crc32(text.encode()) % 100_000) / 10_000 - 0.01


def hashing_model():
    from lm_eval.api.model import LM

    class HashingLM(LM):
        def loglikelihood(self, requests, disable_tqdm=False):
            scores = [hashed("".join(request.args[:2])) for request in requests]
            return [(score, score > -4) for score in scores]

        def loglikelihood_rolling(self, requests, disable_tqdm=False):
            return [hashed(request.args[0]) for request in requests]

        def generate_until(self, requests, disable_tqdm=False):
            return ["a text" for _ in requests]

        @property
        def tokenizer_name(self):
            return "hashing"

        def apply_chat_template(self, chat_history, add_generation_prompt=True):
            return "".join(f"<{turn['role']}>{turn['content']}" for turn in chat_history)

    return HashingLM()


def write_log(folder, documents, num_fewshot=0, chat_template=False, **tasks):
    """Have the harness evaluate tasks on documents and write its samples; returns the directory that it wrote to.

    Args:
        folder: An empty folder.
        documents: The documents of every task, dicts.
        num_fewshot: Examples before each question.
        chat_template: Whether prompts go through a chat template.
        tasks: Task → its settings, as in a YAML file of the harness.
    """
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.tasks import TaskManager

    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "documents.jsonl"
    data.write_text("".join(json.dumps(document) + "\n" for document in documents))
    shared = {"dataset_path": "json", "test_split": "train", "fewshot_split": "train"}
    shared |= {"dataset_kwargs": {"data_files": str(data), "cache_dir": str(folder / "cache")}}
    settings = [{"task": name, **shared, **own} for name, own in tasks.items()]
    tracker = EvaluationTracker(output_path=str(folder / "log"))
    results = simple_evaluate(
        hashing_model(),
        tasks=settings,
        num_fewshot=num_fewshot,
        apply_chat_template=chat_template,
        fewshot_as_multiturn=chat_template,
        bootstrap_iters=0,
        log_samples=True,
        task_manager=TaskManager(include_defaults=False),
    )
    tracker.date_id = "2026-01-02T03-04-05.678901"
    tracker.general_config_tracker.model_name_sanitized = "hashing"
    for name, samples in results["samples"].items():
        tracker.save_results_samples(task_name=name, samples=samples)
    return folder / "log" / "hashing"
