"""The interface of a library that does GPTQ."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from bitsure.config.gptq_settings import GptqSettings
from bitsure.quantize.quantizer import QuantizationJob, QuantizationTarget

if TYPE_CHECKING:
    from torch import nn


class GptqLibrary(ABC):
    """A value of `quant.backend`."""

    packages: tuple[str, ...]
    """The packages on whose versions the weights depend."""
    changes_model: bool
    """Whether it changes the model that it is given."""
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
