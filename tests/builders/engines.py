"""The harness's model with the local engine, as the scorer makes it."""

from __future__ import annotations

from functools import partial


def hooked_lm(model, tokenizer, add_bos=None, share=True, score_bos=False):
    from bitsure.scoring.harness import HookedLM
    from bitsure.scoring.local.local_engine import LocalEngine

    return HookedLM(model, tokenizer, partial(LocalEngine, model, share=share), lambda n: None, add_bos, score_bos)
