"""What a library that does GPTQ has to say and do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from bitsure.config.quantizers import GptqSettings
from bitsure.quantize.quantizer import QuantizationJob, QuantizationTarget

if TYPE_CHECKING:
    from torch import nn


class GptqLibrary(ABC):
    """A value of `quant.backend`."""

    packages: tuple[str, ...]
    """The packages whose versions decide what the weights are."""
    changes_model: bool
    """Whether the model that it is given is changed."""
    loads_model: bool
    """Whether it loads the model itself, without remote code."""

    @abstractmethod
    def check(self, quant: GptqSettings, target: QuantizationTarget) -> None:
        """Raise UserError for what the library cannot do with the model's layers."""

    @abstractmethod
    def bytes_needed(self, quant: GptqSettings, modules: nn.Module, dtype: str) -> int:
        """Return about how many bytes its checkpoint takes, embeddings and norms included."""

    @abstractmethod
    def quantize(self, quant: GptqSettings, job: QuantizationJob) -> None:
        """Write the library's own checkpoint."""
