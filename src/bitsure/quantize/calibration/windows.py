"""What a quantizer calibrates on: finding it, identifying it, and cutting it into windows of tokens."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bitsure.base.errors import UserError
from bitsure.base.files import hash_json
from bitsure.base.store import Store, hash_each, hash_files
from bitsure.config.paths import project_path
from bitsure.config.schema import MIN_SEQLEN, CalibSettings, TaskSettings
from bitsure.hub.files import dataset_file, file_origin
from bitsure.hub.repositories import Origin
from bitsure.quantize.calibration import documents as calib_text

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

POCKET_TEXT = project_path("pocket/text/calibration.txt")
HELD_OUT_WINDOWS = 8  # on which the output error of every layer is measured


@dataclass(frozen=True)
class CalibText:
    """What to draw from, and the names that say which."""

    name: str  # the config's, or what stands in for it
    place: str  # where it is, for the reader of an error
    fingerprint: str  # SHA-256 of the content


@dataclass(frozen=True)
class TextFiles(CalibText):
    """Files of text, read when windows are drawn."""

    files: tuple[Path, ...]
    document_start: str | None
    origin: Origin | None  # of a hub's file


@dataclass(frozen=True)
class TrainingSplits(CalibText):
    """Questions of the tasks' training splits with their answers."""

    documents: tuple[str, ...]


@dataclass(frozen=True)
class RandomTokens(CalibText):
    """No text at all: tokens drawn uniformly."""


def locate(
    calib: CalibSettings, hub_mirror: str | None, task: TaskSettings | None = None, store: Store | None = None
) -> CalibText:
    """Find the text before anything heavy is loaded. Raises UserError if it is not to be had.

    task: what is scored, for `calib.kind=task`; store: knows the hashes of files that have not changed.
    """
    match calib.kind:
        case "text":
            return _locate_files(calib, hub_mirror, store)
        case "task":
            return _locate_training_splits(calib.name, task, hub_mirror)
        case "random":
            return RandomTokens(calib.name, "the tokenizer", hash_json("uniform over the ordinary tokens"))
        case kind:
            raise AssertionError(f"no calibration data of the kind {kind}")


def draw_windows(
    text: CalibText, calib: CalibSettings, nsamples: int, tokenizer: PreTrainedTokenizerBase, context: int | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids to calibrate on and to measure on, (nsamples, seqlen) and (HELD_OUT_WINDOWS, seqlen), int64.

    Documents are shuffled by `calib.seed`, joined by the end token and cut into windows; the held-out windows come
    first, so that they are the same however many follow, and no window holds a token of another. Raises UserError if the
    text is too short.
    """
    import torch

    seqlen = min(calib.seqlen, context or calib.seqlen)
    needed = (nsamples + HELD_OUT_WINDOWS) * seqlen
    if isinstance(text, RandomTokens):
        ids = _random_ids(needed, calib.seed, tokenizer)
    else:
        ids = _text_ids(_documents(text), needed, calib.seed, tokenizer)
        _check_enough(len(ids), nsamples, seqlen, f"calib={text.name}: {text.place}")
    windows = torch.tensor(ids[:needed], dtype=torch.long).view(-1, seqlen)
    return windows[HELD_OUT_WINDOWS:], windows[:HELD_OUT_WINDOWS]


def _locate_files(calib: CalibSettings, hub_mirror: str | None, store: Store | None) -> TextFiles:
    name, start, origin = calib.name, calib.document_start, None
    try:
        path = Path(calib.path) if calib.path is not None else dataset_file(calib.repo, calib.file, hub_mirror)
    except UserError as error:
        if calib.if_missing != "pocket":
            raise UserError(f"{error}\nOr another text: calib=text calib.path=FILE, or calib=pocket.") from error
        name, path, start = f"pocket ({calib.name} was not to be had)", POCKET_TEXT, None
        log.warning("calibration text: %s", name)
    files = calib_text.find_files(path)
    content = hash_files(files, store) if path.is_dir() else hash_each([path], store)[0]
    if calib.repo is not None and path != POCKET_TEXT:
        origin = file_origin(calib.repo, calib.file, path, content, hub_mirror)
    fingerprint = content if start is None else hash_json([content, start])
    return TextFiles(name, str(path), fingerprint, files, start, origin)


def _locate_training_splits(name: str, task: TaskSettings | None, hub_mirror: str | None) -> TrainingSplits:
    from bitsure.tasks.training_texts import training_texts

    assert task is not None, "calib.kind=task needs the tasks that are scored"
    documents, names = training_texts(task, hub_mirror), ", ".join(task.names)
    return TrainingSplits(f"{name} ({names})", f"the training split of {names}", hash_json(documents), tuple(documents))


def _documents(text: CalibText) -> Sequence[str]:
    match text:
        case TextFiles(files=files, document_start=start):
            return [document for file in files for document in calib_text.read_documents(file, start)]
        case TrainingSplits(documents=documents):
            return documents
    raise AssertionError(f"no documents in {text}")


def _text_ids(documents: Sequence[str], needed: int, seed: int, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens of the shuffled documents, each with the end token behind it: `needed` or some more, or all there are."""
    order = np.random.default_rng(seed).permutation(len(documents))
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    ids: list[int] = []
    for start in range(0, len(order), 1_000):
        batch = [documents[i] for i in order[start : start + 1_000]]
        for tokens in tokenizer(batch, add_special_tokens=False, verbose=False)["input_ids"]:
            ids += [*tokens, *end] if tokens else []  # empty documents would make windows of end tokens alone
        if len(ids) >= needed:
            break
    return ids


def _random_ids(n: int, seed: int, tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    """Ids drawn uniformly from the tokenizer's ordinary ones: no end, padding or other special token."""
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special} | set(tokenizer.all_special_ids)
    ordinary = sorted(set(tokenizer.get_vocab().values()) - special)
    return np.random.default_rng(seed).choice(ordinary, size=n)


def _check_enough(has: int, nsamples: int, seqlen: int, what: str) -> None:
    """Raise UserError, with what would fit, unless the tokens make the windows to calibrate and to measure on."""
    windows = nsamples + HELD_OUT_WINDOWS
    if has >= windows * seqlen:
        return
    if has == 0:
        raise UserError(f"{what} holds nothing that the tokenizer makes a token of. Give a text with words in it.")
    fitting = []
    if nsamples and has // seqlen > HELD_OUT_WINDOWS:
        fitting.append(f"calib.nsamples={has // seqlen - HELD_OUT_WINDOWS}")
    if has // windows >= MIN_SEQLEN:
        fitting.append(f"calib.seqlen={has // windows}")
    raise UserError(
        f"{what} has {has:,} tokens, but {nsamples} windows of {seqlen} tokens and {HELD_OUT_WINDOWS} held out for measuring "
        f"need {windows * seqlen:,}. Give a longer text" + "".join(f", or {setting}" for setting in fitting) + "."
    )
