"""The whole text as `gptq` and `strided` tokenize it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bitsure.base.errors import UserError
from bitsure.scoring.texts.documents_of_text import TextDocuments
from bitsure.scoring.texts.text_protocol import WindowSettings
from bitsure.scoring.texts.token_stream import TokenStream, tokenize_joined

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WITHOUT_BOS = "none"
BEFORE_THE_TEXT = "before the text"


def joined_stream(text: TextDocuments, tokenizer: PreTrainedTokenizerBase, settings: WindowSettings) -> tuple[TokenStream, str]:
    """Return the tokens of a text whose parts are joined by its separator, and where BOS stands, in words.

    Raises:
        UserError: If the text is to begin with a BOS token and the tokenizer has none.
    """
    limit = settings.limit
    stream = tokenize_joined(text.parts, text.document_of_part.tolist(), text.separator, tokenizer, limit)
    if not settings.add_bos:
        return stream, WITHOUT_BOS
    return stream.after(required_bos(tokenizer)).first(limit), BEFORE_THE_TEXT


def required_bos(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the BOS token that `text.add_bos=true` asks for. Raises UserError if the tokenizer has none."""
    bos: int | None = tokenizer.bos_token_id
    if bos is None:
        raise UserError("text.add_bos=true: this model's tokenizer has no BOS token. Leave it out.")
    return bos
