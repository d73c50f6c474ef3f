"""The harness's protocol: each document by itself, every token scored once, in windows of the model's context."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from typing_extensions import override

from bitsure.base.errors import UserError
from bitsure.scoring.prompting import with_bos
from bitsure.scoring.texts.documents_of_text import TextDocuments
from bitsure.scoring.texts.text_protocol import TextProtocol, WindowSettings
from bitsure.scoring.texts.token_stream import require, tokenize_joined
from bitsure.scoring.texts.tokenized_text import TextWindow, TokenizedText
from bitsure.scoring.texts.whole_text import required_bos

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BEGINNING = 64  # characters of a document, which are enough to see what the tokenizer puts before it


class RollingWindows(TextProtocol):
    """What lm-evaluation-harness computes for whole texts, as its task `wikitext` does.

    A document's first token is predicted from BOS (EOS where there is no BOS). Windows are the model's context long and share
    one token, which is the context of the next. A BOS that the tokenizer puts before a document is read and not scored.

    Reference: `loglikelihood_rolling` of github.com/EleutherAI/lm-evaluation-harness.
    """

    @override
    def cut(self, text: TextDocuments, tokenizer: PreTrainedTokenizerBase, settings: WindowSettings) -> TokenizedText:
        if settings.add_bos:
            required_bos(tokenizer)
        tokenizer = with_bos(tokenizer, settings.add_bos)
        prefix = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        if prefix is None:
            raise UserError(
                "text.protocol=harness: this model's tokenizer has neither BOS nor EOS to stand before a document. Name one in "
                "tokenizer_config.json, or take another protocol."
            )
        windows: list[TextWindow] = []
        left = settings.limit
        for number, document in enumerate(text.documents):
            of_document = list(_windows(number, document, tokenizer, prefix, settings.window, left))
            windows += of_document
            if left is not None:
                left -= sum(len(window.scored) for window in of_document)
                if left <= 0:
                    break
        require(len(windows), 1, "the protocol harness", text.place)
        return TokenizedText(tuple(windows), settings.window, None, f"{tokenizer.decode([prefix])!r} before each document")


def _windows(
    number: int, document: str, tokenizer: PreTrainedTokenizerBase, prefix: int, size: int, limit: int | None
) -> Iterator[TextWindow]:
    """Yield the windows of one document, its first tokens alone where there is a limit."""
    from bitsure.scoring.rolling import rolling_requests, tokens_added

    own = tokenize_joined([document], [number], "", tokenizer, limit)
    tokens, before = own.tokens.tolist(), 0
    if not document.startswith(str(tokenizer.decode([prefix]))):  # as in HFLM, a text that begins with BOS gets no second one
        beginning = document[:BEGINNING]
        whole = tokenizer.encode(beginning)
        before, _ = tokens_added(whole, tokenizer.encode(beginning, add_special_tokens=False))
        tokens = whole[:before] + tokens
    done = 0
    for context, scored in rolling_requests(tokens, (before, 0), prefix, size):
        end = done + len(scored)
        yield TextWindow(
            np.array([*context, *scored]),
            len(context),
            own.documents[done:end],
            own.positions[done:end],
            own.n_bytes[done:end],
        )
        done = end
