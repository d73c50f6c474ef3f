"""The metadata of a tokenizer in a GGUF file, as llama.cpp's converter writes them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bitsure.base.errors import UserError
from bitsure.models.gguf.vocabulary import (
    GPT_2,
    PREFIX,
    PREPEND,
    SINGLE_DIGITS,
    SPACE,
    SPELL,
    WHOLE_WORDS,
    content_of,
    merges_of,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # types of tokens
BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")


def vocabulary_metadata(tokenizer: PreTrainedTokenizerBase, rows: int) -> dict[str, Any]:
    """Return the metadata of a tokenizer.

    Args:
        tokenizer: A byte-level tokenizer, or one of SentencePiece's with merges and single bytes (Llama 2's, Gemma's).
        rows: The rows of the model's embedding; those that no token has are called padding.

    Raises:
        UserError: If the tokenizer is of another kind, or cuts text into words by a rule that llama.cpp has no name for.
    """
    content = content_of(tokenizer)
    texts = {id_: text for text, id_ in tokenizer.get_vocab().items()}
    added = {token["id"]: CONTROL if token["special"] else USER_DEFINED for token in content.get("added_tokens", ())}
    types = [added.get(id_, NORMAL) if id_ in texts else UNUSED for id_ in range(rows)]
    tokens = [texts.get(id_, f"[PAD{id_}]") for id_ in range(rows)]
    prefixed = _adds_space(content)
    own = _byte_level(content) if prefixed is None else _sentencepiece(tokens, types, content, prefixed, tokenizer)
    add_bos = tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
    metadata = {"tokens": tokens, "token_type": types, "add_bos_token": add_bos} | own
    roles = {"bos": "bos", "eos": "eos", "unknown": "unk", "padding": "pad"}
    ids = {f"{role}_token_id": getattr(tokenizer, f"{name}_token_id") for role, name in roles.items()}
    template = {"tokenizer.chat_template": tokenizer.chat_template} if isinstance(tokenizer.chat_template, str) else {}
    return {f"{PREFIX}{key}": value for key, value in (metadata | ids).items() if value is not None} | template


def _byte_level(content: Mapping[str, Any]) -> dict[str, Any]:
    return {"model": "gpt2", "pre": _rule_for_words(content), "merges": merges_of(content)}


def _sentencepiece(
    tokens: list[str], types: list[int], content: Mapping[str, Any], prefixed: bool, tokenizer: PreTrainedTokenizerBase
) -> dict[str, Any]:
    """Return what a SentencePiece vocabulary has of its own. llama.cpp merges the pieces of the highest score first.

    A piece's score is minus the place of the first merge that makes it; SentencePiece's own scores of such vocabularies are in
    the same order. Pieces that no merge makes are never chosen by their score.
    """
    ranks: dict[str, int] = {}
    for place, merge in enumerate(merges_of(content)):
        ranks.setdefault(merge.replace(" ", ""), place)
    kinds = {id_: BYTE for id_, token in enumerate(tokens) if types[id_] == NORMAL and BYTE_TOKEN.fullmatch(token)}
    if tokenizer.unk_token_id is not None:
        kinds[tokenizer.unk_token_id] = UNKNOWN
    return {
        "model": "llama",
        "pre": "default",
        "tokens": [token.replace(SPACE, " ") if types[id_] == USER_DEFINED else token for id_, token in enumerate(tokens)],
        "token_type": [kinds.get(id_, kind) for id_, kind in enumerate(types)],
        "scores": [-float(ranks.get(token, len(ranks))) for token in tokens],
        "add_space_prefix": prefixed,
    }


def _adds_space(content: Mapping[str, Any]) -> bool | None:
    """Return whether a SentencePiece tokenizer puts a space before a text; None for a tokenizer of another kind."""
    if content["model"]["type"] != "BPE" or not content["model"].get("byte_fallback"):
        return None
    normalizer, words = content.get("normalizer") or {}, content.get("pre_tokenizer") or {}
    steps = normalizer.get("normalizers", [normalizer] if normalizer else [])
    if words.get("type") == "Metaspace" and not steps and not words.get("split", True):
        return bool(words["prepend_scheme"] != "never")
    if words and not (words.get("type") == "Split" and words["pattern"] == {"String": " "}):  # Gemma's, of no effect
        return None
    if steps == [PREPEND, SPELL]:
        return True
    return False if steps == [SPELL] else None


def _rule_for_words(content: Mapping[str, Any]) -> str:
    """Return llama.cpp's name of the rule by which a tokenizer cuts text into words (`tokenizer.ggml.pre`)."""
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    steps = content.get("pre_tokenizer") or {}
    steps = steps.get("pretokenizers", [steps])
    byte_level = bool(steps) and steps[-1].get("type") == "ByteLevel" and not steps[-1].get("add_prefix_space")
    if content["model"]["type"] == "BPE" and byte_level and len(steps) <= 2:
        if len(steps) == 1 and steps[0]["use_regex"]:
            return GPT_2[0]
        if steps[0].get("type") == "Digits" and steps[0]["individual_digits"] and steps[1]["use_regex"]:
            return SINGLE_DIGITS[0]
        split, whole = steps[0].get("pattern", {}).get("Regex"), bool(content["model"].get("ignore_merges"))
        for rule, pattern in GGUF_PRE_TOKENIZER_SPLITS.items():
            if split == pattern and (rule in WHOLE_WORDS) == whole:
                return str(rule)
    raise UserError(
        "GGUF files are written of byte-level tokenizers whose rule for words llama.cpp has a name for (GPT-2's, SmolLM's, "
        "Llama 3's, Qwen's and the like), and of SentencePiece's with merges (Llama 2's, Mistral's, Gemma's). This model's "
        "tokenizer is another."
    )
