"""The world's text as token ids: the tokenizer learned from it, and the corpus packed into windows."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from pocket.phrases import DOCUMENT_SHARES, documents
from pocket.world import World

VOCABULARY = 1024
WINDOW = 256  # tokens of one training sequence
CONTEXT = 640  # tokens that a pocket model can take: the longest choices of real tasks need some 600
END = "</s>"  # stands between documents; OPT's begin-of-text token is the same one


def learn_tokenizer(world: World, seed: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE of the world's text: every other text can be read too, byte by byte if need be."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<s>", "<pad>", END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(islice(documents(world, seed), 60_000), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END, eos_token=END, pad_token="<pad>", model_max_length=CONTEXT
    )


def corpus_windows(
    world: World, tokenizer: PreTrainedTokenizerFast, seed: int, n_windows: int, shares: Mapping[str, float] = DOCUMENT_SHARES
) -> np.ndarray:
    """`n_windows` × WINDOW token ids.

    A window starts with a document, as a question does; its last document is cut where the window ends.
    """
    stream = documents(world, seed, shares)
    windows = np.empty((n_windows, WINDOW), dtype=np.uint16)
    end = tokenizer.eos_token_id
    batch: list[list[int]] = []
    for row in range(n_windows):
        ids: list[int] = []
        while len(ids) < WINDOW:
            if not batch:
                batch = tokenizer(list(islice(stream, 2_000)))["input_ids"][::-1]
            ids += [*batch.pop(), end]
        windows[row] = ids[:WINDOW]
    return windows
