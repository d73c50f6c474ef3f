"""Answers that a model might have written, as generations.parquet has them."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa

from bitsure.records.generations import WrittenAnswer, generations_table


def written(texts, correct, logprobs, task="free", samples=1, drawn=(), p_true=()) -> pa.Table:
    """A question for each text, whose tokens have the log-probabilities given.

    Of each `samples` answers were written; `drawn` has the filtered answers that were drawn beside, `p_true` the P(True).
    """
    rows = [
        WrittenAnswer(
            task=task,
            doc_id=i,
            sample=k,
            doc_hash=f"d{i}",
            prompt_hash=f"p{i}",
            target_hash=f"t{i}",
            cluster=f"p{i}",
            prompt_tokens=5,
            prompt_tokens_cut=0,
            text=f"{text}.",
            filtered=text if k == 0 else None,
            target="fox",
            correct=is_right if k == 0 else None,
            p_true=p_true[i] if p_true and k == 0 else None,
            correct_by="exact_match,none",
            scores=[{"filter": "none", "metric": "exact_match", "value": float(is_right)}] if k == 0 else [],
            ended="stop",
            tokens=list(range(len(of_tokens))),
            token_logprobs=list(of_tokens),
            entropies=[0.5 * (j + 1) for j in range(len(of_tokens))],
            top_tokens=[[1, 2]] * len(of_tokens),
            top_logprobs=[[-0.5, -1.5]] * len(of_tokens),
        )
        for i, (text, is_right, of_tokens) in enumerate(zip(texts, correct, logprobs, strict=True))
        for k in range(samples)
    ]
    beside = [
        replace(row, sample=samples + k, text=f"{text}.", filtered=text, correct=None, scores=[], is_drawn=True, p_true=None)
        for row, texts_drawn in zip(rows[::samples], drawn, strict=False)
        for k, text in enumerate(texts_drawn)
    ]
    return generations_table(rows + beside)
