"""The settings of the text that models are scored on, token by token."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields

from bitsure.base.errors import UserError, at_least, one_of

NO_TEXT = "none"  # the name of the option that scores none
OF_TASKS = "tasks"  # the name of the option that scores the prompts and right answers of the run's tasks
OF_ANSWERS = "written"  # the name of the option that scores the answers that full precision wrote
PROTOCOLS = ("gptq", "llamacpp", "harness", "strided")
FEWEST_TOKENS = 2  # of a window: one that is read, and one that is scored


@dataclass
class TextSettings:
    """A text, and how it is cut into windows of tokens that are scored."""

    name: str = NO_TEXT  # what the text is called; none: no text is scored
    path: str | None = None  # a file: .txt is one document; .jsonl, .json.gz and .parquet have a document a line or row
    repo: str | None = None  # a data set of the hub, org/name
    revision: str | None = None  # its branch, tag or commit; None: the hub's own
    file: str | None = None  # its file
    field: str = "text"  # the field of a line, or the column, that holds the text
    document_start: str | None = None  # where lines or rows are parts of documents: a regular expression for the first
    separator: str = "\n\n"  # gptq and strided: stands between lines or rows
    protocol: str = "gptq"  # gptq | llamacpp | harness | strided, or a class of your own as module.Class
    window: int | None = None  # tokens of a window; None: the protocol's own. Never more than the model's context
    stride: int | None = None  # strided: tokens between the beginnings of windows; None: half a window
    limit: int | None = None  # the first tokens of the text only; None: all
    add_bos: bool | None = None  # gptq, strided: begin the text with the BOS token; None: as docs/text.md says of each protocol

    def __post_init__(self) -> None:
        self._check_place()
        if "." not in self.protocol:  # a dotted name is a class of one's own
            one_of("text.protocol", self.protocol, PROTOCOLS)
        for key, least in (("window", FEWEST_TOKENS), ("stride", 1), ("limit", FEWEST_TOKENS)):
            if (value := getattr(self, key)) is not None:
                at_least(f"text.{key}", value, least, " (tokens)")
        if self.stride is not None and self.protocol in PROTOCOLS and self.protocol != "strided":
            raise UserError(
                f"text.stride={self.stride}: the protocol {self.protocol} has none. Leave it out, or add text.protocol=strided."
            )
        if self.stride is not None and self.window is not None and self.stride >= self.window:
            raise UserError(
                f"text.stride={self.stride}: must be less than text.window={self.window}, so that every token has a context."
            )
        if self.document_start is not None:
            try:
                re.compile(self.document_start)
            except re.error as error:
                raise UserError(f"text.document_start={self.document_start}: no regular expression: {error}.") from error

    def _check_place(self) -> None:
        """Raise UserError unless the text has one place, or there is no text and none is given."""
        if not self.is_scored:
            given = [key for key, value in vars(self).items() if key != "name" and value != getattr(TextSettings, key)]
            if given:
                raise UserError(
                    f"text=none text.{given[0]}={getattr(self, given[0])}: no text is scored. Add text=local text.path=FILE, "
                    "or another option of text."
                )
            return
        if self.is_of_tasks:
            changed = [field.name for field in fields(self)[1:] if getattr(self, field.name) != field.default]
            if changed:
                raise UserError(
                    f"text={self.name}: text.{changed[0]} has no effect: prompts and answers are scored as tasks put them. "
                    "Leave it out; task.limit takes fewer questions."
                )
            return
        if self.path is None and (self.repo is None or self.file is None):
            raise UserError("text: needs text.path=FILE. Example: text=local text.path=my.txt")

    @property
    def is_scored(self) -> bool:
        """Whether there is a text to score."""
        return self.name != NO_TEXT

    @property
    def is_of_tasks(self) -> bool:
        """Whether the text is of the run's tasks: their prompts and right answers, or what full precision wrote."""
        return self.name in (OF_TASKS, OF_ANSWERS)
