"""llama.cpp's protocol: windows that begin with BOS, of which the second half is scored."""

from __future__ import annotations

from typing import TYPE_CHECKING

from typing_extensions import override

from bitsure.scoring.texts.documents_of_text import TextDocuments
from bitsure.scoring.texts.text_protocol import TextProtocol, WindowSettings
from bitsure.scoring.texts.token_stream import require, tokenize_joined
from bitsure.scoring.texts.tokenized_text import TextWindow, TokenizedText
from bitsure.scoring.texts.whole_text import WITHOUT_BOS, required_bos

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

AT_EACH_WINDOW = "before the text, and in place of each window's first token"


class LlamaCppWindows(TextProtocol):
    """What `llama-perplexity` computes.

    The file, less a newline at its end, is tokenized at once, after a BOS token where the tokenizer begins texts with one. The
    text is cut into windows that do not overlap; the tail is dropped, and at least two windows are needed. Where the tokenizer
    adds BOS, it takes the place of each window's first token. Scored are the tokens window/2 + 1 to window − 1 of each,
    counted from 0.

    Reference: `perplexity` in tools/perplexity/perplexity.cpp of github.com/ggml-org/llama.cpp.
    """

    default_window = 512

    @override
    def cut(self, text: TextDocuments, tokenizer: PreTrainedTokenizerBase, settings: WindowSettings) -> TokenizedText:
        size = settings.window
        joined = [document.removesuffix("\n") for document in text.documents]  # one line break stands between documents
        stream = tokenize_joined(joined, list(range(len(joined))), "\n", tokenizer, settings.limit)
        bos = _bos_of(tokenizer, settings.add_bos)
        if bos is not None:
            stream = stream.after(bos).first(settings.limit)
        require(len(stream), 2 * size, f"the protocol llamacpp, two windows of text.window={size},", text.place)
        windows = (stream.window(start, start + size, size // 2 + 1) for start in range(0, len(stream) - size + 1, size))
        if bos is None:
            return TokenizedText(tuple(windows), size, None, WITHOUT_BOS)
        return TokenizedText(tuple(_begun_with(bos, window) for window in windows), size, None, AT_EACH_WINDOW)


def _bos_of(tokenizer: PreTrainedTokenizerBase, add_bos: bool | None) -> int | None:
    """Return the BOS token where texts begin with it: always, never, or (None) where the tokenizer adds it by itself."""
    if add_bos:
        return required_bos(tokenizer)
    bos: int | None = tokenizer.bos_token_id
    adds = add_bos is None and bos is not None and tokenizer("a")["input_ids"][:1] == [bos]
    return bos if adds else None


def _begun_with(bos: int, window: TextWindow) -> TextWindow:
    tokens = window.tokens.copy()
    tokens[0] = bos
    return TextWindow(tokens, window.first_scored, window.documents, window.positions, window.n_bytes)
