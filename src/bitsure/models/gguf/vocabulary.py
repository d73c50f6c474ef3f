"""The tokenizer that a GGUF file holds: loading it with transformers, and comparing it with the parent's."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, cast

from bitsure.base.errors import UserError, in_one_line
from bitsure.base.out_of_memory import is_out_of_memory
from bitsure.models.gguf.gguf_header import GgufFile

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

PREFIX = "tokenizer.ggml."
SPACE = "▁"  # how SentencePiece spells a space
SPELL = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}  # steps of a SentencePiece tokenizer's normalizer
PREPEND = {"type": "Prepend", "prepend": SPACE}
# tokenizer.ggml.pre, the rule for cutting text into words; what follows from it is llama.cpp's (llama-vocab.cpp).
GPT_2 = ("gpt-2", "mpt", "olmo", "jais")
SINGLE_DIGITS = ("smollm", "starcoder", "refact", "command-r", "codeshell")  # GPT-2's, and every digit stands alone
LLAMA_3 = ("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano")
WHOLE_WORDS = (*LLAMA_3, "tekken")  # a word that is a token is not made from merges


def load_gguf_tokenizer(gguf: GgufFile) -> PreTrainedTokenizerBase:
    """Return the file's tokenizer. Its chat template is kept as text, and rendered only where a run asks for one.

    transformers reads vocabulary and merges. What llama.cpp does besides by the file's rule for words is added here, and tokens
    that transformers' own classes add to every vocabulary are removed.

    Raises:
        UserError: If the file has no vocabulary, or one that transformers makes no tokenizer of.
    """
    from tokenizers import Tokenizer, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    from transformers.integrations.gguf.gguf_tokenizer_mapping import convert_gguf_tokenizer, get_gguf_tokenizer

    number, rule = len(tokens(gguf)), gguf.metadata.get(f"{PREFIX}pre")
    for key in ("token_type", "scores"):
        if (values := gguf.metadata.get(PREFIX + key)) is not None and len(values) != number:
            raise UserError(f"{gguf.path} has {number:,} tokens and {len(values):,} of {PREFIX}{key}. Bring the file again.")
    try:
        architecture, vocabulary, settings = get_gguf_tokenizer(str(gguf.path))
        backend, _ = convert_gguf_tokenizer(architecture, vocabulary)
    except Exception as error:  # tokenizers raises plain exceptions
        if is_out_of_memory(error):
            raise
        raise UserError(
            f"{gguf.path}: transformers makes no tokenizer of its vocabulary ({in_one_line(error)}). Convert the "
            "model again, or give it as a Hugging Face directory."
        ) from error
    content = json.loads(backend.to_str())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["id"] < number]
    if (content["pre_tokenizer"] or {}).get("type") == "Metaspace":
        _space_as_llama_cpp(content, gguf.metadata.get(f"{PREFIX}add_space_prefix", True))
    if rule in WHOLE_WORDS:
        content["model"]["ignore_merges"] = True
    backend = Tokenizer.from_str(json.dumps(content))
    if rule in SINGLE_DIGITS:
        words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), words])
    if rule in LLAMA_3:
        settings.setdefault("add_bos_token", True)
    make: Any = PreTrainedTokenizerFast
    return cast("PreTrainedTokenizerBase", make(tokenizer_object=backend, **settings))


def _space_as_llama_cpp(content: dict[str, Any], prefixed: bool) -> None:
    """Put a space before a text as SentencePiece does, also where it begins with one; transformers' class does not then."""
    content["normalizer"] = {"type": "Sequence", "normalizers": [PREPEND, SPELL] if prefixed else [SPELL]}
    content["pre_tokenizer"] = None
    if not prefixed:
        content["decoder"]["decoders"] = [step for step in content["decoder"]["decoders"] if step["type"] != "Strip"]


def unknown_splitting(gguf: GgufFile) -> str | None:
    """Return the name of the file's rule for cutting text into words if it is not applied; None if it is."""
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    rule = gguf.metadata.get(f"{PREFIX}pre", "default")
    known = rule in SINGLE_DIGITS or rule in GPT_2 or rule in GGUF_PRE_TOKENIZER_SPLITS
    return None if known or gguf.metadata.get(f"{PREFIX}model") != "gpt2" else str(rule)


def tokens(gguf: GgufFile) -> list[str]:
    """Return the texts of the file's tokens, by id. Raises UserError if there are none."""
    texts = gguf.metadata.get(f"{PREFIX}tokens")
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise UserError(f"{gguf.path} has no vocabulary ({PREFIX}tokens): a model is scored on text. Convert the model again.")
    return texts


def check_same_tokenizer(gguf: GgufFile, tokenizer: PreTrainedTokenizerBase, parent: str) -> None:
    """Check that the file's vocabulary and merges are those of the parent's tokenizer, which text is scored with.

    Ids that the parent's tokenizer does not use, such as padding, are not compared.

    Args:
        gguf: The file.
        tokenizer: The parent's tokenizer.
        parent: The parent's name, for messages.

    Raises:
        UserError: If they differ; the first difference is named.
    """
    own, texts = {id_: text for text, id_ in tokenizer.get_vocab().items()}, tokens(gguf)
    differ = f"{gguf.path}: its tokenizer is not that of {parent}"
    if max(own) >= len(texts):
        raise UserError(f"{differ}: it has {len(texts):,} tokens, and ids up to {max(own):,} are used here.")
    for id_, text in sorted(own.items()):
        if _spelled(texts[id_]) != _spelled(text):
            raise UserError(f"{differ}: the token {id_} is {texts[id_]!r} there and {text!r} here.")
    merges, given = merges_of(content_of(tokenizer)), gguf.metadata.get(f"{PREFIX}merges")
    if merges and given and merges != given:
        pairs = zip_longest(given, merges)
        place, (there, here) = next((place, pair) for place, pair in enumerate(pairs) if pair[0] != pair[1])
        raise UserError(f"{differ}: the merge {place} is {there!r} there and {here!r} here.")
    for role in ("bos", "eos"):
        token, own_token = gguf.metadata.get(f"{PREFIX}{role}_token_id"), getattr(tokenizer, f"{role}_token_id")
        if token not in (None, own_token):
            log.warning("%s: its %s token is %s; that of %s, %s, counts", gguf.path.name, role, token, parent, own_token)


def _spelled(text: str) -> str:
    """Return a token with spaces as SentencePiece spells them: some files hold Gemma's as spaces."""
    return text.replace(" ", SPACE)


def content_of(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Return what tokenizer.json has of a tokenizer; one that has no such file is of a type that is unknown."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    content: dict[str, Any] = json.loads(backend.to_str()) if backend is not None else {"model": {"type": "unknown"}}
    return content


def merges_of(content: Mapping[str, Any]) -> list[str]:
    """Return the merges of a tokenizer as GGUF spells them; none for a tokenizer without merges.

    Args:
        content: What `content_of` returned.
    """
    return [merge if isinstance(merge, str) else " ".join(merge) for merge in content["model"].get("merges") or ()]
