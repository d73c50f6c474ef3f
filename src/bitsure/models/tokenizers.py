"""Loading a model's tokenizer and checking that it is the model's."""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import TYPE_CHECKING, cast

from bitsure.base.errors import UserError, in_one_line
from bitsure.base.json_files import read_object
from bitsure.base.out_of_memory import is_out_of_memory
from bitsure.models.facts import transformers_major_version, vocabulary_size

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
)
VOCABULARIES = ("tokenizer.json", "tekken.json", "vocab.*", "merges.txt", "*.model", "*.tiktoken")  # patterns of files


def load_tokenizer(path: Path, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model directory.

    Args:
        path: The directory.
        trust_remote_code: Whether Python code in the directory may be run.

    Raises:
        UserError: If there is no tokenizer, or its files are damaged. Without files transformers 5 makes an empty tokenizer or
            raises a ValueError about what it could convert, 4 raises a TypeError about a path.
    """
    files = [path / name for name in FILES if (path / name).is_file()]
    for file in files:
        if file.suffix == ".json":
            read_object(file)
    try:
        tokenizer = _load(path, trust_remote_code)
    except Exception as error:
        if is_out_of_memory(error) or not _is_about_files(error):
            raise
        if not _has_vocabulary(path) and (isinstance(error, TypeError) or not trust_remote_code):
            raise UserError(_missing(path)) from error
        if trust_remote_code:
            raise
        raise UserError(
            f"{path}: no tokenizer can be made from {', '.join(file.name for file in files) or 'its files'} "
            f"({in_one_line(error)}). Bring the files again."
        ) from error
    if len(tokenizer) < 2:
        raise UserError(_missing(path))
    return tokenizer


def _missing(path: Path) -> str:
    if not _has_vocabulary(path):
        return f"{path} holds no tokenizer.json or tokenizer.model: copy it from the model's repository."
    return (
        f"{path} has no tokenizer: it needs tokenizer.json, or tokenizer.model, or vocab.json and merges.txt, as "
        "tokenizer.save_pretrained writes them."
    )


def _has_vocabulary(path: Path) -> bool:
    return any(next(path.glob(pattern), None) for pattern in VOCABULARIES)


def _is_about_files(error: Exception) -> bool:
    """Return whether transformers, tokenizers or sentencepiece raises this for content that it cannot read."""
    of_the_content = (ValueError, TypeError, LookupError, AttributeError, RuntimeError, OSError)
    return type(error) is Exception or isinstance(error, of_the_content)  # tokenizers has no type of its own


def _load(path: Path, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    import transformers

    settings = path / "tokenizer_config.json"
    saved_as = read_object(settings).get("tokenizer_class") if settings.is_file() else None
    if saved_as == "TokenizersBackend" and transformers_major_version() == 4:  # which knows that class by its older name only
        tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(path, local_files_only=True)
    else:
        tokenizer = transformers.AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=trust_remote_code)
    return cast("PreTrainedTokenizerBase", tokenizer)


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, path: Path) -> None:
    """Check that the model's embedding has a row for each id of the tokenizer; warn once about rows that no id uses.

    Raises:
        UserError: If an id has no row.
    """
    rows = vocabulary_size(path)
    if rows is None:
        return
    token, largest = max(tokenizer.get_vocab().items(), key=lambda item: item[1])
    if largest >= rows:
        raise UserError(
            f"{path}: the tokenizer has the id {largest} ({token!r}), but the model's embedding has {rows} rows. "
            "The tokenizer is another model's, or tokens were added to it and not to the model."
        )
    if largest + 1 < rows:
        _warn_about_unused_rows(path, largest, rows)


@functools.cache  # one warning, however often the model is loaded
def _warn_about_unused_rows(path: Path, largest: int, rows: int) -> None:
    message = "%s: the tokenizer's ids end at %d, the embedding has %d rows: %d are never used (padding, or another tokenizer)"
    log.warning(message, path, largest, rows, rows - largest - 1)
