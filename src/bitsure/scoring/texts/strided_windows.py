"""The strided protocol: overlapping windows, in which each token is scored once with the context that the stride leaves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from typing_extensions import override

from bitsure.base.errors import UserError
from bitsure.scoring.texts.documents_of_text import TextDocuments
from bitsure.scoring.texts.text_protocol import TextProtocol, WindowSettings
from bitsure.scoring.texts.token_stream import TokenStream, require
from bitsure.scoring.texts.tokenized_text import TextWindow, TokenizedText
from bitsure.scoring.texts.whole_text import joined_stream

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class StridedWindows(TextProtocol):
    """What transformers' guide on the perplexity of fixed-length models computes.

    Windows begin every `stride` tokens. A window scores the tokens that no window before it has: all but the first of the first
    window, the last `stride` of the others, and what is left in the last one, which may be shorter. All scored tokens count
    alike here; the guide's code weighs a window by one token less than it scores.

    Reference: huggingface.co/docs/transformers/perplexity, 1,024 tokens with a stride of 512 for GPT-2.
    """

    default_window = 1024

    @override
    def cut(self, text: TextDocuments, tokenizer: PreTrainedTokenizerBase, settings: WindowSettings) -> TokenizedText:
        size, stride = settings.window, settings.stride or max(1, settings.window // 2)
        if stride >= size:
            raise UserError(
                f"text.stride={stride}: must be less than the window of {size} tokens, so that every token has a context."
            )
        stream, bos = joined_stream(text, tokenizer, settings)
        require(len(stream), 2, "the protocol strided", text.place)
        return TokenizedText(tuple(_windows(stream, size, stride)), size, stride, bos)


def _windows(stream: TokenStream, size: int, stride: int) -> Iterator[TextWindow]:
    done = 1  # the first token has no context
    for start in range(0, len(stream), stride):
        end = min(start + size, len(stream))
        yield stream.window(start, end, done - start)
        done = end
        if end == len(stream):
            return
