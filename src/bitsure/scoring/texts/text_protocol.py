"""The interface of a protocol: how a text is tokenized and cut into windows, and which tokens are scored."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, ClassVar

from bitsure.base.dotted_names import import_named
from bitsure.base.errors import UserError
from bitsure.config.text import TextSettings
from bitsure.scoring.texts.documents_of_text import TextDocuments
from bitsure.scoring.texts.tokenized_text import TokenizedText

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BUILT_IN = {
    "gptq": "bitsure.scoring.texts.gptq_windows.GptqWindows",
    "llamacpp": "bitsure.scoring.texts.llamacpp_windows.LlamaCppWindows",
    "harness": "bitsure.scoring.texts.rolling_windows.RollingWindows",
    "strided": "bitsure.scoring.texts.strided_windows.StridedWindows",
}
"""`text.protocol` → the class; others are named as module.Class."""


@dataclass(frozen=True)
class WindowSettings:
    """How large windows are, and how much of a text is taken.

    Attributes:
        window: The most tokens of a window, at least 2; never more than the model's context.
        stride: Tokens between the beginnings of windows; None: the protocol's own, or none.
        limit: The first tokens of the text only; None: all.
        add_bos: Whether the text begins with the BOS token; None: as the protocol does.
    """

    window: int
    stride: int | None = None
    limit: int | None = None
    add_bos: bool | None = None


class TextProtocol(ABC):
    """Cuts a text into windows of tokens.

    A protocol of one's own is a class derived from this one, named by `text.protocol=my_module.MyProtocol`.
    """

    default_window: ClassVar[int | None] = None
    """Tokens of a window where `text.window` is not given; None: the model's context."""

    @abstractmethod
    def cut(self, text: TextDocuments, tokenizer: PreTrainedTokenizerBase, settings: WindowSettings) -> TokenizedText:
        """Return the windows of a text.

        Args:
            text: The documents.
            tokenizer: The model's.
            settings: The size of windows, and the rest of what `text.*` says of them.

        Raises:
            UserError: If the text is too short for one window.
        """


def make_protocol(settings: TextSettings) -> TextProtocol:
    """Return the protocol that `text.protocol` names. Raises UserError if there is no such class."""
    if settings.protocol in BUILT_IN:
        module, _, name = BUILT_IN[settings.protocol].rpartition(".")
        kind = getattr(import_module(module), name)
    else:
        kind = import_named(settings.protocol, "text.protocol")
    if not (inspect.isclass(kind) and issubclass(kind, TextProtocol)):
        raise UserError(
            f"text.protocol={settings.protocol}: a class is needed that derives from "
            f"{TextProtocol.__module__}.{TextProtocol.__qualname__}."
        )
    protocol: TextProtocol = kind()
    return protocol
