"""How exact log-likelihoods are, ours and HFLM's, against float64: `make bench-exactness` prints the table and writes
benchmarks/exactness.md. It needs `make real-models` and the mirror of data sets.

Every choice of some real questions is scored three times, each in float32 by both and in float64 by plain passes, in which
norms, softmax and all sums are float64 too.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import numpy as np
import torch

from bitsure.base.files import write_text
from bitsure.config.paths import PROJECT
from bitsure.hub.data_sets import data_sets_from
from bitsure.models.load import load_model
from bitsure.scoring.local.local_engine import LocalEngine
from bitsure.scoring.local.pass_choice import TOLERANCE
from bitsure.scoring.requests import Request
from bitsure.tasks.task_names import task_manager

TASKS = ("piqa", "arc_easy")
MAX_LENGTH = 2048  # tokens, more than any of the questions has


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=PROJECT / "real_models", help="the directory of make real-models")
    parser.add_argument("--mirror", default="../shared/hub", help="a mirror of data sets")
    parser.add_argument("--choices", type=int, default=40, help="of each task")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    rows = [row for path in sorted(given.models.glob("*/config.json"), reverse=True) for row in compare(path.parent, given)]
    head = (
        f"Made by `make bench-exactness`: log-likelihoods of each task's first {given.choices} choices,\n"
        f"torch {torch.__version__}, {torch.get_num_threads()} thread(s). Differences from float64 in nats;\n"
        "positive: too likely.\n\n"
        "| model | task | choices | scorer | mean | largest magnitude | choices off by more than 1e-4 + 1e-6·\\|ll\\| |\n"
        "|---|---|---|---|---|---|---|\n"
    )
    page = head + "".join(f"| {' | '.join(row)} |\n" for row in rows)
    print(page)
    write_text(Path(__file__).with_suffix(".md"), page)


def compare(path: Path, given: argparse.Namespace) -> list[list[str]]:
    """Return the table's rows of one model."""
    from lm_eval.models.huggingface import HFLM

    model, tokenizer = load_model(path, "float32", "cpu")
    hflm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=8)
    asked = {task: requests_of(hflm, task, given) for task in TASKS}
    results: dict[tuple[str, str], np.ndarray] = {}
    for task, requests in asked.items():
        pairs = [(("", ""), context, continuation) for context, continuation in requests]
        results[task, "HFLM"] = np.array([logprob for logprob, _ in hflm._loglikelihood_tokens(pairs, disable_tqdm=True)])
        results[task, "ours"] = np.array([scored.logprob for scored in LocalEngine(model, MAX_LENGTH).score(requests)])
        softmax = [plain_logprob(model, request) for request in requests]
        results[task, "float32 logits, softmax in float64"] = np.array(softmax)
    in_double(model)
    rows = []
    for task, requests in asked.items():
        exact = np.array([plain_logprob(model, request) for request in requests])
        for (its_task, name), values in results.items():
            if its_task == task:
                apart = values - exact
                absolute, relative = TOLERANCE["float32"]
                outside = int((np.abs(apart) > absolute + relative * np.abs(exact)).sum())
                numbers = [f"{apart.mean():+.1e}", f"{np.abs(apart).max():.1e}", str(outside)]
                rows.append([path.name, task, str(len(requests)), name, *numbers])
                print(rows[-1], flush=True)
    return rows


def requests_of(lm: object, task_name: str, given: argparse.Namespace) -> list[Request]:
    """Return a task's first choices as token ids, as the harness has them."""
    with data_sets_from(given.mirror):
        task = task_manager(None, include_defaults=True).load([task_name])["tasks"][task_name]
    task.build_all_requests(limit=given.choices, rank=0, world_size=1)
    instances = task.instances[: given.choices]
    return [lm._encode_pair(*instance.args) for instance in instances]  # type: ignore[attr-defined]


@torch.no_grad()
def plain_logprob(model: torch.nn.Module, request: Request) -> float:
    """Return a continuation's log-probability by one pass of the model, with the softmax in float64."""
    context, continuation = request
    ids = torch.tensor([context + continuation[:-1]])
    logits = model(ids, use_cache=False).logits[0, -len(continuation) :].double()
    return logits.log_softmax(-1)[range(len(continuation)), continuation].sum().item()


def in_double(model: torch.nn.Module) -> None:
    """Turn a model into float64, its norms too, which transformers computes in float32 whatever their input is."""
    model.double()
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = exact_norm(module)


def exact_norm(norm: torch.nn.Module):
    epsilon = getattr(norm, "variance_epsilon", None) or norm.eps
    weight = norm.weight + 1 if type(norm).__name__.startswith("Gemma") else norm.weight
    return lambda x: x * (x.square().mean(-1, keepdim=True) + epsilon).rsqrt() * weight


if __name__ == "__main__":
    main()
