"""Loading a model's tokenizer and checking that it is the model's."""

from __future__ import annotations

import functools
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, cast

from bitsure.base.errors import UserError
from bitsure.models.facts import transformers_major_version

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)


def load_tokenizer(path: Path, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model directory.

    Args:
        path: The directory.
        trust_remote_code: Whether Python code in the directory may be run.

    Raises:
        UserError: If there is no tokenizer. transformers 5 makes an empty one then, 4 raises a TypeError about a path.
    """
    try:
        tokenizer = _load(path, trust_remote_code)
    except TypeError:
        tokenizer = None
    if tokenizer is None or len(tokenizer) < 2:
        raise UserError(
            f"{path} has no tokenizer: it needs tokenizer.json, or tokenizer.model, or vocab.json and merges.txt, as "
            "tokenizer.save_pretrained writes them."
        )
    return tokenizer


def _load(path: Path, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    import transformers

    settings = path / "tokenizer_config.json"
    saved_as = json.loads(settings.read_text(encoding="utf-8")).get("tokenizer_class") if settings.is_file() else None
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
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    rows = config.get("vocab_size") or config.get("text_config", {}).get("vocab_size")
    token, largest = max(tokenizer.get_vocab().items(), key=lambda item: item[1])
    if rows is None:
        return
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
