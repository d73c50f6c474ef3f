"""Calibration text: finding it, identifying it, and cutting it into windows of tokens."""

from __future__ import annotations

import gzip
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bitsure import hub
from bitsure.config import PROJECT, Calib
from bitsure.errors import UserError
from bitsure.store import hash_file

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

POCKET_TEXT = PROJECT / "pocket" / "text" / "calibration.txt"
HELD_OUT_WINDOWS = 8  # on which the output error of every layer is measured


@dataclass(frozen=True)
class CalibText:
    """A text file to draw from, and the names that say which."""

    name: str  # the config's, or what stands in for it
    path: Path
    fingerprint: str  # SHA-256 of the file


def locate(calib: Calib, hub_mirror: str | None) -> CalibText:
    """Find the text before anything heavy is loaded. Raises UserError if it is not to be had."""
    name = calib.name
    try:
        path = Path(calib.path) if calib.path is not None else hub.dataset_file(calib.repo, calib.file, hub_mirror)
    except UserError as error:
        if calib.if_missing != "pocket":
            raise UserError(f"{error}\nOr another text: calib=text calib.path=FILE, or calib=pocket.") from error
        name, path = f"pocket ({calib.name} was not to be had)", POCKET_TEXT
        log.warning("calibration text: %s", name)
    if not path.is_file():
        raise UserError(f"calib.path={path}: no such file.")
    if not path.name.endswith((".txt", ".jsonl", ".json.gz")):
        raise UserError(f"calib.path={path}: expected .txt, or .jsonl (.json.gz) with a `text` field.")
    return CalibText(name, path, hash_file(path))


def read_documents(path: Path) -> list[str]:
    """The documents of a text: a .txt is split at blank lines, a .jsonl has one a line. Raises UserError."""
    if path.suffix == ".txt":
        return [part for part in path.read_text(encoding="utf-8").split("\n\n") if part.strip()]
    documents = []
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                documents.append(json.loads(line)["text"])
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(f"{path}, line {number}: expected a JSON object with a `text` field.") from error
    return documents


def draw_windows(
    text: CalibText, calib: Calib, nsamples: int, tokenizer: PreTrainedTokenizerBase, context: int | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids to calibrate on and to measure on, (nsamples, seqlen) and (HELD_OUT_WINDOWS, seqlen), int64.

    Documents are shuffled by `calib.seed`, joined by the end token and cut into windows; the held-out windows come
    from the end, and no window holds a token of another. Raises UserError if the text is too short.
    """
    import torch

    seqlen = min(calib.seqlen, context or calib.seqlen)
    documents = read_documents(text.path)
    order = np.random.default_rng(calib.seed).permutation(len(documents))
    needed = (nsamples + HELD_OUT_WINDOWS) * seqlen
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    ids: list[int] = []
    for start in range(0, len(order), 1_000):
        batch = [documents[i] for i in order[start : start + 1_000]]
        for tokens in tokenizer(batch, add_special_tokens=False, verbose=False)["input_ids"]:
            ids += [*tokens, *end]
        if len(ids) >= needed:
            break
    if len(ids) < needed:
        raise UserError(
            f"calib={text.name}: {text.path} has {len(ids):,} tokens, but {nsamples} windows of {seqlen} tokens and "
            f"{HELD_OUT_WINDOWS} held out for measuring need {needed:,}. "
            f"Give a longer text or a smaller calib.nsamples or calib.seqlen (up to calib.nsamples="
            f"{max(0, len(ids) // seqlen - HELD_OUT_WINDOWS)} with this one)."
        )
    windows = torch.tensor(ids[:needed], dtype=torch.long).view(-1, seqlen)
    return windows[:nsamples], windows[nsamples:]
