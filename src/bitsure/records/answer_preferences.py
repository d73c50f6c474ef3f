"""What full precision makes of a quantized model's answers, beside what it makes of its own."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def with_preferences(answers: pa.Table, own: pa.Table, tokens: pa.Table) -> pa.Table:
    """Return a quantized model's answers with full precision's preference for each over its own.

    Answers with the same tokens have a preference of exactly 0; further samples of a question have none.

    Args:
        answers: The quantized model's, under `bitsure.records.generations.GENERATIONS_SCHEMA`.
        own: Full precision's, of the same questions.
        tokens: The tokens of the first answers to all questions as full precision scored them, a window an answer, the shortest
            first, under `bitsure.records.text_tokens.TEXT_SCHEMA`.
    """
    lengths = pc.list_value_length(answers["tokens"]).to_numpy()
    first = np.flatnonzero(answers["sample"].to_numpy() == 0)
    shortest_first = first[np.argsort(answers["prompt_tokens"].to_numpy()[first] + lengths[first], kind="stable")]
    logprob = np.full(len(answers), np.nan)
    logprob[shortest_first] = np.bincount(tokens["window"].to_numpy(), tokens["logprob"].to_numpy().astype(float))
    columns = ("task", "doc_id", "tokens", "answer_logprob")
    judged = own.filter(pc.equal(own["sample"], 0)).select(columns).to_pylist()
    by_question = {(row["task"], row["doc_id"]): row for row in judged}
    change = np.zeros(len(answers))
    for i in first:
        mine = by_question[answers["task"][i].as_py(), answers["doc_id"][i].as_py()]
        if mine["tokens"] != answers["tokens"][i].as_py():
            change[i] = logprob[i] / lengths[i] - mine["answer_logprob"] / len(mine["tokens"])
    at = answers.schema.get_field_index("preference")
    return answers.set_column(at, answers.schema.field(at), pa.array(change, mask=np.isnan(logprob)))
