"""The settings of the quantizer's data, the calibration text."""

from __future__ import annotations

import re
from dataclasses import dataclass

from omegaconf import MISSING

from bitsure.base.errors import UserError, at_least, one_of

MIN_SEQLEN = 8  # tokens of a calibration window


@dataclass
class CalibSettings:
    """The quantizer's data: `nsamples` windows of `seqlen` tokens from files, the scored tasks, or the vocabulary."""

    name: str = MISSING  # what the text is called
    kind: str = "text"  # text: files; task: the scored tasks' training splits; random: tokens of the vocabulary
    path: str | None = None  # a file, or a folder of them: .txt, or .jsonl, .json.gz, .parquet with a `text` field
    repo: str | None = None  # a data set of the hub, org/name
    file: str | None = None  # its file
    document_start: str | None = None  # where lines or rows are parts of documents: a regular expression for the first
    nsamples: int = MISSING  # windows of the text that the quantizer is given
    seqlen: int = MISSING  # tokens of a window
    seed: int = 0  # draws the windows
    all_experts: bool = False  # mixtures of experts: every expert learns from every token, whatever the gate decides
    if_missing: str = "error"  # if the hub's file is unavailable: error, or pocket (the embedded text)

    def __post_init__(self) -> None:
        one_of("calib.kind", self.kind, ("text", "task", "random"))
        one_of("calib.if_missing", self.if_missing, ("error", "pocket"))
        at_least("calib.nsamples", self.nsamples, 1)
        at_least("calib.seqlen", self.seqlen, MIN_SEQLEN)
        if self.document_start is not None:
            try:
                re.compile(self.document_start)
            except re.error as error:
                raise UserError(f"calib.document_start={self.document_start}: no regular expression: {error}.") from error
        files = [key for key in ("path", "repo", "file", "document_start") if getattr(self, key) is not None]
        if self.kind != "text" and files:
            raise UserError(f"calib={self.name} reads no file: leave out calib.{files[0]}, or choose calib=text.")
        if self.kind == "text" and self.path is None and (self.repo is None or self.file is None):
            raise UserError(
                "calib: needs calib.path=FILE (.txt, or .jsonl, .json.gz, .parquet with a `text` field) or a folder of such. "
                "Example: calib=text calib.path=my.txt"
            )
