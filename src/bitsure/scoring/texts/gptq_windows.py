"""GPTQ's protocol: the whole text in windows that do not overlap, all of a window's tokens scored but the first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from typing_extensions import override

from bitsure.scoring.texts.documents_of_text import TextDocuments
from bitsure.scoring.texts.text_protocol import TextProtocol, WindowSettings
from bitsure.scoring.texts.token_stream import require
from bitsure.scoring.texts.tokenized_text import TokenizedText
from bitsure.scoring.texts.whole_text import joined_stream

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class GptqWindows(TextProtocol):
    """What GPTQ's repository computes, and after it most papers on quantization.

    Rows are joined, by two newlines for WikiText-2, and tokenized at once. The text is cut into ⌊tokens / window⌋ windows; the
    tail is dropped. The code takes each window's mean loss over its window − 1 predicted tokens (the first has no context),
    multiplies it by the window's length, sums, and divides by windows · window. The lengths cancel: it is the mean over all
    scored tokens.

    Reference: `opt_eval` and `datautils.py` of github.com/IST-DASLab/gptq (Frantar et al. 2023).
    """

    default_window = 2048

    @override
    def cut(self, text: TextDocuments, tokenizer: PreTrainedTokenizerBase, settings: WindowSettings) -> TokenizedText:
        stream, bos = joined_stream(text, tokenizer, settings)
        size = settings.window
        require(len(stream), size, f"a window of the protocol gptq, text.window={size},", text.place)
        windows = (stream.window(start, start + size, 1) for start in range(0, len(stream) - size + 1, size))
        return TokenizedText(tuple(windows), size, None, bos)
